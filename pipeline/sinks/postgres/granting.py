"""The outbox and the grants of deliveries on PostgreSQL: what commits and the scheduler's tick write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.ledger.deliveries import DeliveryLoad, Granted, Step
from pipeline.ledger.labelling import COUNT_SECONDS
from pipeline.sinks.outboxes import Range, whole
from pipeline.sinks.postgres.database import Transaction, columns

LOCAL = "local:"
"""Epochs of embedded queues begin so; they say nothing to other machines, so their grants just end."""
OPEN = (
    "(SELECT {} FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL"
    " ORDER BY b.state IN ('sending', 'unsure') DESC, b.id LIMIT 1)"
)
"""Something of a delivery's oldest open batch; one whose arrival is unknown comes before all others."""
SETTLES = "settled_at = clock_timestamp() + (settled_at - sent_at)"
"""From now on a batch has the time to settle that was noted, from its start, when it was sent."""
CHANGES = (
    "EXISTS (SELECT 1 FROM delivered AS x WHERE x.delivery_id = d.id AND x.pending IS NOT NULL AND x.state = 'done')"
)


def to_outbox(tx: Transaction, source_id: int, ranges: Iterable[Range]) -> None:
    """Tell the deliveries of a source's project, where it has any."""
    found = tx.rows(
        "SELECT d.id FROM deliveries AS d JOIN sources AS s ON s.project_id = d.project_id"
        " WHERE s.id = %s AND NOT d.retired",
        (source_id,),
    )
    if found:
        told = list(ranges)
        for (delivery,) in found:
            insert(tx, delivery, told)


def insert(tx: Transaction, delivery: int, ranges: Sequence[Range]) -> None:
    """Write rows of one delivery's outbox."""
    if ranges:
        tx.execute(
            "INSERT INTO outbox (delivery_id, object_id, lease, position, to_lease, to_position, tasks, at)"
            " SELECT %s, u.*, clock_timestamp() FROM unnest(%s::bigint[], %s::bigint[], %s::integer[], %s::bigint[],"
            " %s::integer[], %s::integer[]) AS u",
            (delivery, *columns(ranges, 6)),
        )


class PostgresDeliveryTick:
    """`pipeline.ledger.deliveries.DeliveryTick` inside a transaction that holds the scheduler's lock."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def expire(self, epoch: str) -> int:
        """As `DeliveryTick.expire`."""
        flushed = (
            "false" if epoch.startswith(LOCAL) else "NOT started AND epoch <> %(epoch)s AND epoch NOT LIKE 'local:%%'"
        )
        ended = self._tx.connection.execute(
            # Whoever writes under a grant just now is left alone: a turn waits for nobody.
            "UPDATE deliveries SET until = NULL WHERE id = ANY(ARRAY(SELECT id FROM deliveries"
            f" WHERE until < clock_timestamp() OR (until IS NOT NULL AND {flushed}) FOR UPDATE SKIP LOCKED))"
            " RETURNING id",
            {"epoch": epoch},
        ).fetchall()
        if ended:
            self._tx.execute(
                f"WITH lost AS (UPDATE batches SET state = 'unsure', look_due = 'epoch', {SETTLES}"
                " WHERE delivery_id = ANY(%s) AND state = 'sending' RETURNING delivery_id)"
                " UPDATE deliveries SET ended_at = clock_timestamp() WHERE id IN (SELECT delivery_id FROM lost)",
                ([row[0] for row in ended],),
            )
        return len(ended)

    def now(self) -> float:
        """As `DeliveryTick.now`."""
        return self._tx.at

    def load(self) -> list[DeliveryLoad]:
        """As `DeliveryTick.load`."""
        rows = self._tx.rows(
            "SELECT d.id, p.name || '/' || d.name, d.until IS NOT NULL,"
            " d.paused_at IS NOT NULL OR p.paused IS NOT NULL, extract(epoch FROM d.due)::float8,"
            f" extract(epoch FROM d.ended_at)::float8, {OPEN.format('b.state')},"
            f" coalesce(extract(epoch FROM {OPEN.format('b.look_due')})::float8, 0),"
            " EXISTS (SELECT 1 FROM outbox AS o WHERE o.delivery_id = d.id AND o.done_at IS NULL),"
            f" {CHANGES}, d.what, d.started, d.retired, coalesce(extract(epoch FROM d.count_due)::float8, 0)"
            " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id"
        )
        return [DeliveryLoad(*row) for row in rows]

    def workers(self) -> bool:
        """As `DeliveryTick.workers`."""
        return bool(self._tx.rows("SELECT 1 FROM workers WHERE threads > 0 AND until > clock_timestamp() LIMIT 1"))

    def grant(self, delivery: DeliveryLoad, step: Step, epoch: str, seconds: float) -> Granted:
        """As `DeliveryTick.grant`."""
        ((lease,),) = self._tx.rows(
            "UPDATE deliveries SET lease = lease + 1, what = %s, epoch = %s, started = false,"
            " until = clock_timestamp() + make_interval(secs => %s),"
            # Nobody may start it: something else has its turn before the next one.
            " count_due = CASE WHEN %s = 'count' THEN clock_timestamp() + make_interval(secs => %s) ELSE count_due END"
            " WHERE id = %s RETURNING lease",
            (step, epoch, seconds, step, seconds + COUNT_SECONDS, delivery.id),
        )
        return Granted(delivery.id, lease, delivery.name)

    def backfill(self, limit: int) -> int:
        """As `DeliveryTick.backfill`."""
        # Whoever began before the delivery was known may still commit tasks that are not in its outbox.
        found = self._tx.rows(
            "SELECT id, project_id, backfill FROM deliveries WHERE backfill IS NOT NULL AND NOT retired"
            " AND backfill_from < pg_snapshot_xmin(pg_current_snapshot()) LIMIT 1"
        )
        if not found:
            return 0
        ((delivery, project, after),) = found
        rows = self._tx.rows(
            "SELECT o.id, o.tasks FROM objects AS o JOIN sources AS s ON s.id = o.source_id"
            " WHERE o.id > %s AND s.project_id = %s ORDER BY o.id LIMIT %s",
            (after, project, limit),
        )
        insert(self._tx, delivery, [whole(object_id, tasks) for object_id, tasks in rows if tasks])
        reached = rows[-1][0] if len(rows) == limit else None
        self._tx.execute("UPDATE deliveries SET backfill = %s WHERE id = %s", (reached, delivery))
        return len(rows)
