"""What workers do before and beside their commit: start marks, staged pieces of large files, giving back."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import LeaseLost, UnavailableError
from pipeline.ledger import LOST_WORKERS_LIMIT, STAGE_ROWS, Outcome, Work
from pipeline.sinks.outcomes import writes_rejected
from pipeline.sinks.postgres import standings
from pipeline.sinks.postgres.database import Transaction, array
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.postgres.rows import REJECTED_COLUMNS, rejected_lines
from pipeline.sinks.postgres.schedule import end_leases
from pipeline.sinks.texts import reason_text, text_of, worker_lost
from pipeline.tasks import RejectedRow

PASSES_KEPT = 20
"""Passes of a source that the ledger remembers."""
WORKERS_KEPT_SECONDS = 86400.0
"""How long the row of a process stays that has ended: each has a name of its own."""
STAGED = (
    "SELECT o.id, (SELECT coalesce(max(t.position) + 1, 0) FROM task_rows AS t"
    " WHERE t.object_id = o.id AND t.lease = o.lease),"
    " (SELECT coalesce(max(r.n) + 1, 0) FROM rejected_rows AS r WHERE r.object_id = o.id AND r.lease = o.lease)"
    " FROM objects AS o WHERE o.id = ANY(%s::bigint[]) AND o.lease = %s"
)
"""How many tasks and rejected rows are staged for objects that are still under a lease: both are numbered without a
gap, so that the last number tells."""


def start(tx: Transaction, lease: int, worker: str, seconds: float) -> list[Work]:
    """As `Ledger.start`."""
    started = tx.rows(
        "UPDATE leases SET started_at = clock_timestamp(), worker = %s,"
        " until = clock_timestamp() + make_interval(secs => %s) WHERE id = %s AND started_at IS NULL RETURNING ids",
        (worker, seconds, lease),
    )
    if not started:
        return []
    ids: list[int] = started[0][0]
    rows = tx.rows(
        "SELECT o.id, s.name, o.key, o.wanted_version, o.imported_version, o.tasks > 0, o.redo, o.attempts, o.lost,"
        " replace(o.trace::text, '-', '') FROM objects AS o JOIN sources AS s ON s.id = o.source_id"
        " WHERE o.id = ANY(%s::bigint[]) AND o.lease = %s",
        (array(ids), lease),
    )
    # Put into the claim's order here: joined with the list in the database, they would be compared each with each.
    place = {object_id: n for n, object_id in enumerate(ids)}
    work = sorted([Work(*columns) for columns in rows], key=lambda item: place[item.id])
    if not work:
        tx.execute("DELETE FROM leases WHERE id = %s", (lease,))
    elif len(work) < len(ids):
        tx.execute("UPDATE leases SET open = %s WHERE id = %s", (len(work), lease))
    return work


def renew(tx: Transaction, lease: int, seconds: float) -> bool:
    """As `Ledger.renew`."""
    statement = "UPDATE leases SET until = clock_timestamp() + make_interval(secs => %s) WHERE id = %s"
    return tx.execute(statement, (seconds, lease)).rowcount == 1


def beat(tx: Transaction, worker: str, threads: int, seconds: float, commits: tuple[int, float]) -> None:
    """As `Ledger.beat`."""
    tx.execute(
        "INSERT INTO workers (name, threads, until, commits, commit_seconds)"
        " VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s), %s, %s)"
        " ON CONFLICT (name) DO UPDATE SET threads = excluded.threads, until = excluded.until,"
        " commits = excluded.commits, commit_seconds = excluded.commit_seconds",
        (worker, threads, seconds, *commits),
    )


def stage(
    tx: Transaction, lease: int, object_id: int, first: int, tasks: tuple[str, bytes], rejected: Sequence[RejectedRow]
) -> None:
    """As `Ledger.stage`, for tasks as columns and their lines. Raises UnavailableError where those before are not
    there."""
    found = tx.rows(STAGED, (array([object_id]), lease))
    if not found:
        raise LeaseLost(f"lease {lease} has ended")
    ((_, there, first_rejected),) = found
    if there != first:
        raise _rows_lost()
    # The import's row is locked even if it is there: a sweep must not delete it between.
    tx.execute(
        "INSERT INTO imports (object_id, lease, state, mode, at) VALUES (%s, %s, 'staged', 'new', clock_timestamp())"
        " ON CONFLICT (object_id, lease) DO UPDATE SET at = excluded.at",
        (object_id, lease),
    )
    if tasks[1]:
        tx.copy("task_rows", *tasks)
    if rejected:
        tx.copy("rejected_rows", REJECTED_COLUMNS, rejected_lines(object_id, lease, rejected, first_rejected))


def check_staged(tx: Transaction, lease: int, outcomes: Sequence[Outcome]) -> None:
    """Raise UnavailableError where the database has not all that was staged for these outcomes."""
    staged = [outcome for outcome in outcomes if outcome.staged]
    if not staged:
        return
    found = {row[0]: row[1:] for row in tx.rows(STAGED, (array(outcome.object_id for outcome in staged), lease))}
    for outcome in staged:
        tasks, rejected = found.get(outcome.object_id, (outcome.task_count, outcome.rejected_count))
        if (outcome.state == "done" and tasks != outcome.task_count) or (
            writes_rejected(outcome) and rejected != outcome.rejected_count
        ):
            raise _rows_lost()


def _rows_lost() -> UnavailableError:
    """What was staged is not there, or twice: the claim is given back, and imported from its start under a new lease.

    A replica that took over too early has lost commits that were acknowledged. It also gives their numbers out again,
    so that a transaction whose end nobody heard may be taken for committed, as another one was.
    """
    return UnavailableError("the database has lost rows that were staged; the file is read again", code="rows_lost")


def unstage(tx: Transaction, lease: int, object_id: int) -> bool:
    """Delete a bounded part of what was staged; whether there may be more."""
    staged = tx.rows(
        "SELECT 1 FROM imports WHERE object_id = %s AND lease = %s AND state = 'staged' FOR UPDATE", (object_id, lease)
    )
    return bool(staged) and _delete_rows(tx, object_id, lease, STAGE_ROWS, rejected=True) >= STAGE_ROWS


def _delete_rows(tx: Transaction, object_id: int, lease: int, limit: int, *, rejected: bool) -> int:
    """Delete at most `limit` rows of an import; how many went."""
    deleted = 0
    for table, order in (("task_rows", "position"), ("rejected_rows", "n"))[: 1 + rejected]:
        deleted += tx.execute(
            f"DELETE FROM {table} WHERE object_id = %(object)s AND lease = %(lease)s AND {order} = ANY(ARRAY("
            f"SELECT {order} FROM {table} WHERE object_id = %(object)s AND lease = %(lease)s LIMIT %(limit)s))",
            {"object": object_id, "lease": lease, "limit": limit - deleted},
        ).rowcount
    return deleted


def give_back(tx: Transaction, lease: int, lost: int | None) -> None:
    """As `Ledger.give_back`."""
    tx.execute("SELECT 1 FROM leases WHERE id = %s FOR UPDATE", (lease,))
    if lost is not None:
        _child_died(tx, lease, lost)
    end_leases(tx, "id = %s", (lease,), lost=False, wait=True)


def _child_died(tx: Transaction, lease: int, object_id: int) -> None:
    # `lost` is 1 for a suspect whose worker was lost, and rises from there with each child of its own.
    counted = tx.rows(
        "UPDATE objects SET lost = greatest(lost, 1) + 1, attempts = attempts + 1 WHERE id = %s AND lease = %s"
        " RETURNING lost - 1, source_id",
        (object_id, lease),
    )
    if not counted:
        return
    ((died, source_id),) = counted
    write_history(tx, [(object_id, tx.at, "child_died", text_of({"lease": lease, "died": died}))])
    if died < LOST_WORKERS_LIMIT:
        return
    reason = worker_lost(died)
    tx.execute(
        "UPDATE objects SET state = 'failed', lease = NULL, lost = 0, redo = false, code = %s, reason = %s,"
        " finished_at = clock_timestamp() WHERE id = %s",
        (reason.code, reason_text(reason), object_id),
    )
    for name, n in (("claimed", -1), ("failed", 1), ("finished", 1)):
        tx.count(source_id, name, n)
    standings.take(tx, source_id, [Outcome(object_id, "failed", reason=reason)])


def sweep(tx: Transaction, limit: int) -> int:
    """As `Ledger.sweep`."""
    tx.execute(
        "DELETE FROM passes WHERE id = ANY(ARRAY(SELECT id FROM (SELECT id, row_number() OVER"
        " (PARTITION BY source_id ORDER BY id DESC) AS age FROM passes) AS p WHERE age > %s))",
        (PASSES_KEPT,),
    )
    tx.execute(
        "DELETE FROM workers WHERE until < clock_timestamp() - make_interval(secs => %s)", (WORKERS_KEPT_SECONDS,)
    )
    found = tx.rows(
        "SELECT object_id, lease, state FROM imports AS i WHERE state IN ('staged', 'discarded')"
        " AND NOT EXISTS (SELECT 1 FROM leases AS l WHERE l.id = i.lease) LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    if not found:
        return 0
    ((object_id, lease, state),) = found
    deleted = _delete_rows(tx, object_id, lease, limit, rejected=state == "staged")
    if deleted < limit:
        tx.execute("DELETE FROM imports WHERE object_id = %s AND lease = %s", (object_id, lease))
    return deleted + 1
