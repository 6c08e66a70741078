"""How far streams have been taken, on PostgreSQL: the position moves with the ranges that it passes over."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.events import ObjectEvent
from pipeline.sinks.postgres.database import Transaction
from pipeline.sinks.postgres.record import record_source


def taken(tx: Transaction, source_id: int) -> str | None:
    """As `Ledger.taken`."""
    found = tx.rows("SELECT position FROM queues WHERE source_id = %s", (source_id,))
    return str(found[0][0]) if found else None


def record_ranges(tx: Transaction, source_id: int, after: str | None, events: Sequence[ObjectEvent]) -> bool:
    """As `Ledger.record_ranges`. Whoever comes second waits for the row of the first, and finds it moved."""
    last = events[-1].key
    if after is None:
        moved = tx.rows(
            "INSERT INTO queues (source_id, position) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING true",
            (source_id, last),
        )
    else:
        moved = tx.rows(
            "UPDATE queues SET position = %s WHERE source_id = %s AND position = %s RETURNING true",
            (last, source_id, after),
        )
    if moved:
        record_source(tx, source_id, events, "ignore")
    return bool(moved)


def forget(tx: Transaction, name: str, identity: str) -> None:
    """Forget the position of a source whose name stood for another store than `identity`."""
    tx.execute(
        "DELETE FROM queues WHERE source_id IN (SELECT id FROM sources WHERE name = %s AND identity <> %s)",
        (name, identity),
    )
