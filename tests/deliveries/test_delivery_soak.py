"""A soak of deliveries: processes are killed at random while tasks go to a real Label Studio.

`LABELFEED_SOAK_TASKS` is how many tasks, 50,000 by `make soak`, with ten kills; without it a few, with two or three.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import psycopg
import pytest

from tests.deliveries.studio import Studio
from tests.e2e.house import House, Running
from tests.faults.installation import until

WHOLE = int(os.environ.get("LABELFEED_SOAK_TASKS", "0"))
TASKS = {"embedded": WHOLE or 600, "distributed": WHOLE or 2_000}
KILLS = {"embedded": 10, "distributed": 10} if WHOLE >= 10_000 else {"embedded": 2, "distributed": 3}
ROLES = {"embedded": ("run",), "distributed": ("watch", "dispatch", "work", "work")}
VICTIMS = ("run", "dispatch", "work")
ROWS = 50
"""Tasks in a file."""
TIMEOUT = "10s" if WHOLE else "5s"
"""A killed sender's grant lasts by this: in the distributed setting nobody else sends before it has ended."""


@dataclass
class Setting:
    """Processes that work the house, and how to look into their database."""

    name: str
    house: House
    top: dict[str, Any]
    rows: Callable[[str], list[Any]]
    running: list[tuple[str, Running]] = field(default_factory=list)
    _turns: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start each role."""
        self.running = [(role, self._started(role)) for role in ROLES[self.name]]

    def kill(self) -> None:
        """Kill one at random, each once before any of them again, and start it anew."""
        if not self._turns:
            victims = [number for number, (role, _) in enumerate(self.running) if role in VICTIMS]
            self._turns = random.sample(victims, len(victims))
        number = self._turns.pop()
        role, process = self.running[number]
        process.signal(signal.SIGKILL)
        assert process.end().code == -signal.SIGKILL
        self.running[number] = role, self._started(role)

    def end(self) -> None:
        """End all by SIGTERM, which has to be a good end."""
        for _, process in self.running:
            process.signal(signal.SIGTERM)
        for role, process in self.running:
            ended = process.end()
            assert ended.code == 0, f"{role}: {ended.err}"

    def _started(self, role: str) -> Running:
        return self.house.start(role, "--log-format=json")


@pytest.fixture(params=ROLES)
def setting(request: pytest.FixtureRequest, house: House) -> Iterator[Setting]:
    """One process on SQLite, or each role in processes of its own on PostgreSQL, Kafka and Redis."""
    if request.param == "embedded":
        yield Setting(request.param, house, {}, house.rows)
        return
    database, queue, events, unique = map(request.getfixturevalue, ("database_url", "redis_url", "kafka_url", "unique"))
    with closing(psycopg.connect(database, autocommit=True)) as connection:

        def rows(statement: str) -> list[Any]:
            with suppress(psycopg.errors.UndefinedTable):
                return connection.execute(statement.encode()).fetchall()
            return []

        events = f"{events}?partitions=4&session=3&group={unique}"
        top = {"database": database, "queue": queue, "events": events, "limits": {"lease": "3s"}}
        yield Setting(request.param, house, top, rows)


@pytest.mark.timeout(300 + WHOLE // 10)
def test_random_kills(setting: Setting, house: House, studio: Studio) -> None:
    """Every task arrives exactly once, with its own data, whenever the processes that bring them are killed."""
    tasks, kills = TASKS[setting.name], KILLS[setting.name]
    throttle = {"imports_every": "0s", "tasks_per_import": max(ROWS, tasks // (40 if WHOLE else 20))}
    delivery = studio.delivery(timeout=TIMEOUT, settle="2s")
    house.configure(projects={"p": {"throttle": throttle, "deliveries": [delivery]}}, **setting.top)
    wanted = Counter({f"task {number}": 1 for number in range(tasks)})
    for first in range(0, tasks, ROWS):
        house.put(f"{first:07}.json", json.dumps([{"text": f"task {n}"} for n in range(first, first + ROWS)]))

    def delivered() -> int:
        rows = setting.rows("SELECT count(*) FROM delivered WHERE state = 'done'")
        return int(rows[0][0]) if rows else 0

    seconds = 60 + tasks / 10
    setting.start()
    for kill in range(kills):
        aim = tasks * (kill + 1) // (kills + 2)
        until(lambda aim=aim: delivered() >= aim, seconds, "some more")
        Event().wait(random.uniform(0, 0.5))
        setting.kill()
    until(lambda: delivered() == tasks, seconds, "the rest")
    setting.end()

    there = {str(task["id"]): task["data"]["text"] for task in studio.export()}
    assert Counter(there.values()) == wanted
    ours = setting.rows(
        "SELECT x.remote_id, t.data FROM delivered AS x JOIN task_rows AS t ON t.id = x.task_id WHERE x.state = 'done'"
    )
    assert {remote: _text(data) for remote, data in ours} == there


def _text(data: Any) -> str:
    return str((data if isinstance(data, dict) else json.loads(data))["text"])
