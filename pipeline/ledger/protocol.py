"""What a database must do to be the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeVar

from pipeline.events import ObjectEvent
from pipeline.ledger.deliveries import Deliveries
from pipeline.ledger.reports import Reports
from pipeline.ledger.rules import Effect, Known, OnChange
from pipeline.ledger.scheduling import Tick
from pipeline.ledger.work import Committed, Outcome, Work
from pipeline.tasks import RejectedRow, Task

T = TypeVar("T")
NOTHING_EXPECTED: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pass:
    """One listing of a source, as far as it has come; it goes on after a restart from `after`.

    `candidates` counts keys that the store no longer has. `positions` are the log's after its last event. `left_out`
    counts objects that the configuration leaves out, by its rule. Not `whole` is a pass that began after the last key
    of the one before; `whole_at` is when the last whole one that is complete began, this one or an earlier.
    """

    id: int
    source_id: int
    started: float
    after: str | None = None
    listed: int = 0
    published: int = 0
    candidates: int = 0
    finished: float | None = None
    positions: Mapping[int, int] = field(default_factory=dict)
    stopped: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    whole: bool = True
    whole_at: float | None = None


Part = Literal["listing", "notifications"]
"""What of a source may not work by itself."""


class SourceRow(NamedTuple):
    """A source as the ledger has it."""

    id: int
    name: str
    project: str
    identity: str


class SourceIdentity(NamedTuple):
    """What the configuration says of a source: whose tasks they are, and which store it is."""

    name: str
    project: str
    identity: str
    uri: str
    shape: str


class Ledger(Protocol):
    """The tasks' database, which is also the record of work. Thread-safe.

    Every method is one transaction (or says that it is more), is retried from its start where the
    database asks for that, and raises UnavailableError where the database does not answer. All times that
    decide are the database's own.
    """

    # set-up
    def made(self) -> bool:
        """Whether the database has a schema: False where nothing has run on it yet."""

    def migrate(self) -> None:
        """Bring the schema to this program's version; raises NewerSchema if it is newer than that."""

    def register(
        self, sources: Sequence[SourceIdentity], *, accept: frozenset[str] = frozenset(), keep: bool = False
    ) -> list[SourceRow]:
        """Make the ledger know the configuration's projects and sources; others become retired, but with `keep`.

        Raises UsageError if a known name has another store, unless `accept` names it.
        """

    def hold(self, epoch: str) -> None:
        """Take the operating system's lock that tells others on this machine that the process with this
        embedded queue is alive. Epochs of embedded queues begin with `local:`."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if the database can't be used."""

    def close(self) -> None:
        """Finish what was taken on, and let go."""

    # dispatcher
    def positions(self, log: str) -> dict[int, int]:
        """How far the ledger reflects an event log, by partition."""

    def forget_log(self, log: str) -> None:
        """Forget how far an event log is reflected that nobody will read again."""

    def record(
        self,
        log: str,
        events: Sequence[ObjectEvent],
        positions: Mapping[int, int],
        policy: Mapping[str, OnChange],
        expected: Mapping[int, int] = NOTHING_EXPECTED,
    ) -> dict[Effect, int]:
        """Apply folded, checked, sorted events by `on_event`, and the positions (only forward), in one
        transaction. `policy` holds each known source's `on_change`; events of others count as unknown.

        `expected` are positions that the ledger had before. Where it is behind one of them it has lost commits, and the
        events between would be passed over: nothing is written. Raises PositionsLost and DataRefused.
        """

    def taken(self, source_id: int) -> str | None:
        """The key of the last range that was recorded of a source that is a stream; None before the first."""

    def record_ranges(self, source_id: int, after: str | None, events: Sequence[ObjectEvent]) -> bool:
        """Record the next ranges of a stream as new objects, and move its position from `after` to the last one's
        key, in one transaction; False, with nothing written, if the position is another by now."""

    # scheduler
    def tick(self, turn: Callable[[Tick], T]) -> T | None:
        """Run one turn; None if another scheduler is in one. `turn` may be run again after a conflict."""

    def unclaim(self, leases: Sequence[int]) -> int:
        """Give back claims that were not started, uncounted."""

    # worker
    def start(self, lease: int, worker: str, seconds: float) -> list[Work]:
        """Start a claim: durable before any of its files is opened. Gives the objects that are still under
        this lease, none if it has ended or was started before."""

    def renew(self, lease: int, seconds: float) -> bool:
        """Lengthen a lease; False if it has ended."""

    def stage(
        self, lease: int, object_id: int, first: int, tasks: Sequence[Task], rejected: Sequence[RejectedRow]
    ) -> Callable[[], None]:
        """Make tasks of a large file ready, from position `first` on; the call that it gives writes them, invisible
        until the file's outcome is committed, and raises LeaseLost, or UnavailableError where the database has lost
        what was staged before."""

    def unstage(self, lease: int, object_id: int) -> None:
        """Forget what was staged for an object under this lease."""

    def commit(self, lease: int, outcomes: Sequence[Outcome]) -> Committed:
        """Tasks, rejected rows and the ledger's rows, for exactly those objects that are still under this
        lease, in one transaction."""

    def give_back(self, lease: int, *, lost: int | None = None) -> None:
        """End a lease: its objects without an outcome become ready, uncounted. `lost` names the one object
        whose child process died, for which that is counted."""

    def beat(self, worker: str, threads: int, seconds: float, commits: tuple[int, float] = (0, 0.0)) -> None:
        """Say that a process with so many worker threads is alive for the next `seconds`, and how many commits it has
        made since it began, in how many seconds together."""

    def sweep(self, limit: int) -> int:
        """Delete at most about `limit` staged rows that will never be published, old passes, and processes that
        ended long ago."""

    # passes
    def begin_pass(self, source_id: int, previous: Pass | None = None) -> Pass:
        """The source's unfinished pass, or a new one; that begins after the last key of a `previous` one, where one is
        given."""

    def last_pass(self, source_id: int) -> Pass | None:
        """The newest finished or stopped pass."""

    def known(self, source_id: int, after: str | None, upto: str | None, limit: int) -> list[Known]:
        """The ledger's objects with after < key <= upto in byte order; None stands for no bound."""

    def known_keys(self, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """The ledger's objects with one of these keys."""

    def save_pass(self, state: Pass, gone: Sequence[str], out_of_scope: Sequence[int]) -> None:
        """Remember how far a pass has come, keys that the store no longer has, and objects that the
        configuration no longer covers."""

    def gone_keys(self, pass_id: int, after: str | None, limit: int) -> list[str]:
        """Keys that a pass found gone, in order."""

    def end_pass(self, state: Pass) -> None:
        """The pass is complete, or was stopped."""

    def note_problem(self, source_id: int, part: Part, problem: tuple[str, str] | None) -> None:
        """Remember why a part of a source does not work, a code and a message, or that it works."""

    def accept_deletions(self, source_id: int) -> None:
        """Let the next pass of a source that completes archive as much as it finds gone; `end_pass` of one that
        was not stopped forgets it."""

    def deletions_accepted(self, source_id: int) -> bool:
        """Whether a person has said so since the last pass that completed."""

    def lead(self, source_id: int, holder: str, seconds: float) -> bool:
        """Let `holder` lead a source for the next `seconds`, if nobody else does; whether it leads. To be renewed
        by the same call. A holder that begins with `local:` and was given to `hold` leads no longer once its
        process is gone, where that can be seen."""

    def yield_lead(self, source_id: int, holder: str) -> None:
        """End a lead at once, if it is still this holder's."""

    def pause(self, source_id: int) -> None:
        """Claim nothing of a source until `resume`."""

    def resume(self, source_id: int) -> None:
        """Forget how a source's objects have fared, and that it is paused."""

    def pause_project(self, name: str, *, paused: bool) -> bool:
        """Claim nothing of a project's sources until it is called with False; whether that changed anything."""

    def deliveries(self) -> Deliveries:
        """Where tasks go on to, and how far they have come."""

    def now(self) -> float:
        """The database's clock, in seconds since 1970."""

    # people
    def decide(self, ids: Sequence[int], *, accept: bool) -> dict[int, str]:
        """Accept revisions, so that each task becomes what was proposed, or reject them for good; gives the reason
        for each that was refused. What was decided on is not proposed again."""

    def reports(self) -> Reports:
        """What can be asked of the ledger."""
