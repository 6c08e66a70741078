"""Deliveries on SQLite: their registration, what their senders write, and what can be asked of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
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
from pipeline.sinks.sqlite import batching, changing, clock, paging, projects, registering
from pipeline.sinks.sqlite.granting import CHANGES, OPEN, SETTLES
from pipeline.sqlitefile import SqliteFile, now, uptime


class SqliteDeliveries:
    """`pipeline.ledger.deliveries.Deliveries` on a SQLite file."""

    def __init__(self, file: SqliteFile, boot: str) -> None:
        self._file = file
        self._boot = boot

    def register(self, deliveries: Sequence[DeliveryIdentity], *, keep: bool = False) -> list[DeliveryRow]:
        """As `Deliveries.register`."""
        return self._file.write(lambda connection: registering.register(connection, deliveries, keep=keep))

    def remember_config(self, delivery: int, xml: str) -> None:
        """As `Deliveries.remember_config`."""
        self._file.write(
            lambda connection: connection.execute(
                "UPDATE deliveries SET label_config = ? WHERE id = ?", (xml, delivery)
            )
        )

    def start(self, delivery: int, lease: int, worker: str, seconds: float) -> Grant | None:
        """As `Deliveries.start`."""
        until = uptime() + seconds
        return self._file.write(
            lambda connection: batching.start(connection, (delivery, lease), worker, until, self._boot)
        )

    def renew(self, delivery: int, lease: int, seconds: float) -> bool:
        """As `Deliveries.renew`."""
        statement = "UPDATE deliveries SET until = ? WHERE id = ? AND lease = ? AND until IS NOT NULL"
        values = (uptime() + seconds, delivery, lease)
        return self._file.write(lambda connection: connection.execute(statement, values).rowcount == 1)

    def peek(self, delivery: int, limit: int) -> Page:
        """As `Deliveries.peek`."""
        with self._file.read() as connection:
            return paging.peek(connection, delivery, limit)

    def begin(self, delivery: int, lease: int) -> int | None:
        """As `Deliveries.begin`."""
        return self._file.write(lambda connection: batching.begin(connection, delivery, lease))

    def take(self, delivery: int, lease: int, batch: int, taken: Taken, seconds: float) -> bool:
        """As `Deliveries.take`."""
        until = uptime() + seconds
        return self._under(
            delivery, lease, lambda connection: batching.take(connection, (delivery, batch), taken, until)
        )

    def items(self, batch: int, after: int, limit: int) -> list[Item]:
        """As `Deliveries.items`."""
        with self._file.read() as connection:
            return paging.items(connection, batch, after, limit)

    def split(self, delivery: int, lease: int, batch: int, keep: Sequence[int]) -> bool:
        """As `Deliveries.split`."""
        return self._under(delivery, lease, lambda connection: batching.split(connection, delivery, batch, keep))

    def sending(self, delivery: int, lease: int, batch: int, seconds: float, settle: float) -> bool:
        """As `Deliveries.sending`."""

        def mark(connection: sqlite3.Connection) -> None:
            at = clock.kept(connection)
            connection.execute(
                "UPDATE batches SET state = 'sending', tries = tries + 1, looks = 0, handle = NULL, sent_at = ?,"
                " settled_at = ? WHERE id = ?",
                (at, at + settle, batch),
            )
            connection.execute(
                "UPDATE deliveries SET imports = imports + 1, until = ? WHERE id = ?", (uptime() + seconds, delivery)
            )

        return self._under(delivery, lease, mark)

    def named(self, delivery: int, lease: int, batch: int, handle: str, seconds: float) -> bool:
        """As `Deliveries.named`."""
        until = uptime() + seconds

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE batches SET handle = ? WHERE id = ?", (handle, batch))
            connection.execute("UPDATE deliveries SET until = max(until, ?) WHERE id = ?", (until, delivery))

        return self._under(delivery, lease, write)

    def arrived(self, delivery: int, lease: int, batch: int, remote: Mapping[int, str]) -> bool:
        """As `Deliveries.arrived`."""
        pairs = list(remote.items())
        for first in range(0, len(pairs), PAGE_TASKS):
            write = partial(batching.remember, delivery=delivery, rows=pairs[first : first + PAGE_TASKS])
            if not self._under(delivery, lease, write):
                return False

        def end(connection: sqlite3.Connection) -> None:
            batching.split(connection, delivery, batch, list(remote))
            connection.execute("UPDATE batches SET state = 'done', ended_at = ? WHERE id = ?", (now(), batch))
            connection.execute(
                "UPDATE deliveries SET until = NULL, ended_at = ?, failing = 0, refusals = 0, code = NULL,"
                " reason = NULL, since = NULL, due = 0 WHERE id = ?",
                (clock.kept(connection), delivery),
            )

        return self._under(delivery, lease, end)

    def refuse(self, delivery: int, lease: int, batch: int, reasons: Mapping[int, str], *, sent: bool = True) -> bool:
        """As `Deliveries.refuse`."""
        return self._under(
            delivery, lease, lambda connection: batching.refuse(connection, delivery, batch, reasons, sent=sent)
        )

    def unsure(self, delivery: int, lease: int, batch: int, failure: Failure, handle: str | None) -> bool:
        """As `Deliveries.unsure`."""

        def write(connection: sqlite3.Connection) -> None:
            at = clock.kept(connection)
            connection.execute(
                "UPDATE batches SET state = 'unsure', handle = coalesce(?1, handle), look_due = ?2,"
                f" {SETTLES} WHERE id = ?4",
                (handle, at + look_pause(0), at, batch),
            )
            batching.fail(connection, delivery, failure, ended=at, wait=False)

        return self._under(delivery, lease, write)

    def absent(self, delivery: int, lease: int, batch: Batch) -> bool:
        """As `Deliveries.absent`."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE batches SET state = CASE WHEN ?1 THEN 'ready' ELSE state END, looks = looks + 1,"
                " look_due = min(?2, settled_at) WHERE id = ?3",
                (batch.settled, clock.kept(connection) + look_pause(batch.looks), batch.id),
            )
            connection.execute("UPDATE deliveries SET until = NULL WHERE id = ?", (delivery,))

        return self._under(delivery, lease, write)

    def failed(self, delivery: int, lease: int, batch: int | None, failure: Failure, *, sent: bool) -> bool:
        """As `Deliveries.failed`."""

        def write(connection: sqlite3.Connection) -> None:
            if batch is not None:
                connection.execute("UPDATE batches SET state = 'ready' WHERE id = ? AND state = 'sending'", (batch,))
            ended = clock.kept(connection) if sent else None
            batching.fail(connection, delivery, failure, ended=ended, wait=True)

        return self._under(delivery, lease, write)

    def rest(self, delivery: int, lease: int) -> bool:
        """As `Deliveries.rest`."""
        return self._under(delivery, lease, lambda connection: batching.rest(connection, delivery))

    def changes(self, delivery: int, limit: int, after: int = 0) -> list[Change]:
        """As `Deliveries.changes`."""
        with self._file.read() as connection:
            return paging.changes(connection, delivery, limit, after)

    def changed(
        self, delivery: int, lease: int, outcomes: Mapping[int, Changed], failure: Failure | None = None
    ) -> bool:
        """As `Deliveries.changed`."""

        def write(connection: sqlite3.Connection) -> None:
            changing.changed(connection, delivery, outcomes)
            if failure is not None:
                batching.fail(connection, delivery, failure, ended=None, wait=True)

        return self._under(delivery, lease, write)

    def counted(self, delivery: int, lease: int, found: int | Failure | None) -> bool:
        """As `Deliveries.counted`."""
        return self._under(delivery, lease, lambda connection: projects.counted(connection, delivery, found))

    def pause(self, delivery: int) -> None:
        """As `Deliveries.pause`."""
        statement = "UPDATE deliveries SET paused_at = coalesce(paused_at, ?) WHERE id = ?"
        self._file.write(lambda connection: connection.execute(statement, (now(), delivery)))

    def resume(self, delivery: int) -> None:
        """As `Deliveries.resume`."""
        statement = "UPDATE deliveries SET paused_at = NULL, due = 0, failing = 0, refusals = 0 WHERE id = ?"
        self._file.write(lambda connection: connection.execute(statement, (delivery,)))

    def retry(self, delivery: int) -> int:
        """As `Deliveries.retry`."""
        return self._file.write(lambda connection: batching.retry(connection, delivery))

    def report(self) -> list[dict[str, Any]]:
        """As `Deliveries.report`."""
        rows = self._rows(
            "SELECT d.id, p.name || '/' || d.name AS name, p.name AS project, d.kind, d.target, d.stamp, d.retired,"
            " coalesce(d.paused_at, p.paused) AS paused_at, d.failing, d.code, d.reason, d.since, d.due, d.ended_at,"
            " d.imports, d.delivered, d.updated, d.deleted, d.kept, d.refused,"
            " (SELECT coalesce(sum(o.tasks), 0) FROM outbox AS o WHERE o.delivery_id = d.id AND o.done_at IS NULL)"
            " + (SELECT coalesce(sum(b.tasks), 0) FROM batches AS b WHERE b.delivery_id = d.id AND b.ended_at IS NULL)"
            f" AS waiting_tasks, {CHANGES} OR d.backfill IS NOT NULL AS changes, {OPEN.format('b.state')} AS batch,"
            f" coalesce({OPEN.format('b.tasks')}, 0) AS batch_tasks, d.until IS NOT NULL AS granted, d.what,"
            " d.label_config, d.open_there, d.uncounted"
            " FROM deliveries AS d JOIN projects AS p ON p.id = d.project_id ORDER BY p.id, d.id"
        )
        with self._file.read() as connection:
            ahead = clock.ahead(connection)
        return [row | {name: row[name] and row[name] + ahead for name in ("due", "ended_at")} for row in rows]

    def refused(self, delivery: int, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Deliveries.refused`."""
        return self._rows(
            "SELECT x.task_id, s.name AS source, o.key, t.row, x.reason FROM delivered AS x"
            " CROSS JOIN task_rows AS t ON t.id = x.task_id CROSS JOIN objects AS o ON o.id = t.object_id"
            " CROSS JOIN sources AS s ON s.id = o.source_id"
            " WHERE x.delivery_id = ? AND x.state = 'refused' AND x.task_id > ? ORDER BY x.task_id LIMIT ?",
            (delivery, after, limit),
        )

    def of_object(self, object_id: int) -> list[dict[str, Any]]:
        """As `Deliveries.of_object`."""
        return self._rows(
            "SELECT p.name || '/' || d.name AS delivery, coalesce(x.state, 'waiting') AS state, count(*) AS tasks,"
            " max(x.reason) AS reason FROM task_rows AS t JOIN objects AS o ON o.id = t.object_id"
            " JOIN sources AS s ON s.id = o.source_id JOIN deliveries AS d ON d.project_id = s.project_id"
            " JOIN projects AS p ON p.id = d.project_id"
            " JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live'"
            " LEFT JOIN delivered AS x ON x.delivery_id = d.id AND x.task_id = t.id"
            " WHERE t.object_id = ? AND t.archived_at IS NULL AND d.retired = 0 GROUP BY d.id, 2 ORDER BY d.id, 2",
            (object_id,),
        )

    def sweep(self, limit: int) -> int:
        """As `Deliveries.sweep`."""
        return self._file.write(lambda connection: batching.sweep(connection, limit))

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._file.read() as connection:
            cursor = connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _under(self, delivery: int, lease: int, write: Any) -> bool:
        """Write under a grant; False if it has ended."""

        def job(connection: sqlite3.Connection) -> bool:
            held = batching.held(connection, delivery, lease)
            if held:
                write(connection)
            return held

        return self._file.write(job)
