"""Which sources a run that ends leaves because of their project's deliveries."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from pipeline.app.leaving import Behind
from pipeline.config import Config
from pipeline.ledger.deliveries import DeliveryIdentity
from tests.ledger.bench import Bench
from tests.ledger.conftest import sqlite_bench

__all__ = ["sqlite_bench"]

EVERY = 30
CONFIG = Config.model_validate({
    "projects": {
        "cats": {
            "deliveries": [{"name": name, "jsonl": {"url": f"./{name}"}} for name in "ab"],
            "throttle": {"undelivered_tasks": 2, "imports_every": EVERY},
        },
        "dogs": {},
    },
    "sources": [
        {"name": "inbox", "project": "cats", "url": "./x"},
        {"name": "bucket", "project": "dogs", "url": "./y"},
    ],
})  # fmt: skip
HELD = {"inbox": "deliveries are behind: 2 of 2"}

Ask = Callable[[], Mapping[str, str]]


@pytest.fixture
def held(sqlite_bench: Bench) -> Ask:
    """What is held now, in a project that has as much before its two deliveries as may be."""
    sqlite_bench.ledger.deliveries().register([DeliveryIdentity("cats", name, "jsonl", name) for name in "ab"])
    sqlite_bench.imported("a", texts=("x", "y"))
    return lambda: Behind(sqlite_bench.ledger, CONFIG).held()


def change(bench: Bench, name: str, changes: str) -> None:
    """Change a delivery; NOW is the time."""
    set_to = changes.replace("NOW", str(bench.ledger.now()))
    bench.execute(f"UPDATE deliveries SET backfill = NULL, {set_to} WHERE name = '{name}'")


def test_what_goes_on_is_waited_for(sqlite_bench: Bench, held: Ask) -> None:
    """Nothing is held while a delivery has something to do; when each is paused or fails, their project's source is."""
    assert held() == {}
    change(sqlite_bench, "a", "paused_at = NOW")
    assert held() == {}
    change(sqlite_bench, "b", "failing = 1, due = NOW + 60")
    assert held() == HELD


def test_a_next_attempt_is_waited_for(sqlite_bench: Bench, held: Ask) -> None:
    """A delivery that failed before, and whose next attempt is due, is waited for: it may have been mended."""
    change(sqlite_bench, "a", "paused_at = NOW")
    change(sqlite_bench, "b", "failing = 3, due = NOW - 1")
    assert held() == {}
    change(sqlite_bench, "b", "until = 1")
    assert held() == {}
    change(sqlite_bench, "b", "until = NULL, ended_at = NOW")
    assert held() == HELD


def test_a_delivery_without_anything_to_try_is_not_waited_for(sqlite_bench: Bench, held: Ask) -> None:
    """What a delivery failed at before its last tasks were set aside is no attempt that is to come."""
    change(sqlite_bench, "a", "paused_at = NOW")
    sqlite_bench.execute("DELETE FROM outbox WHERE delivery_id = (SELECT id FROM deliveries WHERE name = 'b')")
    change(sqlite_bench, "b", "failing = 1, due = NOW - 1")
    assert held() == HELD


def test_deliveries_that_take_turns_are_not_waited_for_in_turn(sqlite_bench: Bench, held: Ask) -> None:
    """Of two that fail in turns each has its attempt an interval after the other's, and none is due in between."""
    change(sqlite_bench, "a", f"failing = 1, ended_at = NOW - {EVERY + 1}")
    change(sqlite_bench, "b", "failing = 1, ended_at = NOW")
    assert held() == HELD


def test_room_before_them_holds_nothing(sqlite_bench: Bench, held: Ask) -> None:
    """Whatever fails, a source goes on as long as there is room before its deliveries."""
    for name in "ab":
        change(sqlite_bench, name, "failing = 1, due = NOW + 60")
    assert held() == HELD
    sqlite_bench.execute("UPDATE outbox SET done_at = at")
    assert held() == {}
