"""Pages of tasks on SQLite for a delivery's sender: bounded in tasks, and in bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from pipeline.ledger.deliveries import PAGE_BYTES, Change, Item, Page, Waiting
from pipeline.sinks.outboxes import ROWS, enough
from pipeline.tasks import Task

_TASK = "t.row, t.data, t.annotations, t.predictions, t.meta, t.extra, t.external_id"
LIVE = (
    "(t.archived_at IS NULL AND coalesce((SELECT i.state = 'live' FROM imports AS i"
    " WHERE i.object_id = t.object_id AND i.lease = t.lease), 0))"
)
"""Whether a task (`t`) is live."""
PEEK = (
    "SELECT b.id, t.lease, t.position, t.archived_at IS NULL AND i.state = 'live', x.state, coalesce(x.revision, 0),"
    f" t.id, t.revision, {_TASK} FROM outbox AS b CROSS JOIN task_rows AS t ON t.object_id = b.object_id"
    " AND (t.lease, t.position) >= (b.lease, b.position) AND (t.lease, t.position) < (b.to_lease, b.to_position)"
    " LEFT JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease"
    " LEFT JOIN delivered AS x ON x.delivery_id = b.delivery_id AND x.task_id = t.id"
    " WHERE b.delivery_id = ? AND b.done_at IS NULL AND b.id <= ? ORDER BY b.id, t.lease, t.position LIMIT ?"
)
ITEMS = (
    f"SELECT t.id, t.revision, {_TASK} FROM delivered AS x CROSS JOIN task_rows AS t ON t.id = x.task_id"
    " WHERE x.batch_id = ? AND x.task_id > ? AND x.state = 'batched' ORDER BY x.task_id LIMIT ?"
)
CHANGES = (
    f"SELECT coalesce(x.remote_id, ''), x.pending = 'delete' AND NOT {LIVE}, t.id, t.revision, {_TASK}"
    " FROM delivered AS x INDEXED BY delivered_pending CROSS JOIN task_rows AS t ON t.id = x.task_id"
    " WHERE x.delivery_id = ? AND x.task_id > ? AND x.pending IS NOT NULL AND x.state = 'done'"
    " ORDER BY x.task_id LIMIT ?"
)


def peek(connection: sqlite3.Connection, delivery: int, limit: int) -> Page:
    """As `Deliveries.peek`."""
    asked = "SELECT id, tasks FROM outbox WHERE delivery_id = ? AND done_at IS NULL ORDER BY id LIMIT ?"
    rows = enough(connection.execute(asked, (delivery, ROWS)), limit)
    if not rows:
        return Page((), (), complete=True)
    found, full = _within_bytes(connection, PEEK, (delivery, rows[-1], limit))
    waiting = [Waiting(row[0], row[1], row[2], item, bool(row[3]), row[4], row[5]) for row, item in found]
    return Page(rows, waiting, complete=len(found) < limit and not full)


def items(connection: sqlite3.Connection, batch: int, after: int, limit: int) -> list[Item]:
    """As `Deliveries.items`."""
    return [item for _, item in _within_bytes(connection, ITEMS, (batch, after, limit))[0]]


def changes(connection: sqlite3.Connection, delivery: int, limit: int, after: int) -> list[Change]:
    """As `Deliveries.changes`."""
    found, _ = _within_bytes(connection, CHANGES, (delivery, after, limit))
    return [Change(item, row[0], bool(row[1])) for row, item in found]


def _within_bytes(
    connection: sqlite3.Connection, statement: str, values: Sequence[object]
) -> tuple[list[tuple[Sequence[Any], Item]], bool]:
    """What a statement gives, whose rows end with a number, a revision and a task, up to the one that fills PAGE_BYTES;
    and whether there was one."""
    found: list[tuple[Sequence[Any], Item]] = []
    size = 0
    with closing(connection.execute(statement, values)) as cursor:
        for row in cursor:
            task = Task(*row[-7:])
            found.append((row[:-9], Item(row[-9], row[-8], task)))
            size += task.size()
            if size >= PAGE_BYTES:
                return found, True
    return found, False
