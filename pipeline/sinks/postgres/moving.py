"""An installation's SQLite file taken along into PostgreSQL: ledger, tasks and what else is to be remembered.

All in one transaction of PostgreSQL, while the file is locked for writing: it is moved whole, or not at all.
What belongs to processes and to the old event log (leases, workers, leaders, positions, passes under way) stays
behind: claimed objects become ready, and the next pass lists everything once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from pipeline.errors import UnavailableError, UsageError
from pipeline.sinks.sqlite import clock
from pipeline.sqlitefile import BUSY_SECONDS

TABLES = (
    "projects",
    "sources",
    "objects",
    "imports",
    "task_rows",
    "rejected_rows",
    "history",
    "standings",
    "revisions",
    "problems",
    "queues",
    "deliveries",
    "outbox",
    "batches",
    "delivered",
)
"""What is moved, those that others refer to first."""
COUNTERS = ("finished", "changes", "tasks", "rejected")
"""Columns of SQLite's sources that are counters of their own in PostgreSQL."""

_COLUMNS = (
    "SELECT column_name, data_type FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position"
)
_OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "objects": {"state": "CASE state WHEN 'claimed' THEN 'ready' ELSE state END", "lease": "NULL"},
    "deliveries": dict.fromkeys(("what", "epoch", "until", "worker"), "NULL")
    | {"started": "0", "due": "by_day(due)", "ended_at": "by_day(ended_at)"},
    "batches": {name: f"by_day({name})" for name in ("sent_at", "look_due", "settled_at")},
}
"""Columns that do not go along as they are: nobody is at work on what was moved, and PostgreSQL goes by the time of day
(`by_day`) where the file went by a clock of its own."""
_NUMBERED = ("projects", "sources", "objects", "task_rows", "history", "revisions", "deliveries", "outbox", "batches")
_LEASES = (
    "SELECT setval(pg_get_serial_sequence('leases', 'id'),"
    " (SELECT 1 + greatest(coalesce(max(lease), 0), %s) FROM imports))"
)
_COUNT_STATES = (
    "INSERT INTO counters (source_id, name, shard, n, at)"
    " SELECT source_id, state, 0, count(*), clock_timestamp() FROM objects GROUP BY source_id, state"
)
_COUNT = "INSERT INTO counters (source_id, name, shard, n, at) VALUES (%s, %s, 0, %s, clock_timestamp())"

Told = Callable[[str, int], None]
"""Is told of each table that has come over, and its rows."""


def move(file: Path, url: str, told: Told) -> None:
    """Move a SQLite file's installation into an empty PostgreSQL database; both have this program's schema.

    Raises:
        UsageError: the database is not empty.
        UnavailableError: the file is in use, or the database does not answer.
    """
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as old:
            # Nobody writes from here on; an import under way finds its lease ended when it comes to its commit.
            old.execute("BEGIN IMMEDIATE")
            try:
                with psycopg.connect(url) as new:
                    _move(old, new, told)
            finally:
                old.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"{file} cannot be read: {error}") from error
    except psycopg.OperationalError as error:
        raise UnavailableError(f"the database does not answer: {type(error).__name__}") from error


def _move(old: sqlite3.Connection, new: psycopg.Connection[Any], told: Told) -> None:
    new.execute("LOCK TABLE projects, sources IN EXCLUSIVE MODE")
    if new.execute("SELECT 1 FROM projects LIMIT 1").fetchone():
        raise UsageError("the database that is to be moved into holds an installation already; name an empty one")
    ahead = clock.ahead(old)
    old.create_function("by_day", 1, lambda at: at and at + ahead)
    for table in TABLES:
        told(table, _copied(old, new, table))
    new.execute(_COUNT_STATES)
    for source_id, *counts in old.execute(f"SELECT id, {', '.join(COUNTERS)} FROM sources"):
        for name, count in zip(COUNTERS, counts, strict=True):
            new.execute(_COUNT, (source_id, name, count))
    # Rows with the last numbers may be gone: what was named after them is not.
    newest: dict[str, int] = dict(old.execute("SELECT name, seq FROM sqlite_sequence"))
    for table in _NUMBERED:
        new.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), greatest(max(id), %(newest)s)) FROM {table}"
            " HAVING greatest(max(id), %(newest)s) > 0",
            {"newest": newest.get(table, 0)},
        )
    new.execute(_LEASES, (newest.get("leases", 0),))
    for table in TABLES:
        _compare(old, new, table)


def _copied(old: sqlite3.Connection, new: psycopg.Connection[Any], table: str) -> int:
    """Copy one table's rows; how many."""
    types = _shared(old, new, table)
    otherwise = _OTHERWISE.get(table, {})
    names = ", ".join(f'"{name}"' for name in types)
    asked = ", ".join(otherwise.get(name, f'"{name}"') for name in types)
    made = [_CONVERSIONS.get(kind, _as_it_is) for kind in types.values()]
    count = 0
    with new.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in old.execute(f"SELECT {asked} FROM {table}"):
            copy.write_row([convert(value) for convert, value in zip(made, row, strict=True)])
            count += 1
    return count


def _shared(old: sqlite3.Connection, new: psycopg.Connection[Any], table: str) -> dict[str, str]:
    """The columns that both have, and their types in PostgreSQL."""
    there = {row[1] for row in old.execute(f"PRAGMA table_info({table})")}
    return {name: kind for name, kind in new.execute(_COLUMNS, (table,)) if name in there}


def _compare(old: sqlite3.Connection, new: psycopg.Connection[Any], table: str) -> None:
    """Count the rows on both sides: a move that lost one is undone."""
    (before,) = old.execute(f"SELECT count(*) FROM {table}").fetchone()
    (after,) = new.execute(f"SELECT count(*) FROM {table}").fetchone() or (None,)
    if before != after:
        raise UnavailableError(f"{table} has {before} rows in the file and {after} in the database; nothing was moved")


def _as_it_is(value: Any) -> Any:
    return value


def _moment(value: float | None) -> str | None:
    return None if value is None else datetime.fromtimestamp(value, UTC).isoformat()


def _truth(value: int | None) -> bool | None:
    return None if value is None else bool(value)


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {"timestamp with time zone": _moment, "boolean": _truth}
