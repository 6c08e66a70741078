"""Slow parts slow down what comes before them, on the real servers, and `status` says why anything waits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from deploy import services
from deploy.services import Service
from pipeline import cli
from pipeline.consumers.redis_queue import RedisQueue
from tests.faults.conftest import Make
from tests.faults.installation import Installation, until
from tests.faults.network import Proxy

IN_FLIGHT = 60
THREADS = 4
PRESSED_SECONDS = 180.0
LATENCY_MS = 500
QUICK_SECONDS = 0.2


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


@pytest.mark.timeout(4 * PRESSED_SECONDS)
def test_a_slow_database_gets_fewer_commits(
    make: Make, toxiproxy: Service, unique: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commits that become slow halve the claims in flight until there is one, and status says why; once they are
    quick again the bound rises by one at a time, until nothing is bounded; everything is imported once."""
    installation = make(limits={"workers": THREADS, "batch_objects": 5, "lease": "60s"})
    port = urlsplit(installation.database).port
    assert port is not None
    proxy = Proxy.to(toxiproxy, unique, port)
    behind = installation.folder / "behind.yaml"
    behind.write_text(installation.config.read_text().replace(f":{port}/", f":{proxy.port}/"))
    installation.start("watch", "dispatch")
    installation.start("work", config=behind)
    installation.put(40)
    installation.imported(seconds=PRESSED_SECONDS)
    with psycopg.connect(installation.database, autocommit=True) as connection:

        def asked(statement: str) -> float:
            return float(connection.execute(statement).fetchall()[0][0])

        def bound() -> float:
            """What the bound is now; there is always something to do, so that it can change."""
            if asked("SELECT coalesce(sum(n), 0) FROM source_counts WHERE state = 'ready'") < 100:
                installation.put(20)
            return asked("SELECT bound FROM scheduling")

        def bounds(last: float) -> list[float]:
            """The bounds that come until one of them is `last`."""
            seen = [bound()]

            def came() -> bool:
                if (now := bound()) != seen[-1]:
                    seen.append(now)
                return len(seen) > 1 and now == last

            until(came, PRESSED_SECONDS, what=lambda: f"a bound of {last} after {seen}: {installation.explain()}")
            return seen

        def quick() -> bool:
            return bound() == 0 and 0 < asked("SELECT best FROM scheduling") < QUICK_SECONDS

        until(quick, PRESSED_SECONDS, what="quick commits")
        proxy.slow(LATENCY_MS)
        assert bounds(1.0)[-2:] == [2.0, 1.0]
        until(lambda: asked("SELECT count(*) FROM leases") <= 1, what="the claims of before to end")
        until(lambda: waits(installation, capsys) == "the database is under pressure", what="status to say so")
        assert asked("SELECT count(*) FROM leases") <= 1
        proxy.hurry()
        rising = bounds(0.0)
        assert {2.0, 3.0, 4.0} <= set(rising), rising
    installation.imported(seconds=PRESSED_SECONDS)
    installation.exactly_once()
    proxy.remove()
