"""Proposed revisions on SQLite: which there are, and what deciding on them does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from pipeline.ledger import RevisionFilter
from pipeline.sinks.outboxes import whole
from pipeline.sinks.outcomes import undecidable
from pipeline.sinks.sqlite.granting import to_outbox
from pipeline.sinks.sqlite.record import write_history
from pipeline.sinks.texts import text_of
from pipeline.sqlitefile import now

PARTS = ("data", "annotations", "predictions", "meta", "extra", "external_id")
_IS_LIVE = (
    "EXISTS (SELECT 1 FROM imports AS i WHERE i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live')"
    " AND t.archived_at IS NULL"
)
_OPEN = f"r.state = 'proposed' AND {_IS_LIVE}"


def statement(which: RevisionFilter) -> tuple[str, list[object]]:
    """The query of `Reports.revisions`, but for its page, and its values."""
    proposed = ", ".join(f"r.{part}" for part in PARTS)
    present = ", ".join(f"t.{part} AS task_{part}" for part in PARTS)
    clauses = "" if which.decided else f" AND {_OPEN}"
    values: list[object] = []
    if which.source is not None:
        clauses += " AND s.name = ?"
        values.append(which.source)
    if which.object_id is not None:
        clauses += " AND r.object_id = ?"
        values.append(which.object_id)
    return (
        "SELECT r.id, s.name AS source, o.key, r.object_id, r.task_id, r.version, r.state, r.proposed_at,"
        f" r.decided_at, {proposed}, {present} FROM revisions AS r CROSS JOIN task_rows AS t ON t.id = r.task_id"
        " CROSS JOIN objects AS o ON o.id = r.object_id CROSS JOIN sources AS s ON s.id = o.source_id"
        f" WHERE r.id > ?{clauses} ORDER BY r.id LIMIT ?"
    ), values


def waiting(connection: sqlite3.Connection) -> dict[int, int]:
    """How many revisions of each source wait to be decided on, where there are any."""
    return dict(
        connection.execute(
            "SELECT o.source_id, count(*) FROM revisions AS r CROSS JOIN task_rows AS t ON t.id = r.task_id"
            f" CROSS JOIN objects AS o ON o.id = r.object_id WHERE {_OPEN} GROUP BY o.source_id"
        ).fetchall()
    )


def decide(connection: sqlite3.Connection, ids: Sequence[int], *, accept: bool) -> dict[int, str]:
    """As `Ledger.decide`."""
    refused = {}
    for revision in ids:
        row = connection.execute(
            f"SELECT r.state, {_IS_LIVE}, r.object_id, r.task_id FROM revisions AS r"
            " CROSS JOIN task_rows AS t ON t.id = r.task_id WHERE r.id = ?",
            (revision,),
        ).fetchone()
        state, live, object_id, task_id = row or (None, False, 0, 0)
        why = undecidable(state, live=bool(live))
        if why is not None:
            refused[revision] = why
        else:
            _decide(connection, revision, object_id, task_id, accept=accept)
    return refused


def _decide(connection: sqlite3.Connection, revision: int, object_id: int, task_id: int, *, accept: bool) -> None:
    at, decision = now(), "accepted" if accept else "rejected"
    if accept:
        names = ", ".join(PARTS)
        pairs = ", ".join(f"'{part}', json({part})" for part in PARTS[:-1])
        connection.execute(
            f"UPDATE revisions SET replaced = (SELECT json_object({pairs}, 'external_id', external_id)"
            " FROM task_rows WHERE id = ?) WHERE id = ?",
            (task_id, revision),
        )
        connection.execute(
            f"UPDATE task_rows SET ({names}) = (SELECT {names} FROM revisions WHERE id = ?), revision = revision + 1"
            " WHERE id = ?",
            (revision, task_id),
        )
        source, tasks = connection.execute("SELECT source_id, tasks FROM objects WHERE id = ?", (object_id,)).fetchone()
        to_outbox(connection, source, [whole(object_id, tasks)])
    connection.execute("UPDATE revisions SET state = ?, decided_at = ? WHERE id = ?", (decision, at, revision))
    detail = text_of({"revision": revision, "task": task_id, "decision": decision})
    write_history(connection, [(object_id, at, "revision", detail)])
