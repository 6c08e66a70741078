"""The event log of the embedded setting: a table in the SQLite file, one partition, offsets from 1."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

from pipeline.bus import Consumer, Offsets, Polled, Record
from pipeline.events import ObjectEvent, UndecodableEvent, from_wire, to_wire
from pipeline.sqlitefile import SqliteFile, now, write_rows

PARTITION = 0
LOOK_SECONDS = 0.1
"""How often a waiting consumer looks for what another process has published."""
PRUNE_ROWS = 20_000
REMEMBER_SECONDS = 5.0
"""How often the reader's place is written down; it only keeps the log from being pruned too far."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS events ("
    " position INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS dead_letters ("
    " id INTEGER PRIMARY KEY, at REAL NOT NULL, position INTEGER NOT NULL UNIQUE, reason TEXT NOT NULL,"
    " body BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS event_readers (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT",
)


class EmbeddedLog:
    """`pipeline.bus.EventLog` in a SQLite file."""

    name = "embedded"

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._arrived = threading.Condition()

    def create(self) -> None:
        """Make the tables where they are missing."""
        self._file.write(_create)

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """As `EventLog.publish`."""
        at = now()
        rows = [(at, to_wire(event)) for event in events]
        end = self._file.write(lambda connection: _append(connection, rows))
        with self._arrived:
            self._arrived.notify_all()
        return {PARTITION: end}

    def consumer(self, start: Callable[[Sequence[int]], Offsets]) -> Consumer:
        """As `EventLog.consumer`."""
        return EmbeddedConsumer(self._file, self._arrived, start([PARTITION]).get(PARTITION, 0))

    def end(self) -> Offsets:
        """As `EventLog.end`."""
        with self._file.read() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return {PARTITION: 0 if row is None else row[0] + 1}

    def prune(self, older_than: float) -> int:
        """As `EventLog.prune`; a bounded number at a time."""
        before = now() - older_than
        return self._file.write(lambda connection: _prune(connection, before))

    def ping(self) -> str:
        """As `EventLog.ping`."""
        (end,) = self.end().values()
        return f"table of events, next position {end}"

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
            rows = self._rows(limit)
            left = deadline - time.monotonic()
            if rows or left <= 0:
                break
            with self._arrived:
                self._arrived.wait(min(left, LOOK_SECONDS))
        if rows:
            self._position = rows[-1][0] + 1
        records = [Record(PARTITION, position, _decoded(body)) for position, body in rows]
        return Polled(records, {PARTITION: self._position})

    def _rows(self, limit: int) -> list[tuple[int, bytes]]:
        with self._file.read() as connection:
            return connection.execute(
                "SELECT position, body FROM events WHERE position >= ? ORDER BY position LIMIT ?",
                (self._position, limit),
            ).fetchall()

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

    def close(self) -> None:
        """As `Consumer.close`; there is no group to leave."""
        if self._committed:
            self._remember()


def _create(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


def _append(connection: sqlite3.Connection, rows: Sequence[tuple[float, bytes]]) -> int:
    write_rows(connection, "INSERT INTO events (at, body) VALUES {rows}", "(?,?)", rows)
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0]) + 1


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


def _prune(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE at < ?"
        " AND position < (SELECT coalesce(min(position), 0) FROM event_readers) ORDER BY position LIMIT ?)",
        (before, PRUNE_ROWS),
    ).rowcount


def _decoded(body: bytes) -> ObjectEvent | UndecodableEvent:
    try:
        return from_wire(body)
    except ValueError as error:
        return UndecodableEvent(body, str(error))


def _encoded(record: Record) -> bytes:
    return record.event.body if isinstance(record.event, UndecodableEvent) else to_wire(record.event)
