"""What every ledger promises of streams: their position moves with the ranges that it passes over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import DataRefused
from pipeline.events import ObjectEvent
from pipeline.ledger import SourceIdentity
from tests.ledger.bench import SOURCES, Bench, done


def ranges(*keys: str) -> list[ObjectEvent]:
    """The events of ranges with these keys."""
    return [ObjectEvent("inbox", key, version=key, size=10) for key in keys]


class QueueContract:
    def test_ranges_move_the_position(self, bench: Bench) -> None:
        """Ranges become ready objects, and the position is the last one's key."""
        source = bench.load().id
        assert bench.ledger.taken(source) is None
        assert bench.ledger.record_ranges(source, None, ranges("9..10", "11..12"))

        assert bench.ledger.taken(source) == "11..12"
        rows = [bench.row(key) for key in ("9..10", "11..12")]
        assert [(row["state"], row["version"], row["size"]) for row in rows] == [
            ("ready", "9..10", 10),
            ("ready", "11..12", 10),
        ]
        assert bench.load().ready == 2

    def test_another_position_refuses(self, bench: Bench) -> None:
        """Who took from a position that has moved meanwhile writes nothing, so that no entry is in two ranges."""
        source = bench.load().id
        assert bench.ledger.record_ranges(source, None, ranges("1..5"))

        assert not bench.ledger.record_ranges(source, None, ranges("1..7"))
        assert bench.ledger.record_ranges(source, "1..5", ranges("6..9"))
        assert not bench.ledger.record_ranges(source, "1..5", ranges("6..7"))
        assert bench.ledger.taken(source) == "6..9"
        assert bench.count("objects") == 2

    def test_positions_are_each_sources_own(self, bench: Bench) -> None:
        """One source's position is none of another's."""
        first, second = bench.load().id, bench.load("bucket").id
        bench.ledger.record_ranges(first, None, ranges("1..5"))

        assert bench.ledger.taken(second) is None

    def test_only_one_of_many_takes(self, bench: Bench) -> None:
        """Of several that take from one position at the same time exactly one has it."""
        source = bench.load().id
        for after, last in ((None, "1"), ("1", "2")):
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(bench.ledger.record_ranges, source, after, ranges(last)) for _ in range(8)]
            assert [one.result() for one in asked].count(True) == 1
        assert bench.count("objects") == 2

    def test_refused_ranges_move_nothing(self, bench: Bench) -> None:
        """Where the database refuses a range, the position stays."""
        source = bench.load().id
        bench.ledger.record_ranges(source, None, ranges("1"))
        with pytest.raises(DataRefused):
            bench.ledger.record_ranges(source, "1", ranges("2", "\ud800"))

        assert bench.ledger.taken(source) == "1"
        assert bench.count("objects") == 1

    def test_ranges_are_imported_as_all_objects_are(self, bench: Bench) -> None:
        """A range is claimed, started and committed as any object."""
        source = bench.load().id
        bench.ledger.record_ranges(source, None, ranges("1..5"))
        (claim,) = bench.claims()
        (work,) = bench.ledger.start(claim.lease, "w", 60)
        bench.commit(claim.lease, done(work, texts=("a", "b")))

        assert (bench.state("1..5"), bench.texts("1..5")) == ("done", ["a", "b"])

    def test_another_stream_begins_at_its_beginning(self, bench: Bench) -> None:
        """A name that is accepted for another store has no position in it; a changed configuration keeps it."""
        source = bench.load().id
        bench.ledger.record_ranges(source, None, ranges("1..5"))
        bench.ledger.register([SourceIdentity(*SOURCES[0][:4], "h2"), SOURCES[1]])
        assert bench.ledger.taken(source) == "1..5"

        other = SourceIdentity("inbox", "cats", "elsewhere", "elsewhere", "h1")
        bench.ledger.register([other, SOURCES[1]], accept=frozenset({"inbox"}))
        assert bench.ledger.taken(source) is None
