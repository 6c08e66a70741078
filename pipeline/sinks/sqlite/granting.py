"""The outbox and the grants of deliveries on SQLite: what commits and the scheduler's tick write."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from pipeline.ledger.deliveries import DeliveryLoad, Granted, Step
from pipeline.ledger.labelling import COUNT_SECONDS
from pipeline.sinks.outboxes import Range, whole
from pipeline.sinks.sqlite import clock
from pipeline.sinks.sqlite.owners import LOCAL, Owners
from pipeline.sqlitefile import now, uptime, write_rows

_INSERT = "INSERT INTO outbox (delivery_id, object_id, lease, position, to_lease, to_position, tasks, at) VALUES {rows}"
_ROW = "(?,?,?,?,?,?,?,?)"
OPEN = (
    "(SELECT {} FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL"
    " ORDER BY b.state IN ('sending', 'unsure') DESC, b.id LIMIT 1)"
)
"""Something of a delivery's oldest open batch; one whose arrival is unknown comes before all others."""
SETTLES = "settled_at = ?3 + (settled_at - sent_at)"
"""From now on (`?3`) a batch has the time to settle that was noted, from its start, when it was sent."""
CHANGES = (
    "EXISTS (SELECT 1 FROM delivered AS x INDEXED BY delivered_pending"
    " WHERE x.delivery_id = d.id AND x.pending IS NOT NULL AND x.state = 'done')"
)
"""Whether a delivery has changes to make. SQLite would rather walk over all that was ever delivered."""


def to_outbox(connection: sqlite3.Connection, source_id: int, ranges: Iterable[Range]) -> None:
    """Tell the deliveries of a source's project, where it has any."""
    found = connection.execute(
        "SELECT d.id FROM deliveries AS d JOIN sources AS s ON s.project_id = d.project_id"
        " WHERE s.id = ? AND d.retired = 0",
        (source_id,),
    ).fetchall()
    if found:
        told = list(ranges)
        for (delivery,) in found:
            insert(connection, delivery, told)


def insert(connection: sqlite3.Connection, delivery: int, ranges: Sequence[Range]) -> None:
    """Write rows of one delivery's outbox."""
    at = now()
    write_rows(connection, _INSERT, _ROW, [(delivery, *row, at) for row in ranges])


class SqliteDeliveryTick:
    """`pipeline.ledger.deliveries.DeliveryTick` inside the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection, boot: str, owners: Owners) -> None:
        self._connection = connection
        self._boot = boot
        self._owners = owners

    def expire(self, epoch: str) -> int:
        """As `DeliveryTick.expire`."""
        held = self._connection.execute(
            "SELECT id, started, epoch, boot <> ? OR until < ? FROM deliveries WHERE until IS NOT NULL",
            (self._boot, uptime()),
        ).fetchall()
        ended = 0
        for delivery, started, holder, over in held:
            if over or self._gone(holder, epoch, started=bool(started)):
                self._end(delivery)
                ended += 1
        return ended

    def _gone(self, holder: str, epoch: str, *, started: bool) -> bool:
        if holder == epoch:
            return False
        if holder.startswith(LOCAL):
            return self._owners.dead(holder)
        return not started and not epoch.startswith(LOCAL)

    def _end(self, delivery: int) -> None:
        at = clock.kept(self._connection)
        lost = self._connection.execute(
            f"UPDATE batches SET state = 'unsure', look_due = ?3, {SETTLES}"
            " WHERE delivery_id = ?1 AND state = 'sending'",
            (delivery, None, at),
        ).rowcount
        self._connection.execute(
            "UPDATE deliveries SET until = NULL, ended_at = CASE WHEN ? THEN ? ELSE ended_at END WHERE id = ?",
            (lost, at, delivery),
        )

    def now(self) -> float:
        """As `DeliveryTick.now`."""
        return clock.begun(self._connection)

    def load(self) -> list[DeliveryLoad]:
        """As `DeliveryTick.load`."""
        rows = self._connection.execute(
            "SELECT d.id, p.name || '/' || d.name, d.until IS NOT NULL,"
            " d.paused_at IS NOT NULL OR p.paused IS NOT NULL, d.due, d.ended_at,"
            f" {OPEN.format('b.state')}, coalesce({OPEN.format('b.look_due')}, 0),"
            " EXISTS (SELECT 1 FROM outbox AS o WHERE o.delivery_id = d.id AND o.done_at IS NULL),"
            f" {CHANGES}, d.what, d.started, d.retired, coalesce(d.count_due, 0)"
            " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id"
        )
        return [
            DeliveryLoad(
                id=row[0], name=row[1], granted=bool(row[2]), paused=bool(row[3]), due=row[4], ended_at=row[5],
                batch=row[6], look_due=row[7], waiting=bool(row[8]), changes=bool(row[9]), last=row[10],
                started=bool(row[11]), retired=bool(row[12]), count_due=row[13],
            )
            for row in rows
        ]  # fmt: skip

    def workers(self) -> bool:
        """As `DeliveryTick.workers`."""
        found = self._connection.execute(
            "SELECT 1 FROM workers WHERE threads > 0 AND boot = ? AND until > ? LIMIT 1", (self._boot, uptime())
        )
        return found.fetchone() is not None

    def grant(self, delivery: DeliveryLoad, step: Step, epoch: str, seconds: float) -> Granted:
        """As `DeliveryTick.grant`."""
        (lease,) = self._connection.execute(
            "UPDATE deliveries SET lease = lease + 1, what = ?, epoch = ?, boot = ?, until = ?, started = 0,"
            # Nobody may start it: something else has its turn before the next one.
            " count_due = CASE WHEN ? = 'count' THEN ? ELSE count_due END WHERE id = ? RETURNING lease",
            (step, epoch, self._boot, uptime() + seconds, step, self.now() + seconds + COUNT_SECONDS, delivery.id),
        ).fetchone()
        return Granted(delivery.id, lease, delivery.name)

    def backfill(self, limit: int) -> int:
        """As `DeliveryTick.backfill`."""
        found = self._connection.execute(
            "SELECT id, project_id, backfill FROM deliveries WHERE backfill IS NOT NULL AND retired = 0 LIMIT 1"
        ).fetchone()
        if found is None:
            return 0
        delivery, project, after = found
        rows = self._connection.execute(
            "SELECT o.id, o.tasks FROM objects AS o JOIN sources AS s ON s.id = o.source_id"
            " WHERE o.id > ? AND s.project_id = ? ORDER BY o.id LIMIT ?",
            (after, project, limit),
        ).fetchall()
        insert(self._connection, delivery, [whole(object_id, tasks) for object_id, tasks in rows if tasks])
        reached = rows[-1][0] if len(rows) == limit else None
        self._connection.execute("UPDATE deliveries SET backfill = ? WHERE id = ?", (reached, delivery))
        return len(rows)
