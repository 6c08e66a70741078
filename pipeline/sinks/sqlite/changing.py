"""Changes of single delivered tasks on SQLite: which are due, and what becomes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from pipeline.ledger.deliveries import Change, Changed, Item
from pipeline.sinks.outboxes import Range
from pipeline.sinks.sqlite.batching import TASK
from pipeline.sinks.sqlite.granting import insert
from pipeline.sinks.texts import text_of
from pipeline.tasks import Task

_LIVE = (
    "(t.archived_at IS NULL AND coalesce((SELECT i.state = 'live' FROM imports AS i"
    " WHERE i.object_id = t.object_id AND i.lease = t.lease), 0))"
)


def changes(connection: sqlite3.Connection, delivery: int, limit: int) -> list[Change]:
    """As `Deliveries.changes`."""
    rows = connection.execute(
        f"SELECT t.id, t.revision, {TASK}, coalesce(x.remote_id, ''), x.pending = 'delete' AND NOT {_LIVE}"
        " FROM delivered AS x INDEXED BY delivered_pending CROSS JOIN task_rows AS t ON t.id = x.task_id"
        " WHERE x.delivery_id = ? AND x.pending IS NOT NULL AND x.state = 'done' ORDER BY x.task_id LIMIT ?",
        (delivery, limit),
    )
    return [Change(Item(row[0], row[1], Task(*row[2:9])), row[9], bool(row[10])) for row in rows]


def changed(connection: sqlite3.Connection, delivery: int, outcomes: Mapping[int, Changed]) -> None:
    """As `Deliveries.changed`, under a grant that holds."""
    counted = {"updated": 0, "deleted": 0, "kept": 0}
    deleted = []
    for task, one in outcomes.items():
        ((pending,),) = connection.execute(
            "SELECT pending FROM delivered WHERE delivery_id = ? AND task_id = ?", (delivery, task)
        ).fetchall()
        gone = one.outcome == "gone" or (one.outcome == "done" and one.delete)
        state = "done" if not gone else "deleted" if pending == "delete" else "gone"
        connection.execute(
            "UPDATE delivered SET pending = NULL, revision = ?, state = ?, reason = ?,"
            " remote_id = CASE WHEN ? THEN NULL ELSE remote_id END WHERE delivery_id = ? AND task_id = ?",
            (one.revision, state, one.reason or None, gone, delivery, task),
        )
        counted["kept" if one.outcome == "kept" else "deleted" if gone else "updated"] += 1
        if state == "deleted":
            deleted.append(task)
    _anew(connection, delivery, deleted)
    connection.execute(
        "UPDATE deliveries SET until = NULL, failing = 0, code = NULL, reason = NULL, since = NULL, due = 0,"
        " updated = updated + ?, deleted = deleted + ?, kept = kept + ? WHERE id = ?",
        (*counted.values(), delivery),
    )


def _anew(connection: sqlite3.Connection, delivery: int, deleted: Sequence[int]) -> None:
    """Put what was deleted there and has come back here into the outbox: it may have been looked at before."""
    rows = connection.execute(
        "SELECT t.object_id, t.lease, t.position, t.lease, t.position + 1, 1 FROM task_rows AS t"
        f" WHERE t.id IN (SELECT value FROM json_each(?)) AND {_LIVE}",
        (text_of(deleted),),
    ).fetchall()
    insert(connection, delivery, [Range(*row) for row in rows])
