"""Changes of single delivered tasks on SQLite: what becomes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from pipeline.ledger.deliveries import Changed
from pipeline.sinks.outboxes import Range
from pipeline.sinks.sqlite.granting import insert
from pipeline.sinks.sqlite.paging import LIVE
from pipeline.sinks.texts import text_of


def changed(connection: sqlite3.Connection, delivery: int, outcomes: Mapping[int, Changed]) -> None:
    """As `Deliveries.changed`, under a grant that holds."""
    counted = {"updated": 0, "deleted": 0, "kept": 0}
    deleted = []
    for task, one in outcomes.items():
        ((pending,),) = connection.execute(
            "SELECT pending FROM delivered WHERE delivery_id = ? AND task_id = ?", (delivery, task)
        ).fetchall()
        state = one.state(pending)
        connection.execute(
            "UPDATE delivered SET pending = NULL, revision = ?, state = ?, reason = ?,"
            " remote_id = CASE WHEN ? THEN NULL ELSE remote_id END WHERE delivery_id = ? AND task_id = ?",
            (one.sent, state, one.reason or None, one.gone, delivery, task),
        )
        counted[one.counted] += 1
        if state == "deleted":
            deleted.append(task)
    _anew(connection, delivery, deleted)
    connection.execute(
        "UPDATE deliveries SET until = NULL, failing = 0, code = NULL, reason = NULL, since = NULL, due = 0,"
        " updated = updated + ?, deleted = deleted + ?, kept = kept + ?,"
        # What is open there is not what it was. Where it could not be told, that is left alone for as long as it asks.
        " count_due = CASE WHEN ? AND uncounted IS NULL THEN NULL ELSE count_due END WHERE id = ?",
        (*counted.values(), bool(deleted), delivery),
    )


def _anew(connection: sqlite3.Connection, delivery: int, deleted: Sequence[int]) -> None:
    """Put what was deleted there and has come back here into the outbox: it may have been looked at before."""
    rows = connection.execute(
        "SELECT t.object_id, t.lease, t.position, t.lease, t.position + 1, 1 FROM task_rows AS t"
        f" WHERE t.id IN (SELECT value FROM json_each(?)) AND {LIVE}",
        (text_of(deleted),),
    ).fetchall()
    insert(connection, delivery, [Range(*row) for row in rows])
