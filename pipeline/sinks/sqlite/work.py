"""What workers do before and beside their commit: start marks, staged pieces of large files, giving back."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import orjson

from pipeline.errors import LeaseLost
from pipeline.ledger import LOST_WORKERS_LIMIT, STAGE_ROWS, Outcome, Work
from pipeline.sinks.sqlite import standings
from pipeline.sinks.sqlite.commit import INSERT_REJECTED, TaskRow, insert_tasks, rejected_rows
from pipeline.sinks.sqlite.record import add_counts, write_history
from pipeline.sinks.sqlite.schedule import end_leases
from pipeline.sinks.texts import reason_text, text_of, worker_lost
from pipeline.sqlitefile import now, uptime
from pipeline.tasks import RejectedRow

PASSES_KEPT = 20
"""Passes of a source that the ledger remembers."""
WORKERS_KEPT_SECONDS = 86400.0
"""How long the row of a process stays that has ended: each has a name of its own."""


def start(connection: sqlite3.Connection, lease: int, worker: str, until: float) -> list[Work]:
    """As `Ledger.start`."""
    row = connection.execute("SELECT ids FROM leases WHERE id = ? AND started_at IS NULL", (lease,)).fetchone()
    if row is None:
        return []
    (source, columns) = connection.execute(
        "SELECT s.name, json_group_array(json_array(o.id, o.key, o.wanted_version, o.imported_version, o.tasks, o.redo,"
        " o.attempts, o.lost, o.trace)) FROM json_each(?) AS j CROSS JOIN objects AS o ON o.id = j.value"
        " CROSS JOIN sources AS s ON s.id = o.source_id WHERE o.lease = ?",
        (row[0], lease),
    ).fetchone()
    work = [
        Work(number, source, key, wanted, imported, tasks > 0, redo > 0, attempts, lost, trace)
        for number, key, wanted, imported, tasks, redo, attempts, lost, trace in orjson.loads(columns)
    ]
    if work:
        connection.execute(
            "UPDATE leases SET started_at = ?, worker = ?, until = ?, open = ? WHERE id = ?",
            (now(), worker, until, len(work), lease),
        )
    else:
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
    return work


def stage(
    connection: sqlite3.Connection, lease: int, object_id: int, rows: Sequence[TaskRow], rejected: Sequence[RejectedRow]
) -> None:
    """As `Ledger.stage`, for rows that are ready to be inserted."""
    owned = connection.execute("SELECT 1 FROM objects WHERE id = ? AND lease = ?", (object_id, lease)).fetchone()
    if owned is None:
        raise LeaseLost(f"lease {lease} has ended")
    connection.execute(
        "INSERT INTO imports (object_id, lease, state, mode, at) VALUES (?, ?, 'staged', 'new', ?) ON CONFLICT"
        " DO NOTHING",
        (object_id, lease, now()),
    )
    insert_tasks(connection, rows)
    if rejected:
        (first,) = connection.execute(
            "SELECT coalesce(max(n) + 1, 0) FROM rejected_rows WHERE object_id = ? AND lease = ?", (object_id, lease)
        ).fetchone()
        connection.executemany(INSERT_REJECTED, rejected_rows(object_id, lease, rejected, first))


def unstage(connection: sqlite3.Connection, lease: int, object_id: int) -> bool:
    """Delete a bounded part of what was staged; whether there may be more."""
    staged = connection.execute(
        "SELECT 1 FROM imports WHERE object_id = ? AND lease = ? AND state = 'staged'", (object_id, lease)
    ).fetchone()
    if staged is None:
        return False
    return _delete_rows(connection, object_id, lease, STAGE_ROWS, rejected=True) >= STAGE_ROWS


def _delete_rows(connection: sqlite3.Connection, object_id: int, lease: int, limit: int, *, rejected: bool) -> int:
    """Delete at most `limit` rows of an import; how many went."""
    deleted = 0
    for table, order in (("task_rows", "position"), ("rejected_rows", "n"))[: 1 + rejected]:
        deleted += connection.execute(
            f"DELETE FROM {table} WHERE object_id = ?1 AND lease = ?2 AND {order} IN"
            f" (SELECT {order} FROM {table} WHERE object_id = ?1 AND lease = ?2 LIMIT ?3)",
            (object_id, lease, limit - deleted),
        ).rowcount
    return deleted


def give_back(connection: sqlite3.Connection, lease: int, lost: int | None) -> None:
    """As `Ledger.give_back`."""
    if lost is not None:
        _child_died(connection, lease, lost)
    end_leases(connection, "id IN", [lease], lost=False)


def _child_died(connection: sqlite3.Connection, lease: int, object_id: int) -> None:
    # `lost` is 1 for a suspect whose worker was lost, and rises from there with each child of its own.
    row = connection.execute(
        "UPDATE objects SET lost = max(lost, 1) + 1, attempts = attempts + 1 WHERE id = ? AND lease = ?"
        " RETURNING lost, source_id",
        (object_id, lease),
    ).fetchone()
    if row is None:
        return
    at, died, source_id = now(), row[0] - 1, row[1]
    write_history(connection, [(object_id, at, "child_died", text_of({"lease": lease, "died": died}))])
    if died < LOST_WORKERS_LIMIT:
        return
    reason = worker_lost(died)
    connection.execute(
        "UPDATE objects SET state = 'failed', lease = NULL, lost = 0, redo = 0, code = ?, reason = ?, finished_at = ?"
        " WHERE id = ?",
        (reason.code, reason_text(reason), at, object_id),
    )
    add_counts(connection, Counter({(source_id, "claimed"): -1, (source_id, "failed"): 1}))
    connection.execute("UPDATE sources SET finished = finished + 1, finished_at = ? WHERE id = ?", (at, source_id))
    standings.take(connection, source_id, [Outcome(object_id, "failed", reason=reason)])


def sweep(connection: sqlite3.Connection, limit: int, boot: str) -> int:
    """As `Ledger.sweep`."""
    connection.execute(
        "DELETE FROM passes WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
        " (PARTITION BY source_id ORDER BY id DESC) AS age FROM passes) WHERE age > ?)",
        (PASSES_KEPT,),
    )
    connection.execute("DELETE FROM workers WHERE boot <> ? OR until < ?", (boot, uptime() - WORKERS_KEPT_SECONDS))
    row = connection.execute(
        "SELECT object_id, lease, state FROM imports WHERE state IN ('staged', 'discarded')"
        " AND lease NOT IN (SELECT id FROM leases) LIMIT 1"
    ).fetchone()
    if row is None:
        return 0
    object_id, lease, state = row
    deleted = _delete_rows(connection, object_id, lease, limit, rejected=state == "staged")
    if deleted < limit:
        connection.execute("DELETE FROM imports WHERE object_id = ? AND lease = ?", (object_id, lease))
    return deleted + 1
