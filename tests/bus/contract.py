"""What every event log promises, as tests. A suite gives the fixture `bench` and inherits from `LogContract`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.bus import Consumer, EventLog, Offsets, Record
from pipeline.events import ObjectEvent, Sequencer, UndecodableEvent

DEADLINE_SECONDS = 30.0
DEEP = 1000
"""About as far as a JSON text may be nested."""
CLOCK_STEP_SECONDS = 0.01
"""Logs count time in milliseconds."""


@dataclass(frozen=True)
class Bench:
    """A log of one test alone: `open` opens it once more, `inject` puts raw bytes on it, `dead` reads its dead
    letters as (body, reason)."""

    open: Callable[[], EventLog]
    inject: Callable[[bytes], None]
    dead: Callable[[], list[tuple[bytes, str]]]


def nothing(_partitions: Sequence[int]) -> Offsets:
    """The positions of a ledger that knows nothing of the log."""
    return {}


def take(consumer: Consumer, count: int, limit: int = 1000) -> tuple[list[Record], dict[int, int]]:
    """At least `count` records, and the positions after them."""
    records: list[Record] = []
    positions: dict[int, int] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came"
        polled = consumer.poll(limit, 0.5)
        records += polled.records
        positions |= polled.positions
    return records, positions


def events_of(records: Sequence[Record]) -> list[ObjectEvent]:
    """The events of records that hold one."""
    return [record.event for record in records if isinstance(record.event, ObjectEvent)]


def some(count: int, source: str = "inbox") -> list[ObjectEvent]:
    """Events of different objects."""
    return [
        ObjectEvent(source, f"k{number:05}", version="v1", time=1.5, id=f"{source}-{number}") for number in range(count)
    ]


class LogContract:
    """The promises of `pipeline.bus.EventLog` and `pipeline.bus.Consumer`."""

    def test_what_is_published_is_polled_once_and_whole(self, bench: Bench) -> None:
        """Every field of an event comes through, and each event comes once."""
        whole = ObjectEvent(
            source="inbox",
            key="a folder/ü+%20\n\u2028 file.json",
            kind="updated",
            version='"an etag"',
            sequencer=Sequencer("s3", "0055AED6DCD90281E5"),
            size=2**40,
            modified=1_700_000_000.25,
            discovered_by="notification",
            time=1_700_000_001.5,
            id="id-1",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        bare = ObjectEvent("inbox", "b", kind="deleted", time=2.0, id="id-2")
        log = bench.open()
        log.publish([whole, bare])
        consumer = log.consumer(nothing)
        records, _ = take(consumer, 2)

        assert sorted([whole, bare]) == sorted(events_of(records))
        assert not consumer.poll(10, 0.3).records
        consumer.close()
        log.close()

    def test_positions_of_publish_end_and_poll_agree(self, bench: Bench) -> None:
        """The position after the last record is the same, whoever is asked."""
        log = bench.open()
        before = log.end()
        published = log.publish(some(50))
        consumer = log.consumer(nothing)
        _, polled = take(consumer, 50)
        end = log.end()

        assert {at: end[at] for at in published} == published
        assert {at: polled[at] for at in published} == published
        assert all(before[at] <= end[at] for at in before)
        consumer.close()
        log.close()

    def test_a_consumer_starts_where_the_ledger_says(self, bench: Bench) -> None:
        """The ledger's positions count, not what was committed to the log."""
        log = bench.open()
        middle = {**log.end(), **log.publish(some(10, "first"))}
        log.publish(some(10, "second"))
        first = log.consumer(nothing)
        _, positions = take(first, 20)
        first.commit(positions)
        first.close()
        second = log.consumer(lambda partitions: {at: middle[at] for at in partitions if at in middle})
        records, _ = take(second, 10)

        assert {event.source for event in events_of(records)} == {"second"}
        second.close()
        log.close()

    def test_a_consumer_without_a_ledger_starts_at_the_beginning(self, bench: Bench) -> None:
        """Where the ledger knows nothing, nothing is passed over, even if it was committed."""
        log = bench.open()
        log.publish(some(5))
        first = log.consumer(nothing)
        _, positions = take(first, 5)
        first.commit(positions)
        first.close()
        second = log.consumer(nothing)

        assert len(take(second, 5)[0]) == 5
        second.close()
        log.close()

    def test_start_is_asked_for_every_partition(self, bench: Bench) -> None:
        """A consumer alone is asked where to begin in each partition of the log."""
        log = bench.open()
        asked: set[int] = set()

        def start(partitions: Sequence[int]) -> Offsets:
            asked.update(partitions)
            return {}

        consumer = log.consumer(start)
        log.publish(some(1))
        take(consumer, 1)

        assert asked == set(log.end())
        consumer.close()
        log.close()

    def test_an_empty_log_polls_in_time(self, bench: Bench) -> None:
        """A poll that finds nothing returns nothing when its time is over."""
        log = bench.open()
        consumer = log.consumer(nothing)
        consumer.poll(10, 0.0)
        began = time.monotonic()
        polled = consumer.poll(10, 0.3)

        assert not polled.records
        assert 0.2 < time.monotonic() - began < 5
        consumer.close()
        log.close()

    def test_a_poll_keeps_its_limit(self, bench: Bench) -> None:
        """No more records come than were asked for, and the next poll goes on behind them."""
        log = bench.open()
        log.publish(some(25))
        consumer = log.consumer(nothing)
        sizes = []
        seen: list[ObjectEvent] = []
        while len(seen) < 25:
            records, _ = take(consumer, 1, limit=10)
            sizes.append(len(records))
            seen += events_of(records)

        assert max(sizes) <= 10
        assert sorted(seen) == some(25)
        consumer.close()
        log.close()

    def test_what_is_said_of_one_key_stays_in_order(self, bench: Bench) -> None:
        """Events of one object come in the order in which they were published."""
        log = bench.open()
        said = [ObjectEvent("inbox", "one", version=str(number), time=1.0, id=str(number)) for number in range(200)]
        for at in range(0, 200, 20):
            log.publish([*said[at : at + 20], *some(7)])
        consumer = log.consumer(nothing)
        records, _ = take(consumer, 270)

        assert [event for event in events_of(records) if event.key == "one"] == said
        consumer.close()
        log.close()

    def test_a_waiting_poll_wakes_when_something_comes(self, bench: Bench) -> None:
        """An event published during a poll ends it, long before its time is over."""
        log = bench.open()
        consumer = log.consumer(nothing)
        log.publish(some(1))
        take(consumer, 1)
        threading.Timer(0.2, lambda: log.publish(some(1))).start()
        began = time.monotonic()
        polled = consumer.poll(10, 20.0)

        assert len(polled.records) == 1
        assert time.monotonic() - began < 5
        consumer.close()
        log.close()

    def test_many_threads_may_publish(self, bench: Bench) -> None:
        """Nothing is lost or doubled when many threads publish at once."""
        log = bench.open()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: log.publish(some(50, f"s{number}")), range(16)))
        consumer = log.consumer(nothing)
        records, _ = take(consumer, 800)

        assert sorted(event.id for event in events_of(records)) == sorted(
            event.id for number in range(16) for event in some(50, f"s{number}")
        )
        consumer.close()
        log.close()

    def test_what_cannot_be_read_comes_with_its_reason(self, bench: Bench) -> None:
        """A record that is no event is given as its bytes and why, and doesn't stop the others."""
        log = bench.open()
        deep = b"[" * DEEP + b"]" * DEEP
        log.publish(some(1, "before"))
        bench.inject(deep)
        bench.inject(b'{"not": "an event"}')
        bench.inject(b"\xff\x00")
        log.publish(some(1, "after"))
        consumer = log.consumer(nothing)
        records, _ = take(consumer, 5)
        broken = [record.event for record in records if isinstance(record.event, UndecodableEvent)]

        assert {event.source for event in events_of(records)} == {"before", "after"}
        assert {event.body for event in broken} == {b'{"not": "an event"}', b"\xff\x00", deep}
        assert all(event.reason for event in broken)
        consumer.close()
        log.close()

    def test_dead_letters_are_kept_with_their_reasons(self, bench: Bench) -> None:
        """What is put aside can be found again, byte for byte, with why it was put aside."""
        log = bench.open()
        log.publish(some(1))
        bench.inject(b"broken")
        consumer = log.consumer(nothing)
        records, positions = take(consumer, 2)
        consumer.dead(records, ["refused: bad" for _ in records])
        consumer.commit(positions)
        letters = bench.dead()

        assert len(letters) == 2
        assert b"broken" in {body for body, _ in letters}
        assert {reason for _, reason in letters} == {"refused: bad"}

        told = log.dead_letters(10)

        assert {letter.reason for letter in told} == {"refused: bad"}
        assert {letter.event.source for letter in told if isinstance(letter.event, ObjectEvent)} == {"inbox"}
        assert [letter.event.body for letter in told if isinstance(letter.event, UndecodableEvent)] == [b"broken"]
        assert len(log.dead_letters(1)) == 1
        consumer.close()
        log.close()

    def test_the_name_is_the_log_s_own(self, bench: Bench) -> None:
        """The same log has the same name whenever it is opened: the ledger keeps its positions under it."""
        first, second = bench.open(), bench.open()

        assert first.name == second.name
        first.close()
        second.close()

    def test_a_ping_says_what_is_there(self, bench: Bench) -> None:
        """A ping of a log that works is one sentence."""
        log = bench.open()

        assert log.ping()
        log.close()

    def test_nothing_published_is_nothing(self, bench: Bench) -> None:
        """Publishing no event changes nothing."""
        log = bench.open()
        before = log.end()
        log.publish([])

        assert log.end() == before
        log.close()

    def test_dead_letters_are_replayed_once(self, bench: Bench) -> None:
        """A dead letter comes again at the log's end as `replay`, once, and may become a dead letter again."""
        log = bench.open()
        (event,) = some(1)
        log.publish([event])
        bench.inject(b"no event")
        consumer = log.consumer(nothing)
        records, positions = take(consumer, 2)
        consumer.dead(records, ["refused", "unreadable"])
        consumer.commit(positions)

        assert log.replay_dead() == 2
        again, _ = take(consumer, 2)
        assert events_of(again) == [event._replace(discovered_by="replay")]
        assert [record.event.body for record in again if isinstance(record.event, UndecodableEvent)] == [b"no event"]
        assert log.replay_dead() == 0
        consumer.dead([record for record in again if isinstance(record.event, UndecodableEvent)], ["unreadable"])
        assert log.replay_dead() == 1
        consumer.close()
        log.close()

    def test_a_span_of_offsets_or_of_time_is_replayed(self, bench: Bench) -> None:
        """Records come again from given offsets, or from a time on, and only those."""
        log = bench.open()
        log.publish(some(30, "old"))
        old = log.end()
        between = time.time()
        while time.time() - between < CLOCK_STEP_SECONDS:
            threading.Event().wait(CLOCK_STEP_SECONDS)
        log.publish(some(10, "new"))
        consumer = log.consumer(lambda _partitions: log.end())
        consumer.poll(1, 1.0)
        assert log.replay({at: (0, end) for at, end in old.items()}) == 30
        records, _ = take(consumer, 30)
        assert sorted(event.id for event in events_of(records)) == sorted(event.id for event in some(30, "old"))
        assert {event.discovered_by for event in events_of(records)} == {"replay"}
        spans = log.since(between)
        assert sum(end - start for start, end in spans.values()) == 40
        assert log.replay(spans) == 40
        take(consumer, 40)
        consumer.close()
        log.close()
