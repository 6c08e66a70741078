"""What workers write: start marks, staged pieces of large files, and outcomes with their tasks."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import orjson

from pipeline.errors import LeaseLost
from pipeline.ledger import LOST_WORKERS_LIMIT, STAGE_ROWS, Committed, OldRow, Outcome, Reason, Work, match_rows
from pipeline.sinks.sqlite.record import Counts, add_counts, write_history
from pipeline.sinks.sqlite.schedule import end_leases
from pipeline.sqlitefile import now
from pipeline.tasks import RejectedRow, Task

TaskRow = tuple[object, ...]

PASSES_KEPT = 20
"""Passes of a source that the ledger remembers."""

_INSERT_TASK = (
    "INSERT INTO task_rows (object_id, lease, position, row, data, annotations, predictions, meta, extra, external_id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_REJECTED = (
    "INSERT INTO rejected_rows (object_id, lease, n, row, line, column, code, message, excerpt)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_LIVE = "EXISTS (SELECT 1 FROM imports AS i WHERE i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live')"


def start(connection: sqlite3.Connection, lease: int, worker: str, until: float) -> list[Work]:
    """As `Ledger.start`."""
    row = connection.execute("SELECT ids FROM leases WHERE id = ? AND started_at IS NULL", (lease,)).fetchone()
    if row is None:
        return []
    work = [
        Work(*columns)
        for columns in connection.execute(
            "SELECT o.id, s.name, o.key, o.wanted_version, o.imported_version, o.tasks > 0, o.redo, o.attempts, o.lost"
            " FROM json_each(?) AS j CROSS JOIN objects AS o ON o.id = j.value"
            " CROSS JOIN sources AS s ON s.id = o.source_id WHERE o.lease = ?",
            (row[0], lease),
        )
    ]
    if work:
        connection.execute(
            "UPDATE leases SET started_at = ?, worker = ?, until = ?, open = ? WHERE id = ?",
            (now(), worker, until, len(work), lease),
        )
    else:
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
    return work


def task_rows(object_id: int, lease: int, tasks: Iterable[Task], first: int = 0) -> list[TaskRow]:
    """Rows for `task_rows`, positions counted from `first`."""
    return [(object_id, lease, position, *task) for position, task in enumerate(tasks, first)]


def _rejected_rows(object_id: int, lease: int, rejected: Iterable[RejectedRow], first: int = 0) -> list[TaskRow]:
    return [
        (object_id, lease, n, row.row, row.line, row.column, row.code, row.message, row.excerpt)
        for n, row in enumerate(rejected, first)
    ]


def stage(
    connection: sqlite3.Connection, lease: int, object_id: int, rows: Sequence[TaskRow], rejected: Sequence[RejectedRow]
) -> None:
    """As `Ledger.stage`, for rows that are ready to be inserted."""
    owned = connection.execute("SELECT 1 FROM objects WHERE id = ? AND lease = ?", (object_id, lease)).fetchone()
    if owned is None:
        raise LeaseLost(f"lease {lease} has ended")
    connection.execute(
        "INSERT INTO imports (object_id, lease, state, mode, at) VALUES (?, ?, 'staged', 'new', ?) ON CONFLICT DO NOTHING",
        (object_id, lease, now()),
    )
    connection.executemany(_INSERT_TASK, rows)
    if rejected:
        (first,) = connection.execute(
            "SELECT coalesce(max(n) + 1, 0) FROM rejected_rows WHERE object_id = ? AND lease = ?", (object_id, lease)
        ).fetchone()
        connection.executemany(_INSERT_REJECTED, _rejected_rows(object_id, lease, rejected, first))


def unstage(connection: sqlite3.Connection, lease: int, object_id: int) -> bool:
    """Delete a bounded part of what was staged; whether there may be more."""
    deleted = 0
    for table, order in (("task_rows", "position"), ("rejected_rows", "n")):
        deleted += connection.execute(
            f"DELETE FROM {table} WHERE object_id = ?1 AND lease = ?2 AND {order} IN"
            f" (SELECT {order} FROM {table} WHERE object_id = ?1 AND lease = ?2 LIMIT {STAGE_ROWS})",
            (object_id, lease),
        ).rowcount
    return deleted >= STAGE_ROWS


def give_back(connection: sqlite3.Connection, lease: int, lost: int | None) -> None:
    """As `Ledger.give_back`."""
    if lost is not None:
        _child_died(connection, lease, lost)
    end_leases(connection, "id IN", [lease], lost=False)


def _child_died(connection: sqlite3.Connection, lease: int, object_id: int) -> None:
    row = connection.execute(
        "UPDATE objects SET lost = lost + 1, attempts = attempts + 1 WHERE id = ? AND lease = ? RETURNING lost, source_id",
        (object_id, lease),
    ).fetchone()
    if row is None:
        return
    died, source_id = row[0] - 1, row[1]
    write_history(connection, [(object_id, now(), "child_died", orjson.dumps({"lease": lease, "died": died}).decode())])
    if died < LOST_WORKERS_LIMIT:
        return
    reason = Reason(
        "worker_lost",
        f"the process that imported it died {died} times",
        hint="it may need more memory or time than limits.child_memory and limits.child_time give; then `labelfeed retry`",
    )
    connection.execute(
        "UPDATE objects SET state = 'failed', lease = NULL, lost = 0, code = ?, reason = ?, finished_at = ? WHERE id = ?",
        (reason.code, _reason(reason), now(), object_id),
    )
    add_counts(connection, Counter({(source_id, "claimed"): -1, (source_id, "failed"): 1}))
    connection.execute(
        "UPDATE sources SET finished = finished + 1, finished_at = ? WHERE id = ?", (now(), source_id)
    )


def sweep(connection: sqlite3.Connection, limit: int) -> int:
    """As `Ledger.sweep`."""
    row = connection.execute(
        "SELECT object_id, lease, state FROM imports WHERE state IN ('staged', 'discarded')"
        " AND lease NOT IN (SELECT id FROM leases) LIMIT 1"
    ).fetchone()
    connection.execute(
        "DELETE FROM passes WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
        " (PARTITION BY source_id ORDER BY id DESC) AS age FROM passes) WHERE age > ?)",
        (PASSES_KEPT,),
    )
    if row is None:
        return 0
    object_id, lease, state = row
    deleted = connection.execute(
        "DELETE FROM task_rows WHERE id IN (SELECT id FROM task_rows WHERE object_id = ? AND lease = ? LIMIT ?)",
        (object_id, lease, limit),
    ).rowcount
    if deleted < limit:
        connection.execute("DELETE FROM imports WHERE object_id = ? AND lease = ?", (object_id, lease))
        if state == "staged":
            connection.execute("DELETE FROM rejected_rows WHERE object_id = ? AND lease = ?", (object_id, lease))
    return deleted + 1


class _Before(NamedTuple):
    """An object's row as the commit finds it."""

    id: int
    wanted: str | None
    imported: str | None
    sequencer: str | None
    size: int | None
    tasks: int
    rejected: int
    due: float
    lost: int
    redo: int
    finished_at: float | None


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
            if outcome.mode != "replace":
                rows.extend(task_rows(outcome.object_id, lease, outcome.tasks))
            if outcome.rejected:
                rejected.extend(_rejected_rows(outcome.object_id, lease, outcome.rejected))
        return cls(lease, outcomes, rows, rejected)

    def write(self, connection: sqlite3.Connection) -> Committed:
        """As `Ledger.commit`."""
        owned = self._owned(connection)
        found = connection.execute(
            "SELECT s.id, s.project_id FROM leases AS l JOIN sources AS s ON s.id = l.source_id WHERE l.id = ?",
            (self.lease,),
        ).fetchone()
        kept = [outcome for outcome in self.outcomes if outcome.object_id in owned] if found else []
        if kept:
            _Writing(connection, self.lease, found[0], found[1], owned).write(kept)
            self._write_rows(connection, owned, partly=len(kept) < len(self.outcomes))
        self._close_lease(connection)
        ids = frozenset(outcome.object_id for outcome in kept)
        return Committed(
            kept=ids,
            lost=frozenset(outcome.object_id for outcome in self.outcomes) - ids,
            tasks=sum(outcome.task_count for outcome in kept if outcome.state == "done"),
        )

    def _owned(self, connection: sqlite3.Connection) -> dict[int, _Before]:
        ids = orjson.dumps([outcome.object_id for outcome in self.outcomes]).decode()
        rows = connection.execute(
            "SELECT o.id, o.wanted_version, o.imported_version, o.sequencer, o.size, o.tasks, o.rejected, o.due, o.lost,"
            " o.redo, o.finished_at FROM json_each(?) AS j CROSS JOIN objects AS o ON o.id = j.value WHERE o.lease = ?",
            (ids, self.lease),
        )
        return {row[0]: _Before(*row) for row in rows}

    def _write_rows(self, connection: sqlite3.Connection, owned: dict[int, _Before], *, partly: bool) -> None:
        rows, rejected = self.rows, self.rejected
        if partly:
            rows = [row for row in rows if row[0] in owned]
            rejected = [row for row in rejected if row[0] in owned]
        connection.executemany(_INSERT_TASK, rows)
        connection.executemany(_INSERT_REJECTED, rejected)

    def _close_lease(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE leases SET open = open - ? WHERE id = ?", (len(self.outcomes), self.lease))
        connection.execute("DELETE FROM leases WHERE id = ? AND open <= 0", (self.lease,))


class _Writing:
    """One commit under way: gathers what the outcomes change, then writes it in few statements."""

    def __init__(
        self, connection: sqlite3.Connection, lease: int, source_id: int, project_id: int, owned: dict[int, _Before]
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._source_id = source_id
        self._project_id = project_id
        self._owned = owned
        self._at = now()
        self._objects: list[tuple[object, ...]] = []
        self._imports: list[tuple[object, ...]] = []
        self._history: list[tuple[int, float, str, str]] = []
        self._counts: Counts = Counter()
        self._tasks = self._rejected = self._changes = self._finished = 0

    def write(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._take(outcome, self._owned[outcome.object_id])
        execute, executemany = self._connection.execute, self._connection.executemany
        executemany(
            "UPDATE objects SET state = ?, lease = NULL, due = ?, attempts = attempts + ?, lost = ?, redo = ?,"
            " wanted_version = ?, imported_version = ?, sequencer = ?, size = ?, tasks = ?, rejected = ?,"
            " changes = changes + ?, code = ?, reason = ?, finished_at = ? WHERE id = ?",
            self._objects,
        )
        executemany(
            "INSERT INTO imports (object_id, lease, state, mode, version, shape, tasks, rejected, bytes, at, seconds)"
            " VALUES (?, ?, 'live', ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = 'live',"
            " mode = excluded.mode, version = excluded.version, shape = excluded.shape, tasks = excluded.tasks,"
            " rejected = excluded.rejected, bytes = excluded.bytes, at = excluded.at, seconds = excluded.seconds",
            self._imports,
        )
        write_history(self._connection, self._history)
        add_counts(self._connection, self._counts)
        execute(
            "UPDATE sources SET finished = finished + ?, finished_at = ?, changes = changes + ?, tasks = tasks + ?,"
            " rejected = rejected + ? WHERE id = ?",
            (self._finished, self._at, self._changes, self._tasks, self._rejected, self._source_id),
        )
        execute("UPDATE projects SET tasks = tasks + ? WHERE id = ?", (self._tasks, self._project_id))

    def _take(self, outcome: Outcome, before: _Before) -> None:
        tasks, imported, rejected = before.tasks, before.imported, outcome.rejected_count
        if outcome.state == "done":
            tasks, imported, rejected = self._done(outcome, before)
        elif outcome.state == "ready":
            rejected = before.rejected
        elif outcome.staged:
            self._set_imports("discarded", "object_id = ? AND lease = ?", before.id, self._lease)
        if outcome.state == "gone":
            rejected = before.rejected
            tasks = self._archive(before) if outcome.archive else tasks
        self._put(outcome, before, tasks, imported, rejected)
        if before.rejected and outcome.state != "ready" and rejected != before.rejected and outcome.mode != "append":
            self._connection.execute(
                "DELETE FROM rejected_rows WHERE object_id = ? AND lease <> ?", (before.id, self._lease)
            )
        if outcome.state != "done" or outcome.mode != "new":
            self._history.append((before.id, self._at, "attempt", self._told(outcome)))

    def _put(self, outcome: Outcome, before: _Before, tasks: int, imported: str | None, rejected: int) -> None:
        ended = outcome.state != "ready"
        ignored = outcome.mode == "ignored" and outcome.version != before.wanted
        self._objects.append((
            outcome.state,
            before.due if ended else self._at + outcome.retry_after,
            outcome.counted,
            0 if ended else before.lost,
            0 if ended else before.redo,
            outcome.version or before.wanted,
            imported,
            outcome.sequencer or before.sequencer,
            outcome.size if outcome.version else before.size,
            tasks,
            rejected,
            ignored,
            outcome.reason and outcome.reason.code,
            outcome.reason and _reason(outcome.reason),
            self._at if ended else before.finished_at,
            before.id,
        ))  # fmt: skip
        self._counts[self._source_id, "claimed"] -= 1
        self._counts[self._source_id, outcome.state] += 1
        self._finished += ended
        self._changes += ignored
        self._tasks += tasks - before.tasks
        self._rejected += rejected - before.rejected

    def _done(self, outcome: Outcome, before: _Before) -> tuple[int, str | None, int]:
        """Write what a done object does to its imports; its live tasks, imported version and rejected rows."""
        if outcome.mode == "ignored":
            return before.tasks, before.imported, before.rejected
        if outcome.mode == "unchanged":
            return self._restore(before), outcome.version, before.rejected
        written, rejected = outcome.task_count, outcome.rejected_count
        tasks = written
        if outcome.mode == "append":
            tasks, rejected = before.tasks + written, before.rejected + rejected
        elif outcome.mode == "replace":
            written = self._replace(outcome, before)
        self._imports.append((
            before.id, self._lease, outcome.mode, outcome.version, outcome.shape, written, outcome.rejected_count,
            outcome.size, self._at, outcome.seconds,
        ))  # fmt: skip
        return tasks, outcome.version, rejected

    def _replace(self, outcome: Outcome, before: _Before) -> int:
        """Put new tasks in the old ones' place; how many rows are written under this lease.

        A file with many rows, now or before, is replaced as a whole: matching would hold up the writer.
        """
        whole = outcome.staged or before.tasks > STAGE_ROWS
        if whole:
            self._set_imports("replaced", "object_id = ? AND lease <> ? AND state = 'live'", before.id, self._lease)
            rows = task_rows(before.id, self._lease, outcome.tasks)
            self._connection.executemany(_INSERT_TASK, rows)
            return outcome.task_count
        match = match_rows(self._old_rows(before.id), outcome.tasks, _key_of(outcome.row_key))
        executemany = self._connection.executemany
        executemany(
            "UPDATE task_rows SET row = ?, data = ?, annotations = ?, predictions = ?, meta = ?, extra = ?,"
            " external_id = ?, revision = revision + 1 WHERE id = ?",
            [(*task, task_id) for task_id, task in match.updated],
        )
        executemany(_INSERT_TASK, [(before.id, self._lease, position, *task) for position, task in match.added])
        executemany("UPDATE task_rows SET archived_at = ? WHERE id = ?", [(self._at, row) for row in match.archived])
        return len(match.added)

    def _old_rows(self, object_id: int) -> list[OldRow]:
        rows = self._connection.execute(
            "SELECT t.id, t.position, t.row, t.data, t.annotations, t.predictions, t.meta, t.extra, t.external_id"
            f" FROM task_rows AS t WHERE t.object_id = ? AND t.archived_at IS NULL AND {_LIVE}",
            (object_id,),
        )
        return [OldRow(row[0], row[1], Task(*row[2:])) for row in rows]

    def _archive(self, before: _Before) -> int:
        self._set_imports("archived", "object_id = ? AND state = 'live'", before.id)
        return 0

    def _restore(self, before: _Before) -> int:
        """Bring archived tasks back; how many are live then."""
        if before.tasks:
            return before.tasks
        self._set_imports("live", "object_id = ? AND state = 'archived'", before.id)
        (tasks,) = self._connection.execute(
            f"SELECT count(*) FROM task_rows AS t WHERE t.object_id = ? AND t.archived_at IS NULL AND {_LIVE}",
            (before.id,),
        ).fetchone()
        return int(tasks)

    def _set_imports(self, state: str, where: str, *values: object) -> None:
        self._connection.execute(f"UPDATE imports SET state = '{state}' WHERE {where}", values)

    def _told(self, outcome: Outcome) -> str:
        reason = asdict(outcome.reason) if outcome.reason else None
        return orjson.dumps({
            "lease": self._lease, "state": outcome.state, "mode": outcome.mode, "version": outcome.version,
            "tasks": outcome.task_count, "reason": reason, "retry_after": outcome.retry_after,
            "seconds": outcome.seconds,
        }).decode()  # fmt: skip


def _reason(reason: Reason) -> str:
    return orjson.dumps({name: value for name, value in asdict(reason).items() if value is not None}).decode()


def _key_of(row_key: str | None) -> Callable[[Task], object] | None:
    if row_key is None:
        return None

    def key(task: Task) -> object:
        value = orjson.loads(task.data).get(row_key)
        return value if isinstance(value, str | int | float) else None

    return key
