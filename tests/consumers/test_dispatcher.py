"""Events into the ledger: what is refused, what is waited for, what is never read twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.bus import Polled, Record
from pipeline.bus.embedded import EmbeddedLog
from pipeline.consumers import dispatcher as dispatching
from pipeline.consumers.dispatcher import Dispatcher, Scope
from pipeline.errors import UnavailableError
from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.stores.scope import Scope as Globs
from tests.consumers.house import House, inbox


class Told:
    """A log's consumer that keeps what it is told."""

    def __init__(self) -> None:
        self.committed: list[Any] = []
        self.buried: list[tuple[int, str]] = []

    def commit(self, positions: Any) -> None:
        """Remember the positions."""
        self.committed.append(dict(positions))

    def rest(self, seconds: float) -> None:
        """Let the time pass."""
        threading.Event().wait(seconds)

    def dead(self, records: Sequence[Record], reasons: Sequence[str]) -> None:
        """Remember what was put aside."""
        self.buried.extend((record.offset, reason) for record, reason in zip(records, reasons, strict=True))


class Named:
    """A log of which only the name is asked."""

    name = "log"


def scopes(house: House) -> dict[str, Scope]:
    """What the configuration covers."""
    return {
        name: Scope(Globs(feed.source.match, feed.source.exclude).covers, feed.source.on_change)
        for name, feed in house.feeds.items()
    }


def dispatcher(house: House, log: Any = None, ledger: Any = None, **options: Any) -> Dispatcher:
    """A dispatcher over the installation."""
    return Dispatcher(log or Named(), ledger or house.ledger, scopes(house), house.metrics, **options)


def polled(*events: Any) -> Polled:
    """What a poll of one partition gives."""
    return Polled([Record(0, offset, event) for offset, event in enumerate(events)], {0: len(events)})


def event(key: str, version: str | None = "v", source: str = "inbox") -> ObjectEvent:
    """A hint."""
    return ObjectEvent(source=source, key=key, version=version)


def test_a_batch_is_recorded_with_its_positions(house: House) -> None:
    """Events become ready objects, the ledger's positions go with them, and the log is told after that."""
    told, woken = Told(), []
    made = dispatcher(house, recorded=lambda: woken.append(True))
    assert made.take(told, polled(event("b"), event("a"), event("a"))) == {"new": 2}
    assert house.states() == {"a": "ready", "b": "ready"}
    assert house.ledger.positions("log") == {0: 3}
    assert (told.committed, told.buried, woken) == ([{0: 3}], [], [True])


def test_a_repeat_changes_nothing(house: House) -> None:
    """The same batch again, as after a crash between the two commits, records nothing new and wakes nobody."""
    woken: list[bool] = []
    made = dispatcher(house, recorded=lambda: woken.append(True))
    made.take(Told(), polled(event("a")))
    assert made.take(Told(), polled(event("a"))) == {"duplicate": 1}
    assert woken == [True]


def test_unreadable_records_are_put_aside_with_reasons(house: House) -> None:
    """What is no event, and keys that no ledger can hold, go to the dead letters; the rest is recorded."""
    told = Told()
    bad = [UndecodableEvent(b"?", "not JSON"), event("nul\x00"), event("\ud800"), event("k" * 1025), event("")]
    dispatcher(house).take(told, polled(*bad, event("good")))
    assert [offset for offset, _ in told.buried] == [0, 1, 2, 3, 4]
    assert told.buried[0][1] == "not JSON"
    assert "NUL" in told.buried[1][1]
    assert "1025 bytes" in told.buried[3][1]
    assert house.states() == {"good": "ready"}
    assert house.metric("dead_letters_total", reason="unreadable") == 5


def test_what_no_source_covers_is_passed_over(make_house: Any) -> None:
    """Events of unknown sources and of keys outside a source's scope are nobody's; their positions count."""
    house = make_house(inbox(match=("*.json",), exclude=("x*",)))
    told = Told()
    dispatcher(house).take(
        told, polled(event("a.json"), event("a.csv"), event("x.json"), event("a.json", source="other"))
    )
    assert house.states() == {"a.json": "ready"}
    assert told.committed == [{0: 4}]
    assert told.buried == []


def test_positions_behind_what_concerns_nobody_are_written_seldom(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many polls give only positions, they are one write in a while, and go along with the next event."""
    monkeypatch.setattr(dispatching, "PASS_SECONDS", 3600.0)
    told, made = Told(), dispatcher(house)
    made.take(told, polled(event("a")))
    for position in range(2, 50):
        assert made.take(told, Polled([], {0: position, 1: position})) == {}
    assert told.committed == [{0: 1}]
    made.take(told, Polled([Record(0, 49, event("b"))], {0: 50}))
    assert told.committed == [{0: 1}, {0: 50, 1: 49}]
    made.take(told, Polled([], {1: 50}))
    monkeypatch.setattr(dispatching, "PASS_SECONDS", 0.0)
    for _ in range(3):
        made.take(told, Polled([], {}))
    assert told.committed[2:] == [{1: 50}]
    assert house.ledger.positions("log") == {0: 50, 1: 50}


def test_positions_are_forgotten_with_the_assignment_they_are_of(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that fell back is read again from there: what was passed over before that moves no position on."""
    monkeypatch.setattr(dispatching, "PASS_SECONDS", 3600.0)
    told, made = Told(), dispatcher(house)
    made.take(told, Polled([Record(0, 9, event("a"))], {0: 10}))
    made.take(told, Polled([], {0: 20}))
    house.file.write(lambda connection: lose(connection, ("a",), 2))
    assert made._positions([0]) == {0: 2}
    made.take(told, Polled([Record(0, 2, event("b"))], {0: 3}))
    assert house.ledger.positions("log") == {0: 3}


def test_a_record_that_the_database_refuses_is_found(house: House) -> None:
    """One bad record among many goes to the dead letters alone; all others are recorded, and the positions."""
    told = Told()
    events = [event(f"{n:02}") for n in range(17)]
    events[11] = event("11", version="\ud800")
    dispatcher(house).take(told, polled(*events))
    assert [offset for offset, _ in told.buried] == [11]
    assert sorted(house.states()) == [f"{n:02}" for n in range(17) if n != 11]
    assert house.ledger.positions("log") == {0: 17}
    assert house.metric("dead_letters_total", reason="refused") == 1


class Down:
    """A ledger that does not answer until it was asked some times."""

    def __init__(self, house: House, failures: float) -> None:
        self._house = house
        self.failures = failures
        self.asked = threading.Event()

    def record(self, *args: Any) -> Any:
        """Fail, or record."""
        self.asked.set()
        if self.failures > 0:
            self.failures -= 1
            raise UnavailableError("the database does not answer", retry_after=0.0)
        return self._house.ledger.record(*args)


def test_a_database_that_is_down_is_waited_for(house: House) -> None:
    """The batch stays in hand until the database answers; no record is taken for bad meanwhile."""
    told = Told()
    assert dispatcher(house, ledger=Down(house, 1)).take(told, polled(event("a"))) == {"new": 1}
    assert told.buried == []
    assert house.metric("up", role="dispatch") == 1


def test_bad_records_are_put_aside_once_however_long_the_database_is_away(house: House) -> None:
    """A batch that is tried again and again buries what cannot be read, and counts what it passes over, only once."""
    told = Told()
    passed_over = event("a", source="other")
    made = dispatcher(house, ledger=Down(house, 3))
    assert made.take(told, polled(UndecodableEvent(b"?", "not JSON"), passed_over, event("a"))) == {"new": 1}
    assert told.buried == [(0, "not JSON")]
    assert house.metric("dead_letters_total", reason="unreadable") == 1
    assert house.metric("discarded_events_total", reason="out_of_scope") == 1


def test_a_refused_record_is_put_aside_once_where_the_database_goes_away_after_it(house: House) -> None:
    """What the database refused before it went away is not refused and buried again when it is back."""

    class Leaves(Down):
        def record(self, *args: Any) -> Any:
            if told.buried and not self.asked.is_set():
                self.failures = 2
            return super().record(*args) if told.buried else house.ledger.record(*args)

    told = Told()
    events = [event(f"{n}", version="\ud800" if n == 1 else "v") for n in range(4)]
    assert dispatcher(house, ledger=Leaves(house, 0)).take(told, polled(*events))
    assert [offset for offset, _ in told.buried] == [1]
    assert sorted(house.states()) == ["0", "2", "3"]
    assert house.ledger.positions("log") == {0: 4}


def test_stop_while_waiting_commits_nothing(house: House) -> None:
    """Stopped while the database is down, the dispatcher leaves the batch to be read again."""
    told, down = Told(), Down(house, float("inf"))
    made = dispatcher(house, ledger=down)
    thread = threading.Thread(target=made.take, args=(told, polled(event("a"))))
    thread.start()
    assert down.asked.wait(10)
    made.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert told.committed == []


def test_an_error_of_ours_does_not_end_the_loop(house: House) -> None:
    """After an exception that nobody foresaw the dispatcher begins again from the ledger's place, and loses nothing."""

    class Broken(Down):
        def positions(self, log: str) -> dict[int, int]:
            return house.ledger.positions(log)

        def record(self, *args: Any) -> Any:
            if not self.asked.is_set():
                self.asked.set()
                raise ZeroDivisionError
            return super().record(*args)

    log = EmbeddedLog(house.file)
    log.create()
    log.publish([event("a"), event("b")])
    arrived = threading.Event()
    made = dispatcher(house, log=log, ledger=Broken(house, 0), recorded=arrived.set)
    thread = threading.Thread(target=made.run)
    thread.start()
    assert arrived.wait(10)
    made.stop()
    thread.join(10)
    assert house.states() == {"a": "ready", "b": "ready"}


@pytest.mark.parametrize("idle", [True, False])
def test_a_ledger_that_fell_back(house: House, monkeypatch: pytest.MonkeyPatch, idle: bool) -> None:
    """What a live dispatcher recorded and the database lost is recorded again: with the next event, or soon without."""
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 0.05 if idle else 3600.0)
    log = EmbeddedLog(house.file)
    log.create()
    made = dispatcher(house, log=log)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        for key in "abc":
            log.publish([event(key)])
            until(lambda key=key: key in house.states())
        house.file.write(lambda connection: lose(connection, ("b", "c"), 2))
        if not idle:
            log.publish([event("d")])
        until(lambda: house.ledger.positions(log.name) == log.end())
    finally:
        made.stop()
        thread.join(10)
    assert sorted(house.states()) == list("abc" if idle else "abcd")
    assert house.metric("errors_total", stage="record", code="positions_lost") == 1


def lose(connection: sqlite3.Connection, keys: Sequence[str], position: int) -> None:
    """What a database that comes back without its last commits has lost."""
    connection.executemany("DELETE FROM objects WHERE key = ?", [(key,) for key in keys])
    connection.execute("UPDATE source_counts SET n = n - ? WHERE state = 'ready'", (len(keys),))
    connection.execute("UPDATE positions SET position = ?", (position,))


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_the_loop_reads_the_log_from_the_ledgers_place(house: House) -> None:
    """Run over the embedded log: everything published is recorded once, and a new dispatcher goes on after it."""
    log = EmbeddedLog(house.file)
    log.create()
    log.publish([event("a"), event("b")])
    for number, expected in enumerate((2, 3)):
        arrived = threading.Event()
        made = dispatcher(house, log=log, recorded=arrived.set)
        thread = threading.Thread(target=made.run)
        thread.start()
        if number:
            log.publish([event("c")])
        assert arrived.wait(10)
        made.stop()
        thread.join(10)
        assert len(house.states()) == expected
    assert house.metric("received_events_total") == 3
