"""How far streams have been taken, on SQLite: the position moves with the ranges that it passes over."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from pipeline.events import ObjectEvent
from pipeline.sinks.sqlite.record import Counts, add_counts, record_source
from pipeline.sqlitefile import now


def taken(connection: sqlite3.Connection, source_id: int) -> str | None:
    """As `Ledger.taken`."""
    row = connection.execute("SELECT position FROM queues WHERE source_id = ?", (source_id,)).fetchone()
    return None if row is None else str(row[0])


def record_ranges(
    connection: sqlite3.Connection, source_id: int, after: str | None, events: Sequence[ObjectEvent]
) -> bool:
    """As `Ledger.record_ranges`."""
    if taken(connection, source_id) != after:
        return False
    counts: Counts = Counter()
    record_source(connection, source_id, events, "ignore", now(), counts)
    add_counts(connection, counts)
    connection.execute(
        "INSERT INTO queues (source_id, position) VALUES (?, ?)"
        " ON CONFLICT (source_id) DO UPDATE SET position = excluded.position",
        (source_id, events[-1].key),
    )
    return True


def forget(connection: sqlite3.Connection, name: str, identity: str) -> None:
    """Forget the position of a source whose name stood for another store than `identity`."""
    connection.execute(
        "DELETE FROM queues WHERE source_id IN (SELECT id FROM sources WHERE name = ? AND identity <> ?)",
        (name, identity),
    )
