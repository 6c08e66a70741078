"""What waits for storage that does not answer, on PostgreSQL."""

from __future__ import annotations

from typing import Any

from pipeline.ledger import OWN_CODES
from pipeline.sinks.postgres.database import Transaction

_TRIED = f"o.attempts > 0 AND o.code NOT IN ({', '.join(repr(code) for code in OWN_CODES)})"
_WAITING = f"o.source_id = s.id AND o.state = 'ready' AND {_TRIED}"
# What is ready has an index, and what is claimed stands in its leases: nothing else is looked at.
_OPEN = (
    f"SELECT s.id, o.due, o.reason, o.last_event FROM sources AS s JOIN objects AS o ON {_WAITING} WHERE s.name = %s"
    " UNION ALL SELECT s.id, o.due, o.reason, o.last_event FROM sources AS s JOIN leases AS l ON l.source_id = s.id"
    " CROSS JOIN LATERAL unnest(l.ids) AS e (object_id) JOIN objects AS o ON o.id = e.object_id AND o.lease = l.id"
    f" WHERE s.name = %s AND {_TRIED}"
)
_UNANSWERED = (
    "SELECT count(*), (array_agg(o.reason ORDER BY o.due DESC))[1], extract(epoch FROM greatest(min(o.last_event),"
    " (SELECT max(c.at) FROM counters AS c WHERE c.source_id = o.id AND c.name = 'finished')))::float8"
    f" FROM ({_OPEN}) AS o GROUP BY o.id"
)
_STAGED = (
    "SELECT coalesce(sum((SELECT max(t.position) + 1 FROM task_rows AS t"
    " WHERE t.object_id = i.object_id AND t.lease = i.lease)), 0)::bigint FROM imports AS i"
    " JOIN objects AS o ON o.id = i.object_id AND o.lease = i.lease JOIN sources AS s ON s.id = o.source_id"
    " WHERE i.state = 'staged' AND s.name = %s"
)


def unanswered(tx: Transaction, source: str) -> dict[str, Any] | None:
    """As `Reports.unanswered`."""
    found = tx.rows(_UNANSWERED, (source, source))
    if not found:
        return None
    objects, reason, since = found[0]
    return {"objects": objects, "code": reason["code"], "message": reason["message"], "since": since}


def staged(tx: Transaction, source: str) -> int:
    """As `Reports.staged`."""
    return int(tx.rows(_STAGED, (source,))[0][0])


def hasten(tx: Transaction, source: str) -> int:
    """As `Reports.hasten`."""
    statement = f"UPDATE objects AS o SET due = clock_timestamp() FROM sources AS s WHERE s.name = %s AND {_WAITING}"
    return len(tx.rows(f"{statement} AND o.due > clock_timestamp() RETURNING o.id", (source,)))
