"""What senders write of their batches on SQLite, each function in a transaction of the writer's."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

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
from pipeline.sinks.sqlite import clock
from pipeline.sinks.sqlite.granting import OPEN, SETTLES, insert
from pipeline.sinks.texts import text_of
from pipeline.sqlitefile import now, uptime, write_rows

DAY = 86_400.0

_MEMBERS = (
    "INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state, reason) VALUES {rows}"
    " ON CONFLICT (delivery_id, task_id) DO UPDATE SET batch_id = excluded.batch_id, revision = excluded.revision,"
    " state = excluded.state, reason = excluded.reason, pending = NULL, remote_id = NULL"
    " WHERE delivered.state IN ('deleted', 'refused')"
)
_MEMBER = "(?,?,?,?,?,?)"
_IDS = "(SELECT value FROM json_each(?))"


def held(connection: sqlite3.Connection, delivery: int, lease: int) -> bool:
    """Whether a grant is started and has not ended."""
    return (
        connection.execute(
            "SELECT 1 FROM deliveries WHERE id = ? AND lease = ? AND started AND until IS NOT NULL", (delivery, lease)
        ).fetchone()
        is not None
    )


def start(connection: sqlite3.Connection, which: tuple[int, int], worker: str, until: float, boot: str) -> Grant | None:
    """As `Deliveries.start`, for `which` delivery and grant."""
    delivery, lease = which
    row = connection.execute(
        "UPDATE deliveries SET started = 1, worker = ?, until = ? WHERE id = ? AND lease = ? AND NOT started"
        " AND boot = ? AND until > ? RETURNING what, stamp, refusals",
        (worker, until, delivery, lease, boot, uptime()),
    ).fetchone()
    if row is None:
        return None
    # Whoever was filling a batch is gone; what is in it is fixed.
    connection.execute("DELETE FROM batches WHERE delivery_id = ? AND state = 'filling' AND tasks = 0", (delivery,))
    connection.execute("UPDATE batches SET state = 'ready' WHERE delivery_id = ? AND state = 'filling'", (delivery,))
    found = connection.execute(
        "SELECT id, state, tasks, handle, coalesce(settled_at <= ?1, 0), looks, coalesce(settled_at <= ?1 - ?2, 0)"
        f" FROM batches WHERE id = (SELECT {OPEN.format('b.id')} FROM deliveries AS d WHERE d.id = ?3)",
        (clock.steady(connection), FOLLOWED_SECONDS, delivery),
    ).fetchone()
    batch = None if found is None else Batch._make((*found[:4], bool(found[4]), found[5], bool(found[6])))
    number = _number(connection, delivery) if row[0] == "change" else 0
    return Grant(delivery, lease, row[0], row[1], batch, probe=row[2] >= REFUSALS_PAUSE, number=number)


def begin(connection: sqlite3.Connection, delivery: int, lease: int) -> int | None:
    """As `Deliveries.begin`."""
    if not held(connection, delivery, lease):
        return None
    return _begun(connection, delivery)


def _begun(connection: sqlite3.Connection, delivery: int) -> int:
    batch: int = connection.execute(
        "INSERT INTO batches (delivery_id, state, created_at) VALUES (?, 'filling', ?) RETURNING id", (delivery, now())
    ).fetchone()[0]
    return batch


def _number(connection: sqlite3.Connection, delivery: int) -> int:
    """A number of the batches' sequence that no batch has."""
    number = _begun(connection, delivery)
    connection.execute("DELETE FROM batches WHERE id = ?", (number,))
    return number


def rest(connection: sqlite3.Connection, delivery: int) -> None:
    """As `Deliveries.rest`, under a grant that holds."""
    connection.execute("DELETE FROM batches WHERE delivery_id = ? AND ended_at IS NULL AND tasks = 0", (delivery,))
    connection.execute("UPDATE deliveries SET until = NULL WHERE id = ?", (delivery,))


def take(connection: sqlite3.Connection, which: tuple[int, int], taken: Taken, until: float) -> None:
    """As `Deliveries.take`, for `which` delivery and batch, under a grant that holds."""
    delivery, batch = which
    at = now()
    before = connection.total_changes
    members: list[tuple[object, ...]] = [
        (delivery, item.id, batch, item.revision, "batched", None) for item in taken.members
    ]
    members += [
        (delivery, item.id, 0, item.revision, "refused", taken.refused[item.id]) for item in taken.refused_items
    ]
    write_rows(connection, _MEMBERS, _MEMBER, members)
    if connection.total_changes - before != len(members):
        raise DataRefused("a task would be delivered twice: this is an error in Labelfeed")
    connection.execute(
        "UPDATE batches SET tasks = tasks + ?, bytes = bytes + ? WHERE id = ?",
        (len(taken.members), taken.bytes, batch),
    )
    connection.execute(
        "UPDATE deliveries SET refused = refused + ?, until = max(until, ?) WHERE id = ?",
        (len(taken.refused_items), until, delivery),
    )
    for pending, ids in (("update", taken.updates), ("delete", taken.deletions)):
        connection.executemany(
            # Of what was to be deleted it is not known whether it is there, also where it was kept (revision 0).
            "UPDATE delivered SET pending = CASE WHEN revision = 0 THEN 'delete' ELSE ? END"
            " WHERE delivery_id = ? AND task_id = ? AND pending IS NOT 'delete'",
            [(pending, delivery, task) for task in ids],
        )
    connection.execute(f"UPDATE outbox SET done_at = ? WHERE id IN {_IDS}", (at, text_of(list(taken.rows))))
    if taken.cursor is not None:
        row, lease, position = taken.cursor
        connection.execute(
            "UPDATE outbox SET tasks = CASE WHEN to_lease = ?1 THEN to_position - ?2 ELSE tasks END,"
            " lease = ?1, position = ?2 WHERE id = ?3",
            (lease, position, row),
        )


def split(connection: sqlite3.Connection, delivery: int, batch: int, keep: Sequence[int]) -> None:
    """Move the tasks of a batch that are not to be kept in it into a new one."""
    moved = connection.execute(
        f"SELECT count(*) FROM delivered WHERE batch_id = ? AND state = 'batched' AND task_id NOT IN {_IDS}",
        (batch, text_of(list(keep))),
    ).fetchone()[0]
    if not moved:
        return
    (made,) = connection.execute(
        "INSERT INTO batches (delivery_id, state, tasks, created_at) VALUES (?, 'ready', ?, ?) RETURNING id",
        (delivery, moved, now()),
    ).fetchone()
    connection.execute(
        f"UPDATE delivered SET batch_id = ? WHERE batch_id = ? AND state = 'batched' AND task_id NOT IN {_IDS}",
        (made, batch, text_of(list(keep))),
    )
    connection.execute("UPDATE batches SET tasks = tasks - ? WHERE id = ?", (moved, batch))


def remember(connection: sqlite3.Connection, delivery: int, rows: Sequence[tuple[int, str]]) -> None:
    """The remote has these tasks by these ids. They are counted at once: whoever goes on for a sender that was killed
    here finds only those that are not."""
    before = connection.total_changes
    write_rows(
        connection,
        "UPDATE delivered SET state = 'done', remote_id = v.column2, reason = NULL FROM (VALUES {rows}) AS v"
        f" WHERE delivered.delivery_id = {delivery:d} AND delivered.task_id = v.column1"
        " AND delivered.state = 'batched'",
        "(?,?)",
        rows,
    )
    done = connection.total_changes - before
    connection.execute("UPDATE deliveries SET delivered = delivered + ? WHERE id = ?", (done, delivery))


def refuse(
    connection: sqlite3.Connection, delivery: int, batch: int, reasons: Mapping[int, str], *, sent: bool
) -> None:
    """As `Deliveries.refuse`, under a grant that holds."""
    connection.executemany(
        "UPDATE delivered SET state = 'refused', reason = ? WHERE delivery_id = ? AND task_id = ? AND batch_id = ?",
        [(reason, delivery, task, batch) for task, reason in reasons.items()],
    )
    _look_again(connection, delivery, list(reasons))
    connection.execute(
        "UPDATE batches SET tasks = tasks - ?1, state = CASE WHEN tasks > ?1 THEN 'ready' ELSE 'refused' END,"
        " ended_at = CASE WHEN tasks > ?1 THEN NULL ELSE ?2 END WHERE id = ?3",
        (len(reasons), now(), batch),
    )
    (refusals,) = connection.execute(
        "UPDATE deliveries SET until = NULL, ended_at = CASE WHEN ?1 THEN ?2 ELSE ended_at END,"
        " refused = refused + ?3, refusals = refusals + ?3 WHERE id = ?4 RETURNING refusals",
        (sent, clock.kept(connection), len(reasons), delivery),
    ).fetchone()
    if reasons and refusals >= REFUSALS_PAUSE:
        why = next(iter(reasons.values()))
        message = f"{refusals} tasks were refused one after another, the last one so: {why}"
        fail(connection, delivery, Failure("refused", message), ended=None, wait=True)


def _look_again(connection: sqlite3.Connection, delivery: int, tasks: Sequence[int]) -> None:
    """Of refused tasks that have changed since they were given to the batch, the new version may be taken."""
    rows = connection.execute(
        "SELECT t.object_id, count(*) FROM delivered AS x CROSS JOIN task_rows AS t ON t.id = x.task_id"
        f" WHERE x.delivery_id = ? AND x.task_id IN {_IDS} AND x.state = 'refused' AND x.pending IS NOT NULL"
        " GROUP BY t.object_id",
        (delivery, text_of(list(tasks))),
    ).fetchall()
    insert(connection, delivery, [whole(object_id, count) for object_id, count in rows])
    connection.execute(
        f"UPDATE delivered SET pending = NULL WHERE delivery_id = ? AND task_id IN {_IDS} AND state = 'refused'"
        " AND pending IS NOT NULL",
        (delivery, text_of(list(tasks))),
    )


def fail(connection: sqlite3.Connection, delivery: int, failure: Failure, *, ended: float | None, wait: bool) -> None:
    """Note a failure, and end the grant; what was being sent is to be looked for. `ended` is the end of an import,
    where there was one, and it is now where one was being sent; with `wait` nothing is begun for a while."""
    at = clock.kept(connection)
    (failing,) = connection.execute("SELECT failing FROM deliveries WHERE id = ?", (delivery,)).fetchone()
    lost = connection.execute(
        f"UPDATE batches SET state = 'unsure', look_due = ?3, {SETTLES} WHERE delivery_id = ?1 AND state = 'sending'",
        (delivery, None, at),
    ).rowcount
    due = at + backoff(failing + 1, failure.retry_after) if wait or failure.retry_after else 0.0
    connection.execute(
        "UPDATE deliveries SET until = NULL, failing = failing + 1, code = ?, reason = ?, since = coalesce(since, ?),"
        " due = ?, ended_at = coalesce(?, ended_at) WHERE id = ?",
        (failure.code, failure.message, now(), due, at if lost else ended, delivery),
    )


def retry(connection: sqlite3.Connection, delivery: int) -> int:
    """As `Deliveries.retry`."""
    rows = connection.execute(
        "SELECT t.object_id, count(*) FROM delivered AS x CROSS JOIN task_rows AS t ON t.id = x.task_id"
        " WHERE x.delivery_id = ? AND x.state = 'refused' GROUP BY t.object_id",
        (delivery,),
    ).fetchall()
    put = connection.execute("DELETE FROM delivered WHERE delivery_id = ? AND state = 'refused'", (delivery,)).rowcount
    insert(connection, delivery, [whole(object_id, tasks) for object_id, tasks in rows])
    connection.execute(
        "UPDATE deliveries SET refused = refused - ?, refusals = 0, failing = 0, due = 0 WHERE id = ?", (put, delivery)
    )
    return put


def sweep(connection: sqlite3.Connection, limit: int) -> int:
    """As `Deliveries.sweep`."""
    old = now() - SENT_DAYS * DAY
    # A row may be older than that and its batch still be on its way.
    deleted = connection.execute(
        "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox AS o WHERE o.done_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM batches AS b WHERE b.delivery_id = o.delivery_id AND b.ended_at IS NULL"
        " AND b.created_at <= o.done_at) LIMIT ?)",
        (old, limit),
    ).rowcount
    deleted += connection.execute(
        "DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE ended_at < ? LIMIT ?)", (old, limit)
    ).rowcount
    return deleted
