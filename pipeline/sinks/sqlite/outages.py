"""What waits for storage that does not answer, on SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from pipeline.ledger import OWN_CODES
from pipeline.sqlitefile import now

_TRIED = f"o.attempts > 0 AND o.code NOT IN ({', '.join(repr(code) for code in OWN_CODES)})"
_WAITING = f"o.source_id = (SELECT id FROM sources WHERE name = ?1) AND o.state = 'ready' AND {_TRIED}"
# What is ready has an index, and what is claimed stands in its leases: nothing else is looked at.
_OPEN = (
    f"SELECT o.due, o.reason, o.last_event FROM objects AS o WHERE {_WAITING}"
    " UNION ALL SELECT o.due, o.reason, o.last_event FROM sources AS s CROSS JOIN leases AS l ON l.source_id = s.id"
    " CROSS JOIN json_each(l.ids) AS e CROSS JOIN objects AS o ON o.id = e.value AND o.lease = l.id"
    f" WHERE s.name = ?1 AND {_TRIED}"
)
# With max() alone in it, the other columns are those of the row that has it.
_UNANSWERED = f"SELECT count(*), max(due), reason FROM ({_OPEN})"
_SINCE = f"SELECT max(min(last_event), coalesce((SELECT finished_at FROM sources WHERE name = ?1), 0)) FROM ({_OPEN})"
_STAGED = (
    "SELECT coalesce(sum((SELECT max(t.position) + 1 FROM task_rows AS t"
    " WHERE t.object_id = i.object_id AND t.lease = i.lease)), 0) FROM imports AS i"
    " CROSS JOIN objects AS o ON o.id = i.object_id AND o.lease = i.lease CROSS JOIN sources AS s ON s.id = o.source_id"
    " WHERE i.state = 'staged' AND s.name = ?"
)


def unanswered(connection: sqlite3.Connection, source: str) -> dict[str, Any] | None:
    """As `Reports.unanswered`."""
    objects, _, text = connection.execute(_UNANSWERED, (source,)).fetchone()
    if not objects:
        return None
    (since,) = connection.execute(_SINCE, (source,)).fetchone()
    reason = orjson.loads(text)
    return {"objects": objects, "code": reason["code"], "message": reason["message"], "since": since}


def staged(connection: sqlite3.Connection, source: str) -> int:
    """As `Reports.staged`."""
    return int(connection.execute(_STAGED, (source,)).fetchone()[0])


def hasten(connection: sqlite3.Connection, source: str) -> int:
    """As `Reports.hasten`."""
    statement = f"UPDATE objects AS o SET due = ?2 WHERE {_WAITING} AND o.due > ?2"
    return connection.execute(statement, (source, now())).rowcount
