"""What senders write of their batches on PostgreSQL, each function in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import DataRefused
from pipeline.ledger.deliveries import (
    FOLLOWED_SECONDS,
    REFUSALS_PAUSE,
    SENT_DAYS,
    Batch,
    Failure,
    Grant,
    Taken,
    backoff,
)
from pipeline.sinks.outboxes import whole
from pipeline.sinks.postgres.database import Transaction, array, columns
from pipeline.sinks.postgres.granting import OPEN, SETTLES, insert

# The delivery stands in the list, too: as a number of its own it would be all that is looked up in the index.
_TOLD = (
    "FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) AS u (delivery, task, told)"
    " WHERE x.delivery_id = ANY(ARRAY[u.delivery]) AND x.task_id = u.task"
)


def held(tx: Transaction, delivery: int, lease: int) -> bool:
    """Whether a grant is started and has not ended. What ends it waits until this transaction is over."""
    return bool(
        tx.rows(
            "SELECT 1 FROM deliveries WHERE id = %s AND lease = %s AND started AND until IS NOT NULL FOR UPDATE",
            (delivery, lease),
        )
    )


def start(tx: Transaction, which: tuple[int, int], worker: str, seconds: float) -> Grant | None:
    """As `Deliveries.start`, for `which` delivery and grant."""
    delivery, lease = which
    rows = tx.rows(
        "UPDATE deliveries SET started = true, worker = %s, until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s AND lease = %s AND NOT started AND until > clock_timestamp() RETURNING what, stamp, refusals",
        (worker, seconds, delivery, lease),
    )
    if not rows:
        return None
    # Whoever was filling a batch is gone; what is in it is fixed.
    tx.execute("DELETE FROM batches WHERE delivery_id = %s AND state = 'filling' AND tasks = 0", (delivery,))
    tx.execute("UPDATE batches SET state = 'ready' WHERE delivery_id = %s AND state = 'filling'", (delivery,))
    found = tx.rows(
        "SELECT id, state, tasks, handle, coalesce(settled_at <= clock_timestamp(), false), looks,"
        " coalesce(settled_at <= clock_timestamp() - make_interval(secs => %s), false)"
        f" FROM batches WHERE id = (SELECT {OPEN.format('b.id')} FROM deliveries AS d WHERE d.id = %s)",
        (FOLLOWED_SECONDS, delivery),
    )
    ((what, stamp, refusals),) = rows
    batch = Batch(*found[0]) if found else None
    number = _number(tx) if what == "change" else 0
    return Grant(delivery, lease, what, stamp, batch, probe=refusals >= REFUSALS_PAUSE, number=number)


def _number(tx: Transaction) -> int:
    """A number of the batches' sequence that no batch has."""
    ((number,),) = tx.rows("SELECT nextval(pg_get_serial_sequence('batches', 'id'))")
    return int(number)


def begin(tx: Transaction, delivery: int, lease: int) -> int | None:
    """As `Deliveries.begin`."""
    if not held(tx, delivery, lease):
        return None
    ((batch,),) = tx.rows(
        "INSERT INTO batches (delivery_id, state, created_at) VALUES (%s, 'filling', clock_timestamp()) RETURNING id",
        (delivery,),
    )
    return int(batch)


def rest(tx: Transaction, delivery: int) -> None:
    """As `Deliveries.rest`, under a grant that holds."""
    tx.execute("DELETE FROM batches WHERE delivery_id = %s AND ended_at IS NULL AND tasks = 0", (delivery,))
    tx.execute("UPDATE deliveries SET until = NULL WHERE id = %s", (delivery,))


def take(tx: Transaction, which: tuple[int, int], taken: Taken, seconds: float) -> None:
    """As `Deliveries.take`, for `which` delivery and batch, under a grant that holds."""
    delivery, batch = which
    members: list[tuple[object, ...]] = [(item.id, batch, item.revision, "batched", None) for item in taken.members]
    members += [(item.id, 0, item.revision, "refused", taken.refused[item.id]) for item in taken.refused_items]
    if members:
        _add(tx, delivery, members)
    tx.execute(
        "UPDATE batches SET tasks = tasks + %s, bytes = bytes + %s WHERE id = %s",
        (len(taken.members), taken.bytes, batch),
    )
    tx.execute(
        "UPDATE deliveries SET refused = refused + %s,"
        " until = greatest(until, clock_timestamp() + make_interval(secs => %s)) WHERE id = %s",
        (len(taken.refused_items), seconds, delivery),
    )
    for pending, ids in (("update", taken.updates), ("delete", taken.deletions)):
        if ids:
            tx.execute(
                # Of what was to be deleted it is not known whether it is there, also where it was kept (revision 0).
                "UPDATE delivered SET pending = CASE WHEN revision = 0 THEN 'delete' ELSE %s END"
                " WHERE delivery_id = %s AND task_id = ANY(%s::bigint[])"
                " AND pending IS DISTINCT FROM 'delete'",
                (pending, delivery, array(ids)),
            )
    tx.execute("UPDATE outbox SET done_at = clock_timestamp() WHERE id = ANY(%s::bigint[])", (array(taken.rows),))
    if taken.cursor is not None:
        row, lease, position = taken.cursor
        tx.execute(
            "UPDATE outbox SET tasks = CASE WHEN to_lease = %(lease)s THEN to_position - %(position)s ELSE tasks END,"
            " lease = %(lease)s, position = %(position)s WHERE id = %(row)s",
            {"lease": lease, "position": position, "row": row},
        )


def _add(tx: Transaction, delivery: int, members: Sequence[tuple[object, ...]]) -> None:
    written = tx.execute(
        "INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state, reason)"
        " SELECT %s, u.* FROM unnest(%s::bigint[], %s::bigint[], %s::integer[], %s::text[], %s::text[]) AS u"
        " ON CONFLICT (delivery_id, task_id) DO UPDATE SET batch_id = excluded.batch_id,"
        " revision = excluded.revision, state = excluded.state, reason = excluded.reason, pending = NULL,"
        " remote_id = NULL WHERE delivered.state IN ('deleted', 'refused')",
        (delivery, *columns(members, 5)),
    ).rowcount
    if written != len(members):
        raise DataRefused("a task would be delivered twice: this is an error in Labelfeed")


def split(tx: Transaction, delivery: int, batch: int, keep: Sequence[int]) -> None:
    """Move the tasks of a batch that are not to be kept in it into a new one."""
    rest_of = sorted(
        {row[0] for row in tx.rows("SELECT task_id FROM delivered WHERE batch_id = %s AND state = 'batched'", (batch,))}
        - set(keep)
    )
    if not rest_of:
        return
    ((made,),) = tx.rows(
        "INSERT INTO batches (delivery_id, state, tasks, created_at) VALUES (%s, 'ready', %s, clock_timestamp())"
        " RETURNING id",
        (delivery, len(rest_of)),
    )
    tx.execute(
        "UPDATE delivered SET batch_id = %s WHERE delivery_id = %s AND task_id = ANY(%s::bigint[])",
        (made, delivery, array(rest_of)),
    )
    tx.execute("UPDATE batches SET tasks = tasks - %s WHERE id = %s", (len(rest_of), batch))


def remember(tx: Transaction, delivery: int, rows: Sequence[tuple[int, str]]) -> None:
    """The remote has these tasks by these ids. They are counted at once: whoever goes on for a sender that was killed
    here finds only those that are not."""
    done = tx.execute(
        f"UPDATE delivered AS x SET state = 'done', reason = NULL, remote_id = u.told {_TOLD} AND x.state = 'batched'",
        _told(delivery, rows),
    ).rowcount
    tx.execute("UPDATE deliveries SET delivered = delivered + %s WHERE id = %s", (done, delivery))


def _told(delivery: int, rows: Iterable[tuple[int, str]]) -> list[str]:
    return columns([(delivery, *row) for row in rows], 3)


def arrived(tx: Transaction, delivery: int, batch: int, remote: Mapping[int, str]) -> None:
    """The end of `Deliveries.arrived`, under a grant that holds."""
    split(tx, delivery, batch, list(remote))
    tx.execute("UPDATE batches SET state = 'done', ended_at = clock_timestamp() WHERE id = %s", (batch,))
    tx.execute(
        "UPDATE deliveries SET until = NULL, ended_at = clock_timestamp(), failing = 0, refusals = 0, code = NULL,"
        " reason = NULL, since = NULL, due = 'epoch' WHERE id = %s",
        (delivery,),
    )


def sending(tx: Transaction, delivery: int, batch: int, seconds: float, settle: float) -> None:
    """As `Deliveries.sending`, under a grant that holds."""
    tx.execute(
        "UPDATE batches SET state = 'sending', tries = tries + 1, looks = 0, handle = NULL,"
        " sent_at = clock_timestamp(), settled_at = clock_timestamp() + make_interval(secs => %s) WHERE id = %s",
        (settle, batch),
    )
    tx.execute(
        "UPDATE deliveries SET imports = imports + 1, until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s",
        (seconds, delivery),
    )


def named(tx: Transaction, delivery: int, batch: int, handle: str, seconds: float) -> None:
    """As `Deliveries.named`, under a grant that holds."""
    tx.execute("UPDATE batches SET handle = %s WHERE id = %s", (handle, batch))
    tx.execute(
        "UPDATE deliveries SET until = greatest(until, clock_timestamp() + make_interval(secs => %s)) WHERE id = %s",
        (seconds, delivery),
    )


def refuse(tx: Transaction, delivery: int, batch: int, reasons: Mapping[int, str], *, sent: bool) -> None:
    """As `Deliveries.refuse`, under a grant that holds."""
    if reasons:
        tx.execute(
            f"UPDATE delivered AS x SET state = 'refused', reason = u.told {_TOLD} AND x.batch_id = %s",
            (*_told(delivery, reasons.items()), batch),
        )
        _look_again(tx, delivery, list(reasons))
    tx.execute(
        "UPDATE batches SET tasks = tasks - %(n)s, state = CASE WHEN tasks > %(n)s THEN 'ready' ELSE 'refused' END,"
        " ended_at = CASE WHEN tasks > %(n)s THEN NULL ELSE clock_timestamp() END WHERE id = %(batch)s",
        {"n": len(reasons), "batch": batch},
    )
    ((refusals,),) = tx.connection.execute(
        "UPDATE deliveries SET until = NULL, ended_at = CASE WHEN %(sent)s THEN clock_timestamp() ELSE ended_at END,"
        " refused = refused + %(n)s, refusals = refusals + %(n)s WHERE id = %(delivery)s RETURNING refusals",
        {"sent": sent, "n": len(reasons), "delivery": delivery},
    ).fetchall()
    if reasons and refusals >= REFUSALS_PAUSE:
        why = next(iter(reasons.values()))
        message = f"{refusals} tasks were refused one after another, the last one so: {why}"
        fail(tx, delivery, Failure("refused", message), ended=False, wait=True)


def _look_again(tx: Transaction, delivery: int, tasks: Sequence[int]) -> None:
    """Of refused tasks that have changed since they were given to the batch, the new version may be taken."""
    rows = tx.rows(
        "SELECT t.object_id, count(*)::integer FROM delivered AS x JOIN task_rows AS t ON t.id = x.task_id"
        " WHERE x.delivery_id = %s AND x.task_id = ANY(%s::bigint[]) AND x.state = 'refused' AND x.pending IS NOT NULL"
        " GROUP BY t.object_id",
        (delivery, array(tasks)),
    )
    insert(tx, delivery, [whole(object_id, count) for object_id, count in rows])
    tx.execute(
        "UPDATE delivered SET pending = NULL WHERE delivery_id = %s AND task_id = ANY(%s::bigint[])"
        " AND state = 'refused' AND pending IS NOT NULL",
        (delivery, array(tasks)),
    )


def fail(tx: Transaction, delivery: int, failure: Failure, *, ended: bool, wait: bool) -> None:
    """Note a failure, and end the grant; what was being sent is to be looked for. `ended`: an import has ended by it,
    as it has where one was being sent; with `wait` nothing is begun for a while."""
    ((failing,),) = tx.rows("SELECT failing FROM deliveries WHERE id = %s", (delivery,))
    lost = tx.execute(
        f"UPDATE batches SET state = 'unsure', look_due = clock_timestamp(), {SETTLES}"
        " WHERE delivery_id = %s AND state = 'sending'",
        (delivery,),
    ).rowcount
    pause = backoff(failing + 1, failure.retry_after) if wait or failure.retry_after else 0.0
    tx.execute(
        "UPDATE deliveries SET until = NULL, failing = failing + 1, code = %s, reason = %s,"
        " since = coalesce(since, clock_timestamp()), due = clock_timestamp() + make_interval(secs => %s),"
        " ended_at = CASE WHEN %s THEN clock_timestamp() ELSE ended_at END WHERE id = %s",
        (failure.code, failure.message.replace("\x00", ""), pause, ended or lost > 0, delivery),
    )


def unsure(tx: Transaction, delivery: int, batch: int, failure: Failure, look: tuple[str | None, float]) -> None:
    """As `Deliveries.unsure`, under a grant that holds; `look` is the handle, and seconds until the first look."""
    tx.execute(
        f"UPDATE batches SET state = 'unsure', {SETTLES}, handle = coalesce(%s, handle),"
        " look_due = clock_timestamp() + make_interval(secs => %s)"
        " WHERE id = %s",
        (*look, batch),
    )
    fail(tx, delivery, failure, ended=True, wait=False)


def absent(tx: Transaction, delivery: int, batch: Batch, pause: float) -> None:
    """As `Deliveries.absent`, under a grant that holds; the next look is in `pause` seconds."""
    tx.execute(
        "UPDATE batches SET state = CASE WHEN %s THEN 'ready' ELSE state END, looks = looks + 1,"
        " look_due = least(clock_timestamp() + make_interval(secs => %s), settled_at) WHERE id = %s",
        (batch.settled, pause, batch.id),
    )
    tx.execute("UPDATE deliveries SET until = NULL WHERE id = %s", (delivery,))


def retry(tx: Transaction, delivery: int) -> int:
    """As `Deliveries.retry`."""
    # What a sender sets aside from here on would be deleted, and not be in the outbox: it waits in `held`.
    tx.execute("SELECT 1 FROM deliveries WHERE id = %s FOR UPDATE", (delivery,))
    rows = tx.rows(
        "SELECT t.object_id, count(*)::integer FROM delivered AS x JOIN task_rows AS t ON t.id = x.task_id"
        " WHERE x.delivery_id = %s AND x.state = 'refused' GROUP BY t.object_id",
        (delivery,),
    )
    put = tx.execute("DELETE FROM delivered WHERE delivery_id = %s AND state = 'refused'", (delivery,)).rowcount
    insert(tx, delivery, [whole(object_id, tasks) for object_id, tasks in rows])
    tx.execute(
        "UPDATE deliveries SET refused = refused - %s, refusals = 0, failing = 0, due = 'epoch' WHERE id = %s",
        (put, delivery),
    )
    return put


def sweep(tx: Transaction, limit: int) -> int:
    """As `Deliveries.sweep`."""
    # A row may be older than that and its batch still be on its way.
    deleted = tx.execute(
        "DELETE FROM outbox WHERE id = ANY(ARRAY(SELECT o.id FROM outbox AS o"
        " WHERE o.done_at < clock_timestamp() - make_interval(days => %s) AND NOT EXISTS"
        " (SELECT 1 FROM batches AS b WHERE b.delivery_id = o.delivery_id AND b.ended_at IS NULL"
        " AND b.created_at <= o.done_at) LIMIT %s))",
        (SENT_DAYS, limit),
    ).rowcount
    deleted += tx.execute(
        "DELETE FROM batches WHERE id = ANY(ARRAY(SELECT id FROM batches"
        " WHERE ended_at < clock_timestamp() - make_interval(days => %s) LIMIT %s))",
        (SENT_DAYS, limit),
    ).rowcount
    return deleted
