"""How full projects are, and what is waited for, on SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from pipeline.ledger.deliveries import Failure
from pipeline.ledger.labelling import COUNTED_NOW, LABELLED, Count, OpenThere, count_pause
from pipeline.ledger.labelling import open_there as open_there_of
from pipeline.ledger.reports import Tally
from pipeline.sinks.sqlite import clock

PROJECTS = (
    "SELECT p.name, coalesce(sum(s.tasks), 0) AS tasks, CAST(coalesce(sum((SELECT total(l.open * l.tasks_each)"
    " FROM leases AS l WHERE l.source_id = s.id)), 0) AS INTEGER) AS in_flight, p.paused FROM projects AS p"
    " LEFT JOIN sources AS s ON s.project_id = p.id GROUP BY p.id ORDER BY p.id"
)

_EVER = "(SELECT coalesce(sum(s.read_tasks), 0) FROM sources AS s WHERE s.project_id = p.id)"
_LIVE = "(SELECT coalesce(sum(s.tasks), 0) FROM sources AS s WHERE s.project_id = p.id)"


def scheduling(connection: sqlite3.Connection) -> dict[str, Any]:
    """As `Reports.scheduling`."""
    (at, notes) = connection.execute("SELECT noted_at, notes FROM scheduling").fetchone()
    said: dict[str, Any] = orjson.loads(notes)
    return {"at": at, "sources": {}, "projects": {}} | said


def open_tasks(connection: sqlite3.Connection, project: str) -> Tally:
    """As `Reports.open_tasks`."""
    # One statement, which sees one moment.
    row = connection.execute(
        "SELECT (SELECT count(*) FROM sources AS s CROSS JOIN objects AS o ON o.source_id = s.id AND o.tasks > 0"
        " CROSS JOIN imports AS i ON i.object_id = o.id AND i.state = 'live' CROSS JOIN task_rows AS t"
        " ON t.object_id = i.object_id AND t.lease = i.lease WHERE s.project_id = p.id AND t.archived_at IS NULL"
        " AND coalesce(t.annotations, '[]') = '[]'),"
        f" {_EVER}, {_LIVE} FROM projects AS p WHERE p.name = ?",
        (project,),
    ).fetchone()
    return Tally() if row is None else Tally(*row)


def undelivered(connection: sqlite3.Connection, project: str) -> Tally:
    """As `Reports.undelivered`."""
    row = connection.execute(
        "SELECT (SELECT max((SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id AND"
        " o.done_at IS NULL) + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b WHERE b.delivery_id = d.id AND"
        " b.state NOT IN ('done', 'refused'))) FROM deliveries AS d WHERE d.project_id = p.id AND d.retired = 0),"
        f" {_EVER}, {_LIVE} FROM projects AS p WHERE p.name = ?",
        (project,),
    ).fetchone()
    return Tally() if row is None else Tally(row[0] or 0, *row[1:])


def open_there(connection: sqlite3.Connection, project: str) -> OpenThere:
    """As `Reports.open_there`."""
    rows = connection.execute(
        f"SELECT {_EVER}, {_LIVE}, d.open_there,"
        " coalesce(d.delivered - d.open_delivered, 0),"
        " (SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id AND o.done_at IS NULL)"
        " + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL),"
        f" d.backfill IS NULL, coalesce(d.count_due > ?1 AND NOT ({COUNTED_NOW}), 0) OR d.paused_at IS NOT NULL"
        " OR p.paused IS NOT NULL OR (d.failing > 0 AND d.due > ?1) OR EXISTS (SELECT 1 FROM batches AS b"
        " WHERE b.delivery_id = d.id AND b.ended_at IS NULL AND b.state = 'unsure')"
        " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id"
        " WHERE p.name = ?2 AND d.kind = ?3 AND d.retired = 0",
        (clock.steady(connection), project, LABELLED),
    ).fetchall()
    counts = [Count(row[2], row[3], row[4], filled=bool(row[5]), settled=bool(row[6])) for row in rows]
    return open_there_of(counts, *(rows[0][:2] if rows else (0, 0)))


def counted(connection: sqlite3.Connection, delivery: int, found: int | Failure | None) -> None:
    """As `Deliveries.counted`, under a grant that holds."""
    due = clock.kept(connection) + count_pause(found)
    if isinstance(found, Failure):
        statement = "UPDATE deliveries SET until = NULL, count_due = ?, uncounted = ? WHERE id = ?"
        connection.execute(statement, (due, found.message, delivery))
    else:
        connection.execute(
            "UPDATE deliveries SET until = NULL, count_due = ?, uncounted = NULL, open_there = ?,"
            " open_delivered = delivered WHERE id = ?",
            (due, found, delivery),
        )
