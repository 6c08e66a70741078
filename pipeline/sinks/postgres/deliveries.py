"""Deliveries on PostgreSQL: their registration, what their senders write, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.ledger.deliveries import (
    PAGE_TASKS,
    Batch,
    Change,
    Changed,
    DeliveryIdentity,
    DeliveryRow,
    Failure,
    Grant,
    Item,
    Page,
    Taken,
    look_pause,
)
from pipeline.sinks.postgres import batching, changing, paging, projects, registering
from pipeline.sinks.postgres.database import LOOKING_UP, Database, Transaction
from pipeline.sinks.postgres.granting import CHANGES, OPEN


class PostgresDeliveries:
    """`pipeline.ledger.deliveries.Deliveries` in a PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, deliveries: Sequence[DeliveryIdentity], *, keep: bool = False) -> list[DeliveryRow]:
        """As `Deliveries.register`."""
        return self._database.write(lambda tx: registering.register(tx, deliveries, keep=keep))

    def remember_config(self, delivery: int, xml: str) -> None:
        """As `Deliveries.remember_config`."""
        self._database.write(
            lambda tx: tx.execute("UPDATE deliveries SET label_config = %s WHERE id = %s", (xml, delivery))
        )

    def start(self, delivery: int, lease: int, worker: str, seconds: float) -> Grant | None:
        """As `Deliveries.start`."""
        return self._database.write(lambda tx: batching.start(tx, (delivery, lease), worker, seconds))

    def renew(self, delivery: int, lease: int, seconds: float) -> bool:
        """As `Deliveries.renew`."""
        statement = (
            "UPDATE deliveries SET until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE id = %s AND lease = %s AND until IS NOT NULL"
        )
        return self._database.write(lambda tx: tx.execute(statement, (seconds, delivery, lease)).rowcount == 1)

    def peek(self, delivery: int, limit: int) -> Page:
        """As `Deliveries.peek`."""
        return self._database.write(lambda tx: paging.peek(tx, delivery, limit))

    def begin(self, delivery: int, lease: int) -> int | None:
        """As `Deliveries.begin`."""
        return self._database.write(lambda tx: batching.begin(tx, delivery, lease))

    def take(self, delivery: int, lease: int, batch: int, taken: Taken, seconds: float) -> bool:
        """As `Deliveries.take`."""
        return self._under(delivery, lease, lambda tx: batching.take(tx, (delivery, batch), taken, seconds))

    def items(self, batch: int, after: int, limit: int) -> list[Item]:
        """As `Deliveries.items`."""
        return self._database.read(lambda tx: paging.items(tx, batch, after, limit), LOOKING_UP)

    def split(self, delivery: int, lease: int, batch: int, keep: Sequence[int]) -> bool:
        """As `Deliveries.split`."""
        return self._under(delivery, lease, lambda tx: batching.split(tx, delivery, batch, keep))

    def sending(self, delivery: int, lease: int, batch: int, seconds: float, settle: float) -> bool:
        """As `Deliveries.sending`."""
        return self._under(delivery, lease, lambda tx: batching.sending(tx, delivery, batch, seconds, settle))

    def named(self, delivery: int, lease: int, batch: int, handle: str, seconds: float) -> bool:
        """As `Deliveries.named`."""
        return self._under(delivery, lease, lambda tx: batching.named(tx, delivery, batch, handle, seconds))

    def arrived(self, delivery: int, lease: int, batch: int, remote: Mapping[int, str]) -> bool:
        """As `Deliveries.arrived`."""
        pairs = sorted(remote.items())
        for first in range(0, len(pairs), PAGE_TASKS):
            write = partial(batching.remember, delivery=delivery, rows=pairs[first : first + PAGE_TASKS])
            if not self._under(delivery, lease, write):
                return False
        return self._under(delivery, lease, lambda tx: batching.arrived(tx, delivery, batch, remote))

    def refuse(self, delivery: int, lease: int, batch: int, reasons: Mapping[int, str], *, sent: bool = True) -> bool:
        """As `Deliveries.refuse`."""
        return self._under(delivery, lease, lambda tx: batching.refuse(tx, delivery, batch, reasons, sent=sent))

    def unsure(self, delivery: int, lease: int, batch: int, failure: Failure, handle: str | None) -> bool:
        """As `Deliveries.unsure`."""
        look = (handle, look_pause(0))
        return self._under(delivery, lease, lambda tx: batching.unsure(tx, delivery, batch, failure, look))

    def absent(self, delivery: int, lease: int, batch: Batch) -> bool:
        """As `Deliveries.absent`."""
        return self._under(delivery, lease, lambda tx: batching.absent(tx, delivery, batch, look_pause(batch.looks)))

    def failed(self, delivery: int, lease: int, batch: int | None, failure: Failure, *, sent: bool) -> bool:
        """As `Deliveries.failed`."""

        def write(tx: Transaction) -> None:
            if batch is not None:
                tx.execute("UPDATE batches SET state = 'ready' WHERE id = %s AND state = 'sending'", (batch,))
            batching.fail(tx, delivery, failure, ended=sent, wait=True)

        return self._under(delivery, lease, write)

    def rest(self, delivery: int, lease: int) -> bool:
        """As `Deliveries.rest`."""
        return self._under(delivery, lease, lambda tx: batching.rest(tx, delivery))

    def changes(self, delivery: int, limit: int, after: int = 0) -> list[Change]:
        """As `Deliveries.changes`."""
        return self._database.read(lambda tx: paging.changes(tx, delivery, limit, after), LOOKING_UP)

    def changed(
        self, delivery: int, lease: int, outcomes: Mapping[int, Changed], failure: Failure | None = None
    ) -> bool:
        """As `Deliveries.changed`."""

        def write(tx: Transaction) -> None:
            changing.changed(tx, delivery, outcomes)
            if failure is not None:
                batching.fail(tx, delivery, failure, ended=False, wait=True)

        return self._under(delivery, lease, write)

    def counted(self, delivery: int, lease: int, found: int | Failure | None) -> bool:
        """As `Deliveries.counted`."""
        return self._under(delivery, lease, lambda tx: projects.counted(tx, delivery, found))

    def pause(self, delivery: int) -> None:
        """As `Deliveries.pause`."""
        statement = "UPDATE deliveries SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE id = %s"
        self._database.write(lambda tx: tx.execute(statement, (delivery,)))

    def resume(self, delivery: int) -> None:
        """As `Deliveries.resume`."""
        statement = "UPDATE deliveries SET paused_at = NULL, due = 'epoch', failing = 0, refusals = 0 WHERE id = %s"
        self._database.write(lambda tx: tx.execute(statement, (delivery,)))

    def retry(self, delivery: int) -> int:
        """As `Deliveries.retry`."""
        return self._database.write(lambda tx: batching.retry(tx, delivery))

    def report(self) -> list[dict[str, Any]]:
        """As `Deliveries.report`."""
        return self._database.read(
            lambda tx: tx.dicts(
                "SELECT d.id, p.name || '/' || d.name AS name, p.name AS project, d.kind, d.target, d.stamp, d.retired,"
                " extract(epoch FROM coalesce(d.paused_at, p.paused))::float8 AS paused_at, d.failing, d.code,"
                " d.reason, extract(epoch FROM d.since)::float8 AS since, extract(epoch FROM d.due)::float8 AS due,"
                " extract(epoch FROM d.ended_at)::float8 AS ended_at,"
                " d.imports, d.delivered, d.updated, d.deleted, d.kept, d.refused,"
                " (SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id"
                " AND o.done_at IS NULL)::bigint + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b"
                " WHERE b.delivery_id = d.id AND b.ended_at IS NULL)::bigint AS waiting_tasks,"
                f" {CHANGES} OR d.backfill IS NOT NULL AS changes, {OPEN.format('b.state')} AS batch,"
                f" coalesce({OPEN.format('b.tasks')}, 0) AS batch_tasks, d.until IS NOT NULL AS granted, d.what,"
                " d.label_config, d.open_there, d.uncounted"
                " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id ORDER BY p.id, d.id"
            )
        )

    def refused(self, delivery: int, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Deliveries.refused`."""
        return self._database.read(
            lambda tx: tx.dicts(
                "SELECT x.task_id, s.name AS source, o.key, t.row, x.reason FROM delivered AS x"
                " JOIN task_rows AS t ON t.id = x.task_id JOIN objects AS o ON o.id = t.object_id"
                " JOIN sources AS s ON s.id = o.source_id"
                " WHERE x.delivery_id = %s AND x.state = 'refused' AND x.task_id > %s ORDER BY x.task_id LIMIT %s",
                (delivery, after, limit),
            )
        )

    def of_object(self, object_id: int) -> list[dict[str, Any]]:
        """As `Deliveries.of_object`."""
        return self._database.read(
            lambda tx: tx.dicts(
                "SELECT p.name || '/' || d.name AS delivery, coalesce(x.state, 'waiting') AS state,"
                " count(*) AS tasks, max(x.reason) AS reason"
                " FROM task_rows AS t JOIN objects AS o ON o.id = t.object_id"
                " JOIN sources AS s ON s.id = o.source_id JOIN deliveries AS d ON d.project_id = s.project_id"
                " JOIN projects AS p ON p.id = d.project_id"
                " JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live'"
                " LEFT JOIN delivered AS x ON x.delivery_id = d.id AND x.task_id = t.id"
                " WHERE t.object_id = %s AND t.archived_at IS NULL AND NOT d.retired"
                " GROUP BY d.id, p.name, 2 ORDER BY d.id, 2",
                (object_id,),
            )
        )

    def sweep(self, limit: int) -> int:
        """As `Deliveries.sweep`."""
        return self._database.write(lambda tx: batching.sweep(tx, limit))

    def _under(self, delivery: int, lease: int, write: Callable[[Transaction], object]) -> bool:
        """Write under a grant; False if it has ended."""

        def job(tx: Transaction) -> bool:
            held = batching.held(tx, delivery, lease)
            if held:
                write(tx)
            return held

        return self._database.write(job)
