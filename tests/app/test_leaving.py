"""Which sources a run that ends leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.app.leaving import LOOK_SECONDS, Left
from pipeline.ledger import Outcome, Reason
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from tests.ledger.bench import SOURCES, Bench, done, task

PATIENCE = 10.0


class Clock:
    """A clock that the test moves."""

    at = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.at


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A ledger."""
    path = tmp_path / "labelfeed.db"
    with closing(SqliteLedger(SqliteFile(path))) as ledger:
        ledger.migrate()
        ledger.register(SOURCES)
        yield Bench(ledger, lambda: ledger, lambda _: [])


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def left(bench: Bench, clock: Clock) -> Left:
    """What is tested."""
    return Left(bench.ledger.reports(), PATIENCE, clock=clock)


def is_left(bench: Bench, left: Left, clock: Clock, seconds: float) -> bool:
    """Whether the inbox is left after so many seconds more."""
    clock.at += seconds
    row = next(row for row in bench.ledger.reports().sources() if row["name"] == "inbox")
    return left.is_left(row)


def away(object_id: int) -> Outcome:
    """An object whose storage did not answer."""
    return Outcome(object_id, "ready", reason=Reason("unavailable", "no answer"), retry_after=0.0)


def test_storage_that_does_not_answer_is_left_after_its_time(bench: Bench, left: Left, clock: Clock) -> None:
    """A source of which nothing ends is left after the patience, not before, and only if its storage is why."""
    lease, (work,) = bench.begin("a")
    assert not is_left(bench, left, clock, 0)
    assert not is_left(bench, left, clock, PATIENCE + 1), "nothing has failed yet"
    bench.commit(lease, away(work.id))
    assert is_left(bench, left, clock, LOOK_SECONDS)


def test_a_source_that_moves_is_not_left(bench: Bench, left: Left, clock: Clock) -> None:
    """Whenever an object ends the time begins anew, and a source that was left is taken up again."""
    lease, (first, second) = bench.begin("a", "b")
    bench.commit(lease, away(first.id))
    assert not is_left(bench, left, clock, 0)
    assert is_left(bench, left, clock, PATIENCE + 1)
    bench.commit(lease, done(second))
    assert not is_left(bench, left, clock, LOOK_SECONDS)
    assert not is_left(bench, left, clock, PATIENCE - 1)
    assert is_left(bench, left, clock, 2)


def test_a_large_file_under_way_is_waited_for(bench: Bench, left: Left, clock: Clock) -> None:
    """While a large file goes on its source is not left, though another object of it has no answer."""
    lease, (first, large) = bench.begin("a", "large")
    bench.commit(lease, away(first.id))
    assert not is_left(bench, left, clock, 0)
    for piece in range(3):
        bench.ledger.stage(lease, large.id, piece, [task("t", piece + 1)], [])()
        assert not is_left(bench, left, clock, PATIENCE + 1)
    assert is_left(bench, left, clock, PATIENCE + 1)
