"""On SQLite the time of day decides nothing of a delivery while the machine runs: somebody may set it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline import sqlitefile
from pipeline.errors import BatchUnsure, UnavailableError
from pipeline.sinks.postgres import PostgresLedger
from pipeline.sinks.postgres.moving import move
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from tests.deliveries.desk import Desk, raising
from tests.ledger.bench import Bench

EVERY = 30.0
SETTLE = 900.0
SET = pytest.mark.parametrize("seconds", [EVERY + 1, SETTLE + 100, -3600.0, 0.0])


class Clock:
    """This machine's clocks: the time of day, which can be set, and the time since its boot."""

    def __init__(self) -> None:
        self._set = self._gone = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._set + self._gone

    def clock_gettime(self, which: int) -> float:
        """Seconds since the boot."""
        return time.clock_gettime(which) + self._gone

    def put(self, seconds: float) -> None:
        """Set the time of day."""
        self._set += seconds

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self._gone += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clocks of this file's tests."""
    made = Clock()
    monkeypatch.setattr(sqlitefile, "time", made)
    return made


def reboot(bench: Bench) -> None:
    """What is known of the clock is of a boot before this one."""
    bench.execute("UPDATE clock SET boot = 'before'")


@SET
def test_an_interval_is_as_long_as_it_is(sqlite_bench: Bench, clock: Clock, seconds: float) -> None:
    """However the clock is set, the next import begins when the interval is over, and not before."""
    desk = Desk(sqlite_bench, imports_every=EVERY)
    sqlite_bench.imported("a")
    assert desk.step()
    sqlite_bench.imported("b")
    clock.put(seconds)
    assert not desk.step()
    clock.go(EVERY - 5)
    assert not desk.step()
    clock.go(6)
    assert desk.step()
    assert len(desk.remote.batches) == 2


@SET
def test_a_batch_that_may_arrive_is_not_sent_again(sqlite_bench: Bench, clock: Clock, seconds: float) -> None:
    """However the clock is set, a batch whose arrival is unknown is looked for soon, and sent again when it has had its
    time to settle, and not before."""
    desk = Desk(sqlite_bench, settle=SETTLE)
    sqlite_bench.imported("a")
    desk.remote.mishaps.append(raising(BatchUnsure("no answer", code="timeout")))
    assert desk.step()
    clock.put(seconds)
    for _ in range(12):
        clock.go(65)
        assert desk.step()
    assert len(desk.remote.batches) == 1
    clock.go(SETTLE - 12 * 65 + 65)
    desk.steps()
    assert len(desk.remote.batches) == 2


@SET
def test_a_failure_is_waited_out(sqlite_bench: Bench, clock: Clock, seconds: float) -> None:
    """However the clock is set, the next attempt comes after the back-off, which is told by the time of day."""
    desk = Desk(sqlite_bench)
    sqlite_bench.imported("a")
    desk.remote.mishaps.append(raising(UnavailableError("busy", code="busy", retry_after=60.0)))
    assert desk.step()
    clock.put(seconds)
    assert 58 < desk.report()["due"] - sqlite_bench.ledger.now() <= 60
    assert not desk.step()
    clock.go(61)
    assert desk.step()
    assert desk.remote.texts()


def test_processes_agree(sqlite_bench: Bench, clock: Clock) -> None:
    """A process that is started after the clock was set goes by the same time as those before it."""
    desk = Desk(sqlite_bench, imports_every=EVERY)
    sqlite_bench.imported("a")
    assert desk.step()
    clock.put(-3600.0)
    before = sqlite_bench.tick(lambda tick: tick.deliveries().now())
    (_, _, path) = sqlite_bench.execute("PRAGMA database_list")[0]
    with closing(SqliteLedger(SqliteFile(path))) as other:
        after = other.tick(lambda tick: tick.deliveries().now())
    assert after is not None
    assert before <= after < before + 10


def test_after_a_boot_the_time_of_day_tells_how_long_it_was_off(sqlite_bench: Bench, clock: Clock) -> None:
    """A machine that was off for longer than an interval begins at once; from then on its clock may be set again."""
    desk = Desk(sqlite_bench, imports_every=EVERY)
    sqlite_bench.imported("a")
    assert desk.step()
    sqlite_bench.imported("b")
    clock.put(EVERY + 1)
    reboot(sqlite_bench)
    assert desk.step()
    sqlite_bench.imported("c")
    clock.put(EVERY + 1)
    assert not desk.step()


def test_a_clock_that_was_set_back_before_a_boot_costs_an_interval(sqlite_bench: Bench, clock: Clock) -> None:
    """Where the time of day is before what was known after a boot, an interval is waited for once more, not longer."""
    desk = Desk(sqlite_bench, imports_every=EVERY)
    sqlite_bench.imported("a")
    assert desk.step()
    sqlite_bench.imported("b")
    clock.put(-3600.0)
    reboot(sqlite_bench)
    assert not desk.step()
    clock.go(EVERY + 1)
    assert desk.step()


def test_what_moves_to_postgresql_goes_by_the_time_of_day(
    sqlite_bench: Bench, postgres_place: str, clock: Clock
) -> None:
    """A back-off that goes along into PostgreSQL ends there when it would have ended here; what never was stays so."""
    desk = Desk(sqlite_bench)
    sqlite_bench.imported("a")
    desk.remote.mishaps.append(raising(UnavailableError("busy", code="busy", retry_after=60.0)))
    clock.put(-3600.0)
    assert desk.step()
    clock.put(7200.0)
    (_, _, path) = sqlite_bench.execute("PRAGMA database_list")[0]
    with closing(PostgresLedger(postgres_place)) as ledger:
        ledger.migrate()
        move(Path(path), postgres_place, lambda _, __: None)
        (row,) = ledger.deliveries().report()
    assert 50 < row["due"] - clock.time() <= 60
    assert row["ended_at"] <= clock.time()
    with psycopg.connect(postgres_place) as connection:
        assert connection.execute("SELECT look_due <= 'epoch', settled_at = sent_at FROM batches").fetchall() == [
            (True, True)
        ]
