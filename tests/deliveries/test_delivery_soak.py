"""A soak of deliveries: processes are killed at random while tasks go to a real Label Studio.

`LABELFEED_SOAK_TASKS` is how many tasks, 50,000 by `make soak`; without it 600, with two kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from threading import Event

import pytest

from tests.deliveries.studio import Studio
from tests.e2e.house import House, until

TASKS = int(os.environ.get("LABELFEED_SOAK_TASKS", "600"))
KILLS = 10 if TASKS >= 10_000 else 2
ROWS = 50
"""Tasks in a file."""


@pytest.mark.timeout(60 + TASKS // 10)
def test_random_kills(house: House, studio: Studio) -> None:
    """Every task arrives exactly once, with its own data, whenever the process that brings them is killed."""
    throttle = {"imports_every": "0s", "tasks_per_import": max(50, TASKS // 40)}
    delivery = studio.delivery(timeout="10s", settle="2s")
    house.configure(projects={"p": {"throttle": throttle, "deliveries": [delivery]}})
    wanted = Counter({f"task {number}": 1 for number in range(TASKS)})
    for first in range(0, TASKS, ROWS):
        house.put(f"{first:07}.json", json.dumps([{"text": f"task {n}"} for n in range(first, first + ROWS)]))

    def delivered() -> int:
        rows = house.rows("SELECT count(*) FROM delivered WHERE state = 'done'")
        return int(rows[0][0]) if rows else 0

    for kill in range(KILLS):
        process = house.start("run", "--log-format=json")
        aim = TASKS * (kill + 1) // (KILLS + 2)
        until(lambda aim=aim: delivered() >= aim, seconds=TASKS, what="some more")
        Event().wait(random.uniform(0, 0.5))
        process.signal(signal.SIGKILL)
        process.end()
    with house.continuously():
        until(lambda: delivered() == TASKS, seconds=TASKS, what="the rest")

    there = {str(task["id"]): task["data"]["text"] for task in studio.export()}
    assert Counter(there.values()) == wanted
    ours = house.rows(
        "SELECT x.remote_id, t.data FROM delivered AS x JOIN task_rows AS t ON t.id = x.task_id WHERE x.state = 'done'"
    )
    assert {remote: json.loads(data)["text"] for remote, data in ours} == there
