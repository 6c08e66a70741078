"""How full projects are, and what is waited for, on PostgreSQL."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.ledger.deliveries import Failure
from pipeline.ledger.labelling import COUNTED_NOW, LABELLED, Count, OpenThere, count_pause
from pipeline.ledger.labelling import open_there as open_there_of
from pipeline.ledger.reports import Tally
from pipeline.sinks.postgres.database import Transaction

PROJECTS = (
    "SELECT p.name, (SELECT coalesce(sum(c.n), 0)::bigint FROM sources AS s JOIN counters AS c"
    " ON c.source_id = s.id AND c.name = 'tasks' WHERE s.project_id = p.id) AS tasks,"
    " (SELECT coalesce(sum(l.open * l.tasks_each), 0)::bigint FROM sources AS s JOIN leases AS l"
    " ON l.source_id = s.id WHERE s.project_id = p.id) AS in_flight,"
    " extract(epoch FROM p.paused)::float8 AS paused FROM projects AS p ORDER BY p.id"
)

_EVER, _LIVE = (
    "(SELECT coalesce(sum(c.n), 0)::bigint FROM sources AS s JOIN counters AS c"
    f" ON c.source_id = s.id AND c.name = '{name}' WHERE s.project_id = p.id)"
    for name in ("read_tasks", "tasks")
)


def scheduling(tx: Transaction) -> dict[str, Any]:
    """As `Reports.scheduling`."""
    ((at, notes),) = tx.rows("SELECT noted_at, notes FROM scheduling")
    said: dict[str, Any] = orjson.loads(notes)
    return {"at": at, "sources": {}, "projects": {}} | said


def open_tasks(tx: Transaction, project: str) -> Tally:
    """As `Reports.open_tasks`."""
    # One statement, which sees one moment.
    found = tx.rows(
        "SELECT (SELECT count(*) FROM sources AS s JOIN objects AS o ON o.source_id = s.id AND o.tasks > 0"
        " JOIN imports AS i ON i.object_id = o.id AND i.state = 'live' JOIN task_rows AS t"
        " ON t.object_id = i.object_id AND t.lease = i.lease WHERE s.project_id = p.id AND t.archived_at IS NULL"
        " AND coalesce(t.annotations, '[]') = '[]'),"
        f" {_EVER}, {_LIVE} FROM projects AS p WHERE p.name = %s",
        (project,),
    )
    return Tally(*found[0]) if found else Tally()


def undelivered(tx: Transaction, project: str) -> Tally:
    """As `Reports.undelivered`."""
    found = tx.rows(
        "SELECT (SELECT max((SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id AND"
        " o.done_at IS NULL) + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b WHERE b.delivery_id = d.id AND"
        " b.state NOT IN ('done', 'refused'))) FROM deliveries AS d WHERE d.project_id = p.id AND NOT d.retired),"
        f" {_EVER}, {_LIVE} FROM projects AS p WHERE p.name = %s",
        (project,),
    )
    return Tally(int(found[0][0] or 0), *found[0][1:]) if found else Tally()


def open_there(tx: Transaction, project: str) -> OpenThere:
    """As `Reports.open_there`."""
    rows = tx.rows(
        f"SELECT {_EVER}, {_LIVE}, d.open_there,"
        " coalesce(d.delivered - d.open_delivered, 0),"
        " ((SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id AND o.done_at IS NULL)"
        " + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL)"
        f")::bigint, d.backfill IS NULL, coalesce(d.count_due > clock_timestamp() AND NOT ({COUNTED_NOW}), false)"
        " OR d.paused_at IS NOT NULL"
        " OR p.paused IS NOT NULL OR (d.failing > 0 AND d.due > clock_timestamp()) OR EXISTS (SELECT 1"
        " FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL AND b.state = 'unsure')"
        " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id"
        " WHERE p.name = %s AND d.kind = %s AND NOT d.retired",
        (project, LABELLED),
    )
    return open_there_of([Count(*row[2:]) for row in rows], *(rows[0][:2] if rows else (0, 0)))


def counted(tx: Transaction, delivery: int, found: int | Failure | None) -> None:
    """As `Deliveries.counted`, under a grant that holds."""
    due = "count_due = clock_timestamp() + make_interval(secs => %s)"
    if isinstance(found, Failure):
        statement = f"UPDATE deliveries SET until = NULL, {due}, uncounted = %s WHERE id = %s"
        tx.execute(statement, (count_pause(found), found.message.replace("\x00", ""), delivery))
    else:
        tx.execute(
            f"UPDATE deliveries SET until = NULL, {due}, uncounted = NULL, open_there = %s,"
            " open_delivered = delivered WHERE id = %s",
            (count_pause(found), found, delivery),
        )
