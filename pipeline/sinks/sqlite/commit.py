"""Outcomes with their tasks and rejected rows, fenced by the lease, in one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from pipeline.ledger import Committed, Outcome
from pipeline.sinks.outboxes import ranges
from pipeline.sinks.outcomes import Before, ImportRow, ObjectChange, Plan, writes_all, writes_rejected
from pipeline.sinks.sqlite import replacing, standings
from pipeline.sinks.sqlite.granting import to_outbox
from pipeline.sinks.sqlite.record import add_counts, write_history
from pipeline.sinks.texts import text_of
from pipeline.sqlitefile import now, write_rows
from pipeline.tasks import RejectedRow, Task

TaskRow = tuple[object, ...]

_INSERT_TASKS = (
    "INSERT INTO task_rows (object_id, lease, position, row, data, annotations, predictions, meta, extra, external_id)"
    " VALUES {rows}"
)
_TASK_ROW = "(?,?,?,?,?,?,?,?,?,?)"
_INSERT_BARE_TASKS = "INSERT INTO task_rows (object_id, lease, position, row, data) VALUES {rows}"
_BARE_ROW = "(?,?,?,?,?)"
BARE = 5
"""How many columns a task has that has nothing but data."""
_NOTHING = (None,) * 5
_UPDATE_OBJECTS = (
    "UPDATE objects SET lease = NULL, state = v.column1, due = coalesce(v.column2, due),"
    " attempts = attempts + v.column3, lost = CASE WHEN v.column4 THEN 0 ELSE lost END,"
    " redo = CASE WHEN v.column4 THEN 0 ELSE redo END, wanted_version = coalesce(v.column5, wanted_version),"
    " imported_version = coalesce(v.column6, imported_version), sequencer = coalesce(v.column7, sequencer),"
    " size = coalesce(v.column8, size), tasks = v.column9, rejected = v.column10, changes = changes + v.column11,"
    " code = v.column12, reason = v.column13, finished_at = coalesce(v.column14, finished_at)"
    " FROM (VALUES {rows}) AS v WHERE objects.id = v.column15"
)
_OBJECT_ROW = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_UPDATE_DONE = (
    "UPDATE objects SET lease = NULL, state = 'done', attempts = attempts + 1, lost = 0, redo = 0,"
    " wanted_version = coalesce(v.column1, wanted_version), imported_version = coalesce(v.column2, imported_version),"
    " size = coalesce(v.column3, size), tasks = v.column4, rejected = v.column5, code = NULL, reason = NULL,"
    " finished_at = v.column6 FROM (VALUES {rows}) AS v WHERE objects.id = v.column7"
)
_DONE_ROW = "(?,?,?,?,?,?,?)"
_INSERT_IMPORTS = (
    "INSERT INTO imports (object_id, lease, state, mode, version, shape, tasks, rejected, bytes, at, seconds)"
    " VALUES {rows} ON CONFLICT DO UPDATE SET state = 'live',"
    " mode = excluded.mode, version = excluded.version, shape = excluded.shape, tasks = excluded.tasks,"
    " rejected = excluded.rejected, bytes = excluded.bytes, at = excluded.at, seconds = excluded.seconds"
)
_IMPORT_ROW = "(?,?,'live',?,?,?,?,?,?,?,?)"
INSERT_REJECTED = (
    "INSERT INTO rejected_rows (object_id, lease, n, row, line, column, code, message, excerpt)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def task_rows(object_id: int, lease: int, tasks: Iterable[Task], first: int = 0) -> list[TaskRow]:
    """Rows for `task_rows`, positions counted from `first`."""
    return [(object_id, lease, position, *task) for position, task in enumerate(tasks, first)]


def rejected_rows(object_id: int, lease: int, rejected: Iterable[RejectedRow], first: int = 0) -> list[TaskRow]:
    """Rows for `rejected_rows`, counted from `first`."""
    return [
        (object_id, lease, n, row.row, row.line, row.column, row.code, row.message, row.excerpt)
        for n, row in enumerate(rejected, first)
    ]


def insert_tasks(connection: sqlite3.Connection, rows: Sequence[TaskRow]) -> None:
    """Write rows that `task_rows` gave, in their order. Mostly all have data only; naming no other column then
    takes half the time."""
    if all(row[BARE:] == _NOTHING for row in rows):
        write_rows(connection, _INSERT_BARE_TASKS, _BARE_ROW, [row[:BARE] for row in rows])
    else:
        write_rows(connection, _INSERT_TASKS, _TASK_ROW, rows)


@dataclass(frozen=True, slots=True)
class Batch:
    """Outcomes of one claim, made ready outside the transaction as far as can be."""

    lease: int
    outcomes: Sequence[Outcome]
    rows: list[TaskRow]
    rejected: list[TaskRow]

    @classmethod
    def of(cls, lease: int, outcomes: Sequence[Outcome]) -> Batch:
        """Encode what does not depend on the tables."""
        rows: list[TaskRow] = []
        rejected: list[TaskRow] = []
        for outcome in outcomes:
            if writes_all(outcome):
                rows.extend(task_rows(outcome.object_id, lease, outcome.tasks))
            if outcome.rejected and writes_rejected(outcome):
                rejected.extend(rejected_rows(outcome.object_id, lease, outcome.rejected))
        return cls(lease, outcomes, rows, rejected)

    def write(self, connection: sqlite3.Connection) -> Committed:
        """As `Ledger.commit`."""
        found = connection.execute("SELECT source_id, open FROM leases WHERE id = ?", (self.lease,)).fetchone()
        owned = self._owned(connection) if found else {}
        kept = [outcome for outcome in self.outcomes if outcome.object_id in owned]
        if kept:
            plan = Plan(self.lease, now(), _SqliteTables(connection, self.lease))
            plan.take_all(kept, owned)
            _write_plan(connection, self.lease, found[0], plan)
            self._write_rows(connection, owned, partly=len(kept) < len(self.outcomes))
            standings.take(connection, found[0], kept)
            to_outbox(connection, found[0], ranges(self.lease, kept, owned))
        if found:
            _close_lease(connection, self.lease, found[1] - len(kept))
        ids = frozenset(owned)
        return Committed(
            kept=ids,
            lost=frozenset(outcome.object_id for outcome in self.outcomes) - ids,
            tasks=sum(outcome.task_count for outcome in kept if outcome.state == "done"),
        )

    def _owned(self, connection: sqlite3.Connection) -> dict[int, Before]:
        # All rows as one: SQLite gives up the interpreter's lock at each that it gives.
        (rows,) = connection.execute(
            "SELECT json_group_array(json_array(o.id, o.wanted_version, o.imported_version, o.tasks, o.rejected))"
            " FROM json_each(?) AS j CROSS JOIN objects AS o ON o.id = j.value WHERE o.lease = ?",
            (text_of([outcome.object_id for outcome in self.outcomes]), self.lease),
        ).fetchone()
        return {row[0]: Before._make(row) for row in orjson.loads(rows)}

    def _write_rows(self, connection: sqlite3.Connection, owned: dict[int, Before], *, partly: bool) -> None:
        rows, rejected = self.rows, self.rejected
        if partly:
            rows = [row for row in rows if row[0] in owned]
            rejected = [row for row in rejected if row[0] in owned]
        insert_tasks(connection, rows)
        connection.executemany(INSERT_REJECTED, rejected)


def _close_lease(connection: sqlite3.Connection, lease: int, left: int) -> None:
    """Delete a lease that no object is under any more. `left` counts at least those that are."""
    if left > 0:
        (left,) = connection.execute(
            "SELECT count(*) FROM leases AS l, json_each(l.ids) AS j CROSS JOIN objects AS o ON o.id = j.value"
            " WHERE l.id = ?1 AND o.lease = ?1",
            (lease,),
        ).fetchone()
        connection.execute("UPDATE leases SET open = ? WHERE id = ?", (left, lease))
    if left <= 0:
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))


def _write_plan(connection: sqlite3.Connection, lease: int, source_id: int, plan: Plan) -> None:
    at = now()
    plain = [change for change in plan.objects if _is_plain(change)]
    done = [(row.wanted, row.imported, row.size, row.tasks, row.rejected, row.finished_at, row.id) for row in plain]
    write_rows(connection, _UPDATE_DONE, _DONE_ROW, done)
    if len(plain) < len(plan.objects):
        others = [change for change in plan.objects if not _is_plain(change)]
        write_rows(connection, _UPDATE_OBJECTS, _OBJECT_ROW, others)
    write_rows(connection, _INSERT_IMPORTS, _IMPORT_ROW, [_import_row(lease, at, row) for row in plan.imports])
    write_history(connection, plan.history)
    add_counts(connection, Counter({(source_id, state): n for state, n in plan.states.items()}))
    connection.execute(
        "UPDATE sources SET finished = finished + ?, finished_at = CASE WHEN ?1 THEN ?2 ELSE finished_at END,"
        " changes = changes + ?, tasks = tasks + ?, rejected = rejected + ?, read_objects = read_objects + ?,"
        " read_tasks = read_tasks + ?, read_bytes = read_bytes + ? WHERE id = ?",
        (
            plan.finished,
            at,
            plan.changes,
            plan.tasks,
            plan.rejected,
            plan.read_objects,
            plan.read_tasks,
            plan.read_bytes,
            source_id,
        ),
    )


def _is_plain(change: ObjectChange) -> bool:
    """Whether an object simply ended well: then half the columns have no need of a value each."""
    return (
        change.state == "done"
        and change.attempts == 1
        and change.sequencer is None
        and change.code is None
        and not change.changes
    )


def _import_row(lease: int, at: float, row: ImportRow) -> TaskRow:
    return (row.object_id, lease, *row[1:7], at, row.seconds)


class _SqliteTables:
    """`pipeline.sinks.outcomes.Tables` inside the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection, lease: int) -> None:
        self._connection = connection
        self._lease = lease

    def discard(self, object_id: int) -> None:
        self._connection.execute(
            "UPDATE imports SET state = 'discarded' WHERE object_id = ? AND lease = ?", (object_id, self._lease)
        )

    def archive(self, object_id: int) -> None:
        self._move(object_id, "live", "archived")

    def restore(self, object_id: int) -> int:
        self._move(object_id, "archived", "live")
        (tasks,) = self._connection.execute(
            f"SELECT count(*) FROM task_rows AS t WHERE {replacing.LIVE}", (object_id,)
        ).fetchone()
        return int(tasks)

    def supersede(self, object_id: int, state: str) -> None:
        self._move(object_id, state, "replaced")

    def match(self, outcome: Outcome) -> int:
        found = replacing.match(self._connection, self._lease, outcome)
        rows = [(outcome.object_id, self._lease, position, *task) for position, task in found.added]
        insert_tasks(self._connection, rows)
        return len(found.updated) + len(found.added)

    def write(self, outcome: Outcome) -> None:
        insert_tasks(self._connection, task_rows(outcome.object_id, self._lease, outcome.tasks))

    def adopt(self, outcome: Outcome) -> None:
        replacing.adopt(self._connection, self._lease, outcome)

    def forget_rejected(self, object_id: int) -> None:
        self._connection.execute(
            "DELETE FROM rejected_rows WHERE object_id = ? AND lease <> ?", (object_id, self._lease)
        )

    def _move(self, object_id: int, state: str, to: str) -> None:
        self._connection.execute(
            "UPDATE imports SET state = ? WHERE object_id = ? AND state = ? AND lease <> ?",
            (to, object_id, state, self._lease),
        )
