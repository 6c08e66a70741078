"""SIGKILL at any moment: whatever was under way, a later run has every object exactly once."""

from __future__ import annotations

import json
import random
import signal
from typing import Any

import pytest

from pipeline.faults import POINTS
from tests.e2e.house import House

ELSEWHERE = {"watcher.taken", "watcher.recorded", "scheduler.granted", "worker.committing"}
"""Points of queues, deliveries (all of the deliverer's, too) and PostgreSQL alone: their own tests kill at them."""
ROWS = 12_000
KILLS = 20
LONGEST_LIFE = 0.6
"""Seconds that a process of the random test lives at most, from when its roles have started."""
SEED = 20


def put_work(house: House) -> dict[str, list[Any]]:
    """Small files, and one that is written in pieces, so that every point is passed; gives what comes of them."""
    house.put("big.csv", "text,n\n" + "".join(f"row,{n}\n" for n in range(ROWS)))
    return house.put_tasks(40) | {"big.csv": [{"text": "row", "n": n} for n in range(ROWS)]}


@pytest.mark.parametrize("point", sorted(point for point in POINTS - ELSEWHERE if not point.startswith("deliverer.")))
def test_a_kill_at_any_point_loses_and_doubles_nothing(house: House, point: str) -> None:
    """Killed at this point, a run leaves a ledger from which the next one ends with every object exactly once."""
    expected = put_work(house)
    assert house.start("run", "--once", fault=point).end().code == -signal.SIGKILL
    house.once()
    house.agrees(expected)
    assert house.rows("SELECT count(*) FROM leases") == [(0,)]


@pytest.mark.timeout(400)
def test_kills_at_random_moments_lose_and_double_nothing(house: House) -> None:
    """Killed again and again while files come, change and go, the last run ends with what the folder then holds."""
    house.configure({"on_change": "replace", "on_delete": "archive", "delete_guard": 1})
    chance = random.Random(SEED)
    holds: dict[str, list[Any]] = {}
    for life in range(KILLS):
        running = house.start("run", "--log-format=json")
        for n in range(10):
            change(house, holds, chance, life * 100 + n)
        running.await_start()
        for n in range(10, 20):
            change(house, holds, chance, life * 100 + n)
        with pytest.raises(TimeoutError):
            running.outlive(chance.uniform(0.0, LONGEST_LIFE))
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL
    house.once()
    house.agrees(holds)


def change(house: House, holds: dict[str, list[Any]], chance: random.Random, number: int) -> None:
    """Add a file, put another in the place of one, or delete one; `holds` is what the folder holds after it."""
    what = chance.choice(["add", "add", "replace", "delete"]) if holds else "add"
    if what == "delete":
        key = chance.choice(sorted(holds))
        (house.inbox / key).unlink()
        del holds[key]
        return
    key = f"f{number:05}.jsonl" if what == "add" else chance.choice(sorted(holds))
    holds[key] = [{"text": f"{number} {row}"} for row in range(chance.randint(1, 4))]
    house.put(key, "\n".join(json.dumps(data) for data in holds[key]))
