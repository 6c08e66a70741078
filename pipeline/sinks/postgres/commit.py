"""Outcomes with their tasks and rejected rows, fenced by the lease, in one transaction.

The lease's row is locked first, so that whoever ends the lease waits for this commit or comes before it. A
newer version that was recorded since the objects were read shows in the fence, and the commit begins again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.faults import reached
from pipeline.ledger import Committed, Outcome
from pipeline.sinks.outboxes import ranges
from pipeline.sinks.outcomes import Before, Plan, writes_all, writes_rejected
from pipeline.sinks.postgres import replacing, standings
from pipeline.sinks.postgres.database import Conflict, Transaction, array, columns
from pipeline.sinks.postgres.granting import to_outbox
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.postgres.rows import REJECTED_COLUMNS, columns_of, rejected_lines, task_lines
from pipeline.sinks.postgres.work import check_staged


@dataclass(frozen=True, slots=True)
class Batch:
    """Outcomes of one claim, made ready outside the transaction as far as can be."""

    lease: int
    outcomes: Sequence[Outcome]
    columns: str
    tasks: dict[int, bytes]
    rejected: dict[int, bytes]

    @classmethod
    def of(cls, lease: int, outcomes: Sequence[Outcome]) -> Batch:
        """Encode what does not depend on the tables. Raises UnicodeEncodeError."""
        writing = [outcome for outcome in outcomes if outcome.tasks and writes_all(outcome)]
        filled = columns_of(chain.from_iterable([outcome.tasks for outcome in writing]))
        tasks = {
            outcome.object_id: task_lines(filled, outcome.object_id, lease, enumerate(outcome.tasks))
            for outcome in writing
        }
        rejected = {
            outcome.object_id: rejected_lines(outcome.object_id, lease, outcome.rejected)
            for outcome in outcomes
            if outcome.rejected and writes_rejected(outcome)
        }
        return cls(lease, outcomes, filled, tasks, rejected)

    def write(self, tx: Transaction) -> Committed:
        """As `Ledger.commit`. Raises UnavailableError where the database has lost what was staged."""
        found = tx.rows("SELECT source_id, open FROM leases WHERE id = %s FOR UPDATE", (self.lease,))
        owned = self._owned(tx) if found else {}
        kept = [outcome for outcome in self.outcomes if outcome.object_id in owned]
        if kept:
            check_staged(tx, self.lease, kept)
            plan = Plan(self.lease, tx.at, _PostgresTables(tx, self.lease))
            plan.take_all(kept, owned)
            _write_plan(tx, self.lease, found[0][0], plan)
            self._copy(tx, "task_rows", self.columns, self.tasks, owned)
            self._copy(tx, "rejected_rows", REJECTED_COLUMNS, self.rejected, owned)
            reached("worker.committing")
            standings.take(tx, found[0][0], kept)
            to_outbox(tx, found[0][0], ranges(self.lease, kept, owned))
        if found:
            _close_lease(tx, self.lease, found[0][1] - len(kept))
        ids = frozenset(owned)
        return Committed(
            kept=ids,
            lost=frozenset(outcome.object_id for outcome in self.outcomes) - ids,
            tasks=sum(outcome.task_count for outcome in kept if outcome.state == "done"),
        )

    def _owned(self, tx: Transaction) -> dict[int, Before]:
        rows = tx.rows(
            "SELECT id, wanted_version, imported_version, tasks, rejected FROM objects WHERE id = ANY(%s::bigint[])"
            " AND lease = %s",
            (array(outcome.object_id for outcome in self.outcomes), self.lease),
        )
        return {row[0]: Before(*row) for row in rows}

    def _copy(
        self, tx: Transaction, table: str, columns: str, lines: dict[int, bytes], owned: dict[int, Before]
    ) -> None:
        kept = b"".join([each for object_id, each in lines.items() if object_id in owned])
        if kept:
            tx.copy(table, columns, kept)


def _close_lease(tx: Transaction, lease: int, left: int) -> None:
    """Delete a lease that no object is under any more. `left` counts at least those that are."""
    if left > 0:
        ((left,),) = tx.rows(
            "SELECT count(*) FROM objects WHERE lease = %s AND id = ANY((SELECT ids FROM leases WHERE id ="
            " %s)::bigint[])",
            (lease, lease),
        )
        tx.execute("UPDATE leases SET open = %s WHERE id = %s", (left, lease))
    if left <= 0:
        tx.execute("DELETE FROM leases WHERE id = %s", (lease,))


def _write_plan(tx: Transaction, lease: int, source_id: int, plan: Plan) -> None:
    changes = sorted(plan.objects, key=lambda change: change.id)
    fenced = tx.execute(
        "UPDATE objects AS o SET lease = NULL, state = u.state, due = coalesce(to_timestamp(u.due), o.due),"
        " attempts = o.attempts + u.attempts, lost = CASE WHEN u.ended THEN 0 ELSE o.lost END, redo = o.redo"
        " AND NOT u.ended,"
        " wanted_version = coalesce(u.wanted, o.wanted_version), imported_version = coalesce(u.imported,"
        " o.imported_version),"
        " sequencer = coalesce(u.sequencer, o.sequencer), size = coalesce(u.size, o.size), tasks = u.tasks,"
        " rejected = u.rejected, changes = o.changes + u.changes, code = u.code, reason = u.reason,"
        " finished_at = CASE WHEN u.finished_at IS NULL THEN o.finished_at ELSE clock_timestamp() END"
        " FROM unnest(%s::text[], %s::float8[], %s::integer[], %s::boolean[], %s::text[], %s::text[], %s::text[],"
        " %s::bigint[], %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::jsonb[], %s::float8[],"
        " %s::bigint[])"
        " AS u (state, due, attempts, ended, wanted, imported, sequencer, size, tasks, rejected, changes, code, reason,"
        " finished_at, id) WHERE o.id = ANY(ARRAY[u.id]) AND o.lease = %s",
        (*columns(changes, 15), lease),
    )
    if fenced.rowcount != len(changes):
        raise Conflict("an object was taken from this lease meanwhile")
    if plan.imports:
        tx.execute(
            "INSERT INTO imports (object_id, lease, state, mode, version, shape, tasks, rejected, bytes, seconds, at)"
            " SELECT u.id, %s, 'live', u.mode, u.version, u.shape, u.tasks, u.rejected, u.bytes, u.seconds,"
            " clock_timestamp()"
            " FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::integer[], %s::integer[], %s::bigint[],"
            " %s::float8[]) AS u (id, mode, version, shape, tasks, rejected, bytes, seconds)"
            " ON CONFLICT (object_id, lease) DO UPDATE SET state = 'live', mode = excluded.mode, version ="
            " excluded.version,"
            " shape = excluded.shape, tasks = excluded.tasks, rejected = excluded.rejected, bytes = excluded.bytes,"
            " seconds = excluded.seconds, at = excluded.at",
            (lease, *columns(plan.imports, 8)),
        )
    write_history(tx, plan.history)
    for state, n in plan.states.items():
        tx.count(source_id, state, n)
    for name in ("finished", "changes", "tasks", "rejected", "read_objects", "read_tasks", "read_bytes"):
        tx.count(source_id, name, getattr(plan, name))


class _PostgresTables:
    """`pipeline.sinks.outcomes.Tables` inside the transaction."""

    def __init__(self, tx: Transaction, lease: int) -> None:
        self._tx = tx
        self._lease = lease

    def discard(self, object_id: int) -> None:
        self._tx.execute(
            "UPDATE imports SET state = 'discarded' WHERE object_id = %s AND lease = %s", (object_id, self._lease)
        )

    def archive(self, object_id: int) -> None:
        self._move(object_id, "live", "archived")

    def restore(self, object_id: int) -> int:
        self._move(object_id, "archived", "live")
        ((tasks,),) = self._tx.rows(f"SELECT count(*) FROM task_rows AS t WHERE {replacing.LIVE}", (object_id,))
        return int(tasks)

    def supersede(self, object_id: int, state: str) -> None:
        self._move(object_id, state, "replaced")

    def forget_rejected(self, object_id: int) -> None:
        self._tx.execute("DELETE FROM rejected_rows WHERE object_id = %s AND lease <> %s", (object_id, self._lease))

    def match(self, outcome: Outcome) -> int:
        return replacing.match(self._tx, self._lease, outcome)

    def write(self, outcome: Outcome) -> None:
        filled = columns_of(outcome.tasks)
        lines = task_lines(filled, outcome.object_id, self._lease, enumerate(outcome.tasks))
        self._tx.copy("task_rows", filled, lines)

    def adopt(self, outcome: Outcome) -> None:
        replacing.adopt(self._tx, self._lease, outcome)

    def _move(self, object_id: int, state: str, to: str) -> None:
        self._tx.execute(
            "UPDATE imports SET state = %s WHERE object_id = %s AND state = %s AND lease <> %s",
            (to, object_id, state, self._lease),
        )
