"""`pipeline.ledger.Ledger` on PostgreSQL: each method is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pipeline.errors import DataRefused
from pipeline.events import ObjectEvent
from pipeline.ledger import (
    NOTHING_EXPECTED,
    Committed,
    Effect,
    Known,
    OnChange,
    Outcome,
    Part,
    Pass,
    SourceIdentity,
    SourceRow,
    Tick,
    Work,
)
from pipeline.sinks.postgres import passes, queues, record, schedule, schema, standings, work
from pipeline.sinks.postgres.commit import Batch
from pipeline.sinks.postgres.database import Database, connections_for
from pipeline.sinks.postgres.deliveries import PostgresDeliveries
from pipeline.sinks.postgres.reports import PostgresReports
from pipeline.sinks.postgres.revisions import decide
from pipeline.sinks.postgres.rows import columns_of, task_lines
from pipeline.sinks.postgres.schedule import end_leases
from pipeline.tasks import RejectedRow, Task

T = TypeVar("T")

LEASE_CONNECTIONS = 2
"""Connections that nothing uses but the renewing of leases: the renewer's thread, and a claim that is in doubt."""
LEASE_SILENCE_SECONDS = 15.0
"""A renewal is one row's update: one whose answer was lost is asked again while the lease lasts."""


class PostgresLedger:
    """`pipeline.ledger.Ledger` in the PostgreSQL database at a URL (or any string that libpq takes).

    `workers` are the worker threads that it has connections for, unless `connections` says how many there are at most.
    """

    def __init__(self, url: str, *, workers: int = 0, connections: int | None = None) -> None:
        self._database = Database(url, connections or connections_for(workers))
        # A lease that is not renewed in time cancels its claim, so that this waits for none that commits hold.
        self._leases = Database(url, LEASE_CONNECTIONS, LEASE_SILENCE_SECONDS)

    def made(self) -> bool:
        """As `Ledger.made`."""
        return self._database.read(schema.version) > 0

    def migrate(self) -> None:
        """As `Ledger.migrate`."""
        while not schema.check(self._database.read(schema.version)):
            index = self._database.write(schema.migrate)
            if index is not None:
                self._database.apart(partial(schema.build, index=index))

    def register(
        self, sources: Sequence[SourceIdentity], *, accept: frozenset[str] = frozenset(), keep: bool = False
    ) -> list[SourceRow]:
        """As `Ledger.register`."""
        return self._database.write(lambda tx: schema.register(tx, sources, accept, keep=keep))

    def hold(self, epoch: str) -> None:
        """As `Ledger.hold`; there is nothing to take: other machines could not see a lock of this one."""

    def ping(self) -> str:
        """As `Ledger.ping`."""
        found = self._database.read(schema.version)
        ((server, name),) = self._database.read(
            lambda tx: tx.rows("SELECT current_setting('server_version'), current_database()")
        )
        return f"PostgreSQL {server.split()[0]}, database {name}, schema {found}"

    def close(self) -> None:
        """As `Ledger.close`."""
        self._leases.close()
        self._database.close()

    def positions(self, log: str) -> dict[int, int]:
        """As `Ledger.positions`."""
        return self._database.read(lambda tx: record.known_positions(tx, log))

    def forget_log(self, log: str) -> None:
        """As `Ledger.forget_log`."""
        self._database.write(lambda tx: record.forget_log(tx, log))

    def record(
        self,
        log: str,
        events: Sequence[ObjectEvent],
        positions: Mapping[int, int],
        policy: Mapping[str, OnChange],
        expected: Mapping[int, int] = NOTHING_EXPECTED,
    ) -> dict[Effect, int]:
        """As `Ledger.record`."""
        return self._database.write(lambda tx: record.record(tx, log, events, positions, policy, expected))

    def taken(self, source_id: int) -> str | None:
        """As `Ledger.taken`."""
        return self._database.read(lambda tx: queues.taken(tx, source_id))

    def record_ranges(self, source_id: int, after: str | None, events: Sequence[ObjectEvent]) -> bool:
        """As `Ledger.record_ranges`."""
        return self._database.write(lambda tx: queues.record_ranges(tx, source_id, after, events))

    def tick(self, turn: Callable[[Tick], T]) -> T | None:
        """As `Ledger.tick`."""
        return self._database.write(lambda tx: schedule.tick(tx, turn))

    def unclaim(self, leases: Sequence[int]) -> int:
        """As `Ledger.unclaim`."""
        return self._database.write(
            lambda tx: end_leases(tx, "started_at IS NULL AND id = ANY(%s)", (list(leases),), lost=False, wait=True)
        )

    def start(self, lease: int, worker: str, seconds: float) -> list[Work]:
        """As `Ledger.start`."""
        return self._database.write(lambda tx: work.start(tx, lease, worker, seconds))

    def renew(self, lease: int, seconds: float) -> bool:
        """As `Ledger.renew`."""
        return self._leases.write(lambda tx: work.renew(tx, lease, seconds))

    def stage(
        self, lease: int, object_id: int, first: int, tasks: Sequence[Task], rejected: Sequence[RejectedRow]
    ) -> Callable[[], None]:
        """As `Ledger.stage`. Raises DataRefused."""
        try:
            columns = columns_of(tasks)
            lines = task_lines(columns, object_id, lease, enumerate(tasks, first))
        except UnicodeEncodeError as error:
            raise DataRefused(f"the database refuses the data: {error}") from error
        return lambda: self._database.write(
            lambda tx: work.stage(tx, lease, object_id, first, (columns, lines), rejected)
        )

    def unstage(self, lease: int, object_id: int) -> None:
        """As `Ledger.unstage`; more than one transaction."""
        while self._database.write(lambda tx: work.unstage(tx, lease, object_id)):
            pass

    def commit(self, lease: int, outcomes: Sequence[Outcome]) -> Committed:
        """As `Ledger.commit`."""
        try:
            batch = Batch.of(lease, outcomes)
        except UnicodeEncodeError as error:
            raise DataRefused(f"the database refuses the data: {error}") from error
        return self._database.write(batch.write)

    def give_back(self, lease: int, *, lost: int | None = None) -> None:
        """As `Ledger.give_back`."""
        self._database.write(lambda tx: work.give_back(tx, lease, lost))

    def beat(self, worker: str, threads: int, seconds: float, commits: tuple[int, float] = (0, 0.0)) -> None:
        """As `Ledger.beat`."""
        self._leases.write(lambda tx: work.beat(tx, worker, threads, seconds, commits))

    def sweep(self, limit: int) -> int:
        """As `Ledger.sweep`."""
        return self._database.write(lambda tx: work.sweep(tx, limit))

    def accept_deletions(self, source_id: int) -> None:
        """As `Ledger.accept_deletions`."""
        self._database.write(lambda tx: passes.accept_deletions(tx, source_id))

    def deletions_accepted(self, source_id: int) -> bool:
        """As `Ledger.deletions_accepted`."""
        return self._database.read(lambda tx: passes.deletions_accepted(tx, source_id))

    def lead(self, source_id: int, holder: str, seconds: float) -> bool:
        """As `Ledger.lead`."""
        return self._database.write(lambda tx: passes.lead(tx, source_id, holder, seconds))

    def yield_lead(self, source_id: int, holder: str) -> None:
        """As `Ledger.yield_lead`."""
        self._database.write(lambda tx: passes.yield_lead(tx, source_id, holder))

    def begin_pass(self, source_id: int, previous: Pass | None = None) -> Pass:
        """As `Ledger.begin_pass`."""
        return self._database.write(lambda tx: passes.begin(tx, source_id, previous))

    def note_problem(self, source_id: int, part: Part, problem: tuple[str, str] | None) -> None:
        """As `Ledger.note_problem`."""
        self._database.write(lambda tx: passes.note_problem(tx, source_id, part, problem))

    def last_pass(self, source_id: int) -> Pass | None:
        """As `Ledger.last_pass`."""
        return self._database.read(lambda tx: passes.last(tx, source_id))

    def known(self, source_id: int, after: str | None, upto: str | None, limit: int) -> list[Known]:
        """As `Ledger.known`."""
        return self._database.read(lambda tx: passes.known(tx, source_id, after, upto, limit), passes.BY_KEY)

    def known_keys(self, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """As `Ledger.known_keys`."""
        return self._database.read(lambda tx: record.known_keys(tx, source_id, keys))

    def save_pass(self, state: Pass, gone: Sequence[str], out_of_scope: Sequence[int]) -> None:
        """As `Ledger.save_pass`."""
        self._database.write(lambda tx: passes.save(tx, state, gone, out_of_scope))

    def gone_keys(self, pass_id: int, after: str | None, limit: int) -> list[str]:
        """As `Ledger.gone_keys`."""
        return self._database.read(lambda tx: passes.gone_keys(tx, pass_id, after, limit))

    def end_pass(self, state: Pass) -> None:
        """As `Ledger.end_pass`."""
        self._database.write(lambda tx: passes.end(tx, state))

    def pause(self, source_id: int) -> None:
        """As `Ledger.pause`."""
        self._database.write(lambda tx: standings.pause(tx, source_id))

    def resume(self, source_id: int) -> None:
        """As `Ledger.resume`."""
        self._database.write(lambda tx: standings.resume(tx, source_id))

    def pause_project(self, name: str, *, paused: bool) -> bool:
        """As `Ledger.pause_project`."""
        return self._database.write(lambda tx: standings.pause_project(tx, name, paused=paused))

    def decide(self, ids: Sequence[int], *, accept: bool) -> dict[int, str]:
        """As `Ledger.decide`."""
        return self._database.write(lambda tx: decide(tx, ids, accept=accept))

    def deliveries(self) -> PostgresDeliveries:
        """As `Ledger.deliveries`."""
        return PostgresDeliveries(self._database)

    def now(self) -> float:
        """As `Ledger.now`."""
        return self._database.read(lambda tx: tx.at)

    def reports(self) -> PostgresReports:
        """As `Ledger.reports`."""
        return PostgresReports(self._database)
