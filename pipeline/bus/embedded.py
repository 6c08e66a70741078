"""The event log of the embedded setting: a table in the SQLite file, one partition, offsets from 1.

A row is a *segment*: up to SEGMENT_EVENTS events that were published together, as one JSON list of
CloudEvents, and the offset of the first of them. `event_end` holds the offset that the next one gets.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

import orjson

from pipeline.bus import Consumer, DeadLetter, Offsets, Polled, Record, Refused, Spans, unheard
from pipeline.events import ObjectEvent, UndecodableEvent, from_document, from_wire, refusal, to_document, to_wire
from pipeline.metrics import Concern
from pipeline.sqlitefile import SqliteFile, now

PARTITION = 0
LOOK_SECONDS = 0.1
"""How often a waiting consumer looks for what another process has published."""
PRUNE_SEGMENTS = 1000
REMEMBER_SECONDS = 5.0
"""How often the reader's place is written down; it only keeps the log from being pruned too far."""

SEGMENT_EVENTS = 500
REPLAYED_ROWS = 500
"""Dead letters, or events, that are put back in one transaction."""
REPLAYED = "replay"
"""The reader that remembers up to which dead letter all were put back. It reads no events."""

_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS events ("
        " position INTEGER PRIMARY KEY, count INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL) STRICT"
    ),
    "CREATE TABLE IF NOT EXISTS event_end (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL) STRICT",
    "INSERT INTO event_end VALUES (1, 1) ON CONFLICT DO NOTHING",
    (
        "CREATE TABLE IF NOT EXISTS dead_letters ("
        " id INTEGER PRIMARY KEY, at REAL NOT NULL, position INTEGER NOT NULL UNIQUE, reason TEXT NOT NULL,"
        " body BLOB NOT NULL) STRICT"
    ),
    "CREATE TABLE IF NOT EXISTS event_readers (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT",
)


class EmbeddedLog:
    """`pipeline.bus.EventLog` in a SQLite file."""

    def __init__(self, file: SqliteFile, name: str = "embedded") -> None:
        self.name = name
        self._file = file
        self._arrived = threading.Condition()

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._file.write(_create)

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """As `EventLog.publish`."""
        segments = [events[first : first + SEGMENT_EVENTS] for first in range(0, len(events), SEGMENT_EVENTS)]
        bodies = [(len(segment), orjson.dumps([to_document(event) for event in segment])) for segment in segments]
        end = self._file.write(lambda connection: _append(connection, bodies))
        self._notify()
        return {PARTITION: end}

    def _notify(self) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def consumer(self, start: Callable[[Sequence[int]], Offsets]) -> Consumer:
        """As `EventLog.consumer`."""
        return EmbeddedConsumer(self._file, self._arrived, start([PARTITION]).get(PARTITION, 0))

    def end(self) -> Offsets:
        """As `EventLog.end`."""
        with self._file.read() as connection:
            (end,) = connection.execute("SELECT position FROM event_end").fetchone()
        # The first offset is 1: a log that nothing was ever put on ends before it.
        return {PARTITION: end if end > 1 else 0}

    def prune(self, older_than: float) -> int:
        """As `EventLog.prune`; a bounded number at a time."""
        before = now() - older_than
        return self._file.write(lambda connection: _prune(connection, before))

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """As `EventLog.dead_letters`."""
        with self._file.read() as connection:
            rows = connection.execute("SELECT at, reason, body FROM dead_letters ORDER BY id DESC")
            found: dict[object, DeadLetter] = {}
            for at, reason, body in rows:
                event = _event_of(body)
                about = event.ref if isinstance(event, ObjectEvent) else body
                found.setdefault(about, DeadLetter(at, reason, event))
                if len(found) >= limit:
                    break
        return list(found.values())

    def replay_dead(self, refused: Refused = unheard) -> int:
        """As `EventLog.replay_dead`; in transactions of REPLAYED_ROWS, each of which remembers how far it came."""
        del refused
        count = 0
        while went := self._file.write(_put_back):
            count += went
            self._notify()
        return count

    def replay(self, spans: Spans, refused: Refused = unheard) -> int:
        """As `EventLog.replay`: none is refused."""
        del refused
        position, end = spans.get(PARTITION, (0, 0))
        consumer = EmbeddedConsumer(self._file, self._arrived, position)
        count = 0
        while records := [record for record in consumer.poll(REPLAYED_ROWS, 0).records if record.offset < end]:
            bodies = [(1, _segment(_replayed(record.event))) for record in records]
            self._file.write(lambda connection, bodies=bodies: _append(connection, bodies))  # type: ignore[misc]
            count += len(records)
        self._notify()
        return count

    def since(self, at: float) -> Spans:
        """As `EventLog.since`."""
        with self._file.read() as connection:
            (first, end) = connection.execute(
                "SELECT (SELECT min(position) FROM events WHERE at >= ?), position FROM event_end", (at,)
            ).fetchone()
        return {PARTITION: (end if first is None else first, end)}

    def ping(self) -> str:
        """As `EventLog.ping`."""
        (end,) = self.end().values()
        return f"table of events, next position {end}"

    def check_here(self) -> None:
        """As `EventLog.check_here`: all that it needs is in its file."""

    def concerns(self) -> Sequence[Concern]:
        """As `EventLog.concerns`: there are none."""
        return ()

    def close(self) -> None:
        """As `EventLog.close`; the file is closed by who opened it."""


class EmbeddedConsumer:
    """`pipeline.bus.Consumer` over the table."""

    def __init__(self, file: SqliteFile, arrived: threading.Condition, position: int) -> None:
        self._file = file
        self._arrived = arrived
        self._position = max(position, 1)
        self._committed = 0
        self._remembered = 0.0

    def poll(self, limit: int, timeout: float) -> Polled:
        """As `Consumer.poll`."""
        deadline = time.monotonic() + timeout
        while True:
            records = self._records(limit)
            left = deadline - time.monotonic()
            if records or left <= 0:
                break
            with self._arrived:
                self._arrived.wait(min(left, LOOK_SECONDS))
        if not records:
            return Polled((), {})
        self._position = records[-1].offset + 1
        return Polled(records, {PARTITION: self._position})

    def _records(self, limit: int) -> list[Record]:
        records: list[Record] = []
        with self._file.read() as connection:
            # A segment that begins before the position may hold it.
            segments = connection.execute(
                "SELECT position, body FROM events WHERE position > ? AND position + count > ? ORDER BY position",
                (self._position - SEGMENT_EVENTS, self._position),
            )
            for first, body in segments:
                for offset, event in enumerate(_decoded(body), first):
                    if self._position <= offset and len(records) < limit:
                        records.append(Record(PARTITION, offset, event))
                if len(records) >= limit:
                    break
        return records

    def commit(self, positions: Offsets) -> None:
        """As `Consumer.commit`."""
        self._committed = max(self._committed, positions.get(PARTITION, 0))
        if time.monotonic() - self._remembered >= REMEMBER_SECONDS:
            self._remember()

    def _remember(self) -> None:
        self._remembered = time.monotonic()
        self._file.write(lambda connection: _remember(connection, self._committed))

    def dead(self, records: Sequence[Record], reasons: Sequence[str]) -> None:
        """As `Consumer.dead`."""
        rows = [
            (now(), record.offset, reason, _encoded(record)) for record, reason in zip(records, reasons, strict=True)
        ]
        self._file.write(lambda connection: _bury(connection, rows))

    def rest(self, seconds: float) -> None:
        """As `Consumer.rest`; there is no group to stay in."""
        time.sleep(seconds)

    def close(self) -> None:
        """As `Consumer.close`; there is no group to leave."""
        if self._committed:
            self._remember()


def _create(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


def _append(connection: sqlite3.Connection, bodies: Sequence[tuple[int, bytes]]) -> int:
    count = sum(length for length, _ in bodies)
    (end,) = connection.execute("UPDATE event_end SET position = position + ? RETURNING position", (count,)).fetchone()
    at, first = now(), end - count
    for length, body in bodies:
        connection.execute(
            "INSERT INTO events (position, count, at, body) VALUES (?, ?, ?, ?)", (first, length, at, body)
        )
        first += length
    return int(end)


def _remember(connection: sqlite3.Connection, position: int) -> None:
    connection.execute(
        "INSERT INTO event_readers (name, position) VALUES ('dispatcher', ?)"
        " ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
        (position,),
    )


def _bury(connection: sqlite3.Connection, rows: Sequence[tuple[float, int, str, bytes]]) -> None:
    connection.executemany(
        "INSERT INTO dead_letters (at, position, reason, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows
    )


def _put_back(connection: sqlite3.Connection) -> int:
    rows = connection.execute(
        "SELECT id, body FROM dead_letters WHERE id >"
        " coalesce((SELECT position FROM event_readers WHERE name = ?), 0) ORDER BY id LIMIT ?",
        (REPLAYED, REPLAYED_ROWS),
    ).fetchall()
    if rows:
        _append(connection, [(1, _segment(_replayed(_event_of(body)))) for _, body in rows])
        connection.execute(
            "INSERT INTO event_readers (name, position) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET position = excluded.position",
            (REPLAYED, rows[-1][0]),
        )
    return len(rows)


def _replayed(event: ObjectEvent | UndecodableEvent) -> ObjectEvent | UndecodableEvent:
    return event if isinstance(event, UndecodableEvent) else event._replace(discovered_by="replay")


def _segment(event: ObjectEvent | UndecodableEvent) -> bytes:
    """A segment of this event alone. What is not JSON stands there as it came, no better to read than before."""
    if isinstance(event, ObjectEvent):
        return orjson.dumps([to_document(event)])
    try:
        orjson.loads(event.body)
    except orjson.JSONDecodeError:
        return event.body
    return b"[" + event.body + b"]"


def _prune(connection: sqlite3.Connection, before: float) -> int:
    gone = connection.execute(
        "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE at < ? AND position + count <="
        " (SELECT coalesce(min(position), 0) FROM event_readers WHERE name <> ?) ORDER BY position LIMIT ?)"
        " RETURNING count",
        (before, REPLAYED, PRUNE_SEGMENTS),
    ).fetchall()
    connection.execute("DELETE FROM dead_letters WHERE at < ?", (before,))
    return sum(count for (count,) in gone)


def _decoded(body: bytes) -> Sequence[ObjectEvent | UndecodableEvent]:
    try:
        documents = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return [UndecodableEvent(body, f"not JSON: {error}")]
    if not isinstance(documents, list):
        return [UndecodableEvent(body, "not a list of events")]
    return [_event(document, body) for document in documents]


def _event(document: object, body: bytes) -> ObjectEvent | UndecodableEvent:
    try:
        return from_document(document)
    except Exception as error:  # noqa: BLE001 - the outer boundary of a record: else nothing behind it was ever read
        return UndecodableEvent(_encoded_again(document, body), refusal(error))


def _encoded_again(document: object, body: bytes) -> bytes:
    """One document of a segment as it stands there; the whole segment where it is nested too deep to be written."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return body


def _event_of(body: bytes) -> ObjectEvent | UndecodableEvent:
    try:
        return from_wire(body)
    except Exception as error:  # noqa: BLE001 - as above: the others are to be seen, and to be replayed
        return UndecodableEvent(body, refusal(error))


def _encoded(record: Record) -> bytes:
    return record.event.body if isinstance(record.event, UndecodableEvent) else to_wire(record.event)
