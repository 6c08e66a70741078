"""Slow parts slow down what comes before them, on the real servers, and `status` says why anything waits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
import yaml

from deploy import services
from deploy.services import Service
from pipeline import cli
from pipeline.consumers.redis_queue import RedisQueue
from tests.faults.conftest import Make
from tests.faults.installation import Installation, until

IN_FLIGHT = 60


def change(installation: Installation, **throttle: Any) -> None:
    """Give the installation's project a throttle."""
    document = yaml.safe_load(installation.config.read_text())
    document["projects"]["p"]["throttle"] = throttle
    installation.config.write_text(yaml.safe_dump(document))


def status(installation: Installation, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `labelfeed status` tells."""
    capsys.readouterr()
    cli.run(["status", "--json", "--config", str(installation.config)])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def waits(installation: Installation, capsys: pytest.CaptureFixture[str]) -> str:
    """What the source waits for, in words."""
    told = status(installation, capsys)["sources"][0]["waits"]
    return "" if told is None else str(told["text"])


def test_redis_stays_bounded(make: Make, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """While the workers stand still the ledger takes all events, and Redis no more messages than may be in flight;
    when they go on, everything is imported once."""
    installation = make(limits={"in_flight_objects": IN_FLIGHT, "lease": "30s"})
    installation.put(40)
    installation.start("watch", "dispatch")
    worker = installation.start("work")
    installation.imported()
    worker.suspend()
    installation.put(400)
    until(lambda: installation.counts().get("ready", 0) >= 400 - IN_FLIGHT, what="the events in the ledger")
    with closing(RedisQueue(redis_url)) as queue:
        until(queue.depth, what="a claim")
        for _ in range(20):
            counts = installation.counts()
            assert counts.get("claimed", 0) + counts.get("running", 0) <= IN_FLIGHT
            assert queue.depth() <= IN_FLIGHT
    worker.resume()
    installation.imported()
    installation.exactly_once()


def test_limits_hold_over_processes(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Two dispatchers and two workers import no faster than `tasks_per_second` and no more than `max_tasks`; status
    says so, and goes on to say that the project is full."""
    installation = make()
    rate, most = 20.0, 100
    change(installation, tasks_per_second=rate, max_tasks=most)
    installation.put(160)
    for _ in range(2):
        installation.start("dispatch", "work")
    installation.start("watch")
    seen: list[tuple[float, int]] = []
    told: set[str] = set()
    with psycopg.connect(installation.database, autocommit=True) as connection:
        until(lambda: installation.counts().get("ready", 0) > 0, what="events")
        while not seen or seen[-1][1] < most:
            ((count,),) = connection.execute("SELECT count(*) FROM tasks").fetchall()
            seen.append((time.monotonic(), count))
            if len(seen) % 10 == 0:
                told.add(waits(installation, capsys).split(":")[0])
            assert len(seen) < 20_000, installation.explain()
        begun = seen[0][0]
        assert seen[-1][0] - begun >= (most - seen[0][1]) / rate - 2.0
        until(lambda: waits(installation, capsys) == f"full: {most} of {most}", what="a full project")
        (project,) = status(installation, capsys)["projects"]
        assert project["waits"]["text"] == f"full: {most} of {most}"
        assert connection.execute("SELECT count(*) FROM tasks").fetchall() == [(most,)]
    assert "throttled" in told
    change(installation)
    for role in installation.roles:
        if role.name == "dispatch":
            assert role.end() == 0
    installation.start("dispatch")
    installation.imported()
    installation.exactly_once()


def test_status_says_that_redis_is_away(
    make: Make, own: Callable[[str], Service], capsys: pytest.CaptureFixture[str]
) -> None:
    """While Redis is away nothing is claimed; status says that this is what the source waits for, until it is back."""
    redis = own("redis")
    installation = make(queue=redis.url)
    installation.put(20)
    installation.start("watch", "dispatch", "work")
    installation.imported()
    services.kill(redis)
    installation.put(20)
    until(lambda: waits(installation, capsys) == "Redis does not answer", what="status to say so")
    services.restart(redis, hard=True)
    installation.imported()
    assert waits(installation, capsys) == ""
    installation.exactly_once()
