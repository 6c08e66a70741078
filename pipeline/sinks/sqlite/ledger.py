"""`pipeline.ledger.Ledger` on SQLite: each method is one job of the file's writer thread, or one read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

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
from pipeline.sinks.sqlite import commit, leaders, passes, queues, record, schema, standings, work
from pipeline.sinks.sqlite.deliveries import SqliteDeliveries
from pipeline.sinks.sqlite.owners import Owners
from pipeline.sinks.sqlite.reports import SqliteReports
from pipeline.sinks.sqlite.revisions import decide
from pipeline.sinks.sqlite.schedule import SqliteTick, end_leases
from pipeline.sqlitefile import SqliteFile, boot_id, now, uptime
from pipeline.tasks import RejectedRow, Task

T = TypeVar("T")


class SqliteLedger:
    """`pipeline.ledger.Ledger` on a SQLite file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._boot = boot_id()
        self._owners = Owners(file.path)

    def made(self) -> bool:
        """As `Ledger.made`."""
        with self._file.read() as connection:
            return bool(connection.execute("PRAGMA user_version").fetchone()[0])

    def migrate(self) -> None:
        """As `Ledger.migrate`."""
        self._file.write(schema.migrate)

    def register(
        self, sources: Sequence[SourceIdentity], *, accept: frozenset[str] = frozenset(), keep: bool = False
    ) -> list[SourceRow]:
        """As `Ledger.register`."""
        return self._file.write(lambda connection: schema.register(connection, sources, accept, keep=keep))

    def ping(self) -> str:
        """As `Ledger.ping`."""
        with self._file.read() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        return f"SQLite file {self._file.path}, schema {version}"

    def hold(self, epoch: str) -> None:
        """Take the lock that tells other processes that this epoch's process is alive."""
        self._owners.hold(epoch)

    def close(self) -> None:
        """As `Ledger.close`."""
        self._file.close()
        self._owners.close()

    def positions(self, log: str) -> dict[int, int]:
        """As `Ledger.positions`."""
        with self._file.read() as connection:
            return record.known_positions(connection, log)

    def forget_log(self, log: str) -> None:
        """As `Ledger.forget_log`."""
        self._file.write(lambda connection: connection.execute("DELETE FROM positions WHERE log = ?", (log,)))

    def record(
        self,
        log: str,
        events: Sequence[ObjectEvent],
        positions: Mapping[int, int],
        policy: Mapping[str, OnChange],
        expected: Mapping[int, int] = NOTHING_EXPECTED,
    ) -> dict[Effect, int]:
        """As `Ledger.record`."""
        return self._file.write(lambda connection: record.record(connection, log, events, positions, policy, expected))

    def taken(self, source_id: int) -> str | None:
        """As `Ledger.taken`."""
        with self._file.read() as connection:
            return queues.taken(connection, source_id)

    def record_ranges(self, source_id: int, after: str | None, events: Sequence[ObjectEvent]) -> bool:
        """As `Ledger.record_ranges`."""
        return self._file.write(lambda connection: queues.record_ranges(connection, source_id, after, events))

    def tick(self, turn: Callable[[Tick], T]) -> T | None:
        """As `Ledger.tick`; BEGIN IMMEDIATE makes the next scheduler wait, so it is never None."""
        return self._file.write(
            lambda connection: turn(SqliteTick(connection, self._boot, self._owners)), lasting=False
        )

    def unclaim(self, leases: Sequence[int]) -> int:
        """As `Ledger.unclaim`."""
        return self._file.write(
            lambda connection: end_leases(connection, "started_at IS NULL AND id IN", list(leases), lost=False)
        )

    def start(self, lease: int, worker: str, seconds: float) -> list[Work]:
        """As `Ledger.start`."""
        until = uptime() + seconds
        return self._file.write(lambda connection: work.start(connection, lease, worker, until), lasting=False)

    def renew(self, lease: int, seconds: float) -> bool:
        """As `Ledger.renew`."""
        statement = "UPDATE leases SET until = ? WHERE id = ?"
        return self._file.write(
            lambda connection: connection.execute(statement, (uptime() + seconds, lease)).rowcount == 1,
            lasting=False,
        )

    def stage(
        self, lease: int, object_id: int, first: int, tasks: Sequence[Task], rejected: Sequence[RejectedRow]
    ) -> Callable[[], None]:
        """As `Ledger.stage`."""
        rows = commit.task_rows(object_id, lease, tasks, first)
        return lambda: self._file.write(lambda connection: work.stage(connection, lease, object_id, rows, rejected))

    def unstage(self, lease: int, object_id: int) -> None:
        """As `Ledger.unstage`; more than one transaction."""
        while self._file.write(lambda connection: work.unstage(connection, lease, object_id)):
            pass

    def commit(self, lease: int, outcomes: Sequence[Outcome]) -> Committed:
        """As `Ledger.commit`."""
        batch = commit.Batch.of(lease, outcomes)
        return self._file.write(batch.write)

    def give_back(self, lease: int, *, lost: int | None = None) -> None:
        """As `Ledger.give_back`."""
        self._file.write(lambda connection: work.give_back(connection, lease, lost))

    def beat(self, worker: str, threads: int, seconds: float, commits: tuple[int, float] = (0, 0.0)) -> None:
        """As `Ledger.beat`."""
        statement = (
            "INSERT OR REPLACE INTO workers (name, threads, boot, until, commits, commit_seconds)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        self._file.write(
            lambda connection: connection.execute(
                statement, (worker, threads, self._boot, uptime() + seconds, *commits)
            ),
            lasting=False,
        )

    def sweep(self, limit: int) -> int:
        """As `Ledger.sweep`."""
        return self._file.write(lambda connection: work.sweep(connection, limit, self._boot))

    def begin_pass(self, source_id: int, previous: Pass | None = None) -> Pass:
        """As `Ledger.begin_pass`."""
        return self._file.write(lambda connection: passes.begin(connection, source_id, previous))

    def note_problem(self, source_id: int, part: Part, problem: tuple[str, str] | None) -> None:
        """As `Ledger.note_problem`."""
        self._file.write(lambda connection: passes.note_problem(connection, source_id, part, problem))

    def last_pass(self, source_id: int) -> Pass | None:
        """As `Ledger.last_pass`."""
        with self._file.read() as connection:
            return passes.last(connection, source_id)

    def known(self, source_id: int, after: str | None, upto: str | None, limit: int) -> list[Known]:
        """As `Ledger.known`."""
        with self._file.read() as connection:
            return passes.known(connection, source_id, after, upto, limit)

    def known_keys(self, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """As `Ledger.known_keys`."""
        with self._file.read() as connection:
            return record.known_keys(connection, source_id, keys)

    def save_pass(self, state: Pass, gone: Sequence[str], out_of_scope: Sequence[int]) -> None:
        """As `Ledger.save_pass`."""
        self._file.write(lambda connection: passes.save(connection, state, gone, out_of_scope), lasting=False)

    def gone_keys(self, pass_id: int, after: str | None, limit: int) -> list[str]:
        """As `Ledger.gone_keys`."""
        with self._file.read() as connection:
            return passes.gone_keys(connection, pass_id, after, limit)

    def end_pass(self, state: Pass) -> None:
        """As `Ledger.end_pass`."""
        self._file.write(lambda connection: passes.end(connection, state))

    def accept_deletions(self, source_id: int) -> None:
        """As `Ledger.accept_deletions`."""
        self._file.write(lambda connection: passes.accept_deletions(connection, source_id))

    def deletions_accepted(self, source_id: int) -> bool:
        """As `Ledger.deletions_accepted`."""
        with self._file.read() as connection:
            return passes.deletions_accepted(connection, source_id)

    def lead(self, source_id: int, holder: str, seconds: float) -> bool:
        """As `Ledger.lead`."""
        mine = leaders.Lead(source_id, holder, self._boot)
        return self._file.write(lambda connection: leaders.lead(connection, mine, seconds, self._owners))

    def yield_lead(self, source_id: int, holder: str) -> None:
        """As `Ledger.yield_lead`."""
        mine = leaders.Lead(source_id, holder, self._boot)
        self._file.write(lambda connection: leaders.yield_lead(connection, mine))

    def pause(self, source_id: int) -> None:
        """As `Ledger.pause`."""
        self._file.write(lambda connection: standings.pause(connection, source_id))

    def resume(self, source_id: int) -> None:
        """As `Ledger.resume`."""
        self._file.write(lambda connection: standings.resume(connection, source_id))

    def pause_project(self, name: str, *, paused: bool) -> bool:
        """As `Ledger.pause_project`."""
        return self._file.write(lambda connection: standings.pause_project(connection, name, paused=paused))

    def decide(self, ids: Sequence[int], *, accept: bool) -> dict[int, str]:
        """As `Ledger.decide`."""
        return self._file.write(lambda connection: decide(connection, ids, accept=accept))

    def deliveries(self) -> SqliteDeliveries:
        """As `Ledger.deliveries`."""
        return SqliteDeliveries(self._file, self._boot)

    def now(self) -> float:
        """As `Ledger.now`."""
        return now()

    def reports(self) -> SqliteReports:
        """As `Ledger.reports`."""
        return SqliteReports(self._file)
