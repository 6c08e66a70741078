"""The record of work: states of an object, what moves it from one to another, and what a database must do.

The rules are pure functions here (`on_event`, `on_retry`, `match_rows`); `sinks/sqlite` and
`sinks/postgres` apply them inside their transactions. Nothing here does input or output.

Words: an *object* is a key of a source. A *lease* is a 64-bit number, one per claim, never used twice; a
claim covers a batch of objects and makes one message. The lease number is also the number of the import
that comes of it. Versions are compared for equality only; order exists between two sequencers of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pipeline.events import ObjectEvent, Sequencer
from pipeline.tasks import RejectedRow, Task

State = Literal["ready", "claimed", "done", "failed", "skipped", "gone", "out_of_scope"]
"""Where an object stands in the ledger's row. `claimed` is shown as `running` once its lease was started,
and every state as `retired` while its source is not in the configuration."""

STATES: tuple[State, ...] = ("ready", "claimed", "done", "failed", "skipped", "gone", "out_of_scope")
ENDED: frozenset[State] = frozenset({"done", "failed", "skipped", "gone", "out_of_scope"})

OnChange = Literal["ignore", "replace", "append"]

LOST_WORKERS_LIMIT = 3
"""An object whose child process has died this often is `failed: worker_lost`."""
HISTORY_LIMIT = 20
"""Events and attempts that the ledger remembers of one object."""
STAGE_ROWS = 10_000
STAGE_BYTES = 8 * 1024 * 1024
"""A file with more rows or bytes than this is written in pieces as an unpublished import."""

PAUSE_AFTER = 20
"""A source is paused once so many of its objects have failed one after another, all with the same code ..."""
PROBE_SECONDS = 2.0
LONGEST_PROBE_SECONDS = 300.0
"""... and then one object at a time is tried, at intervals that double from the first to the second of these."""

T = TypeVar("T")


# --- what an event does -----------------------------------------------------------------------------


class Known(NamedTuple):
    """What the ledger knows of an object that an event speaks of."""

    id: int
    key: str
    state: State
    wanted: str | None
    imported: str | None
    sequencer: str | None
    last_event: float


Effect = Literal["new", "changed", "asked", "ignored", "duplicate", "stale", "gone", "unknown"]
"""What became of an event: a new object; a new version of one; the store must be asked; a change that
`on_change: ignore` only counts; nothing new; older than what is known; the object is gone; a deletion of
something never seen."""


class Change(NamedTuple):
    """What an event does to an object's row. `state` None leaves the state, the lease and the attempts."""

    effect: Effect
    state: State | None = None
    wanted: str | None = None
    sequencer: str | None = None


def on_event(row: Known | None, event: ObjectEvent, on_change: OnChange) -> Change:
    """The row of the state × event table that applies (docs/architecture.md prints the table).

    Whenever `state` is "ready" the caller also clears the lease, sets attempts to 0 and makes the row due
    at once, in the same statement, so that a worker with an older version cannot commit. On "changed" it
    forgets lost workers, too: another content may not kill them.
    """
    if row is None:
        if event.kind == "deleted":
            return Change("unknown")
        return Change("new", "ready", event.version, _text(event.sequencer))
    known = Sequencer.parse(row.sequencer)
    if event.sequencer is not None and known is not None and known.after(event.sequencer):
        return Change("stale", None, row.wanted, row.sequencer)
    sequencer = _text(event.sequencer) or row.sequencer
    deleted = event.kind == "deleted"
    if row.state == "ready" and row.wanted is None and (deleted or event.version is None):
        return Change("duplicate", None, None, sequencer)
    if deleted:
        return _on_deletion(row, event.version, sequencer)
    return _on_version(row, event.version, sequencer, on_change)


def _on_deletion(row: Known, version: str | None, sequencer: str | None) -> Change:
    if row.state == "gone":
        return Change("duplicate", None, row.wanted, sequencer)
    if row.state in ("failed", "skipped") and row.imported is None and version in (None, row.wanted):
        return Change("gone", "gone", row.wanted, sequencer)
    return Change("asked", "ready", None, sequencer)


def _on_version(row: Known, version: str | None, sequencer: str | None, on_change: OnChange) -> Change:
    if version is None:
        return Change("asked", "ready", None, sequencer)
    if row.state == "gone":
        return Change("changed", "ready", version, sequencer)
    if row.state == "out_of_scope":
        return Change("changed", "done" if version == row.imported else "ready", version, sequencer)
    if row.state == "done":
        return _on_done(row, version, sequencer, on_change)
    if version == row.wanted:
        return Change("duplicate", None, version, sequencer)
    return Change("changed", "ready", version, sequencer)


def _on_done(row: Known, version: str, sequencer: str | None, on_change: OnChange) -> Change:
    if version == row.imported:
        return Change("duplicate", None, version, sequencer)
    if on_change == "ignore":
        return Change("duplicate" if version == row.wanted else "ignored", None, version, sequencer)
    return Change("changed", "ready", version, sequencer)


def _text(sequencer: Sequencer | None) -> str | None:
    return None if sequencer is None else str(sequencer)


def on_retry(state: State, *, running: bool, force: bool) -> str | None:
    """Why an object cannot be put back by hand, or None if it can."""
    if running:
        return "it is running; wait until it ends"
    if state in ("ready", "claimed"):
        return "it is waiting already"
    if state == "done" and not force:
        return "it is imported; --force imports it again in its tasks' place"
    if state == "gone":
        return "the store no longer has it"
    if state == "out_of_scope":
        return "the configuration no longer covers it"
    return None


# --- what a worker gets and gives back ----------------------------------------------------------------


class Work(NamedTuple):
    """One object of a started claim, as its worker gets it.

    `imported` is the version whose tasks exist, `live` whether those tasks are to be seen (not archived),
    `redo` that it was put back by hand with force. `attempts` and `lost` are counts before this attempt.
    """

    id: int
    source: str
    key: str
    wanted: str | None
    imported: str | None
    live: bool
    redo: bool
    attempts: int
    lost: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an object ended as it did, for a person: what, where, and what to do."""

    code: str
    message: str
    line: int | None = None
    column: int | None = None
    byte: int | None = None
    excerpt: str | None = None
    hint: str | None = None


Mode = Literal["new", "replace", "append", "unchanged", "ignored"]
"""What a done object does to the tasks: writes the first ones; puts its own in the place of the old; adds
its own; nothing, as the version read is the imported one (archived tasks come back); nothing, as the
policy protects the tasks that exist."""


class Outcome(NamedTuple):
    """How one object of a claim ended. Only `done` writes tasks; `ready` means back off and try again.

    `version` is the one that was really read, None where none was. With `staged`, tasks and rejected rows
    were given to `stage` before and the lists here hold none; the counts always hold. `shape` is a hash
    of what shaped the import (configuration, parser version).
    """

    object_id: int
    state: Literal["done", "failed", "skipped", "gone", "ready"]
    version: str | None = None
    sequencer: str | None = None
    mode: Mode = "new"
    tasks: Sequence[Task] = ()
    rejected: Sequence[RejectedRow] = ()
    task_count: int = 0
    rejected_count: int = 0
    staged: bool = False
    reason: Reason | None = None
    retry_after: float = 0.0
    counted: bool = True
    size: int = 0
    shape: str = ""
    row_key: str | None = None
    archive: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit wrote: ids whose outcome stands, ids that another owner had by then, and tasks."""

    kept: frozenset[int]
    lost: frozenset[int]
    tasks: int = 0


# --- how a source fares ----------------------------------------------------------------------------------


class Standing(NamedTuple):
    """How a source's objects have ended of late: `failing` is how many failed one after another with `code`.

    `paused` says by whom it is paused: a person (`hand`), who alone can end that, or its own `failures`, which
    the next object that passes ends. `since` is when; `probe_due` is when the next object may be tried.
    """

    failing: int = 0
    code: str | None = None
    paused: Literal["hand", "failures"] | None = None
    since: float | None = None
    probe_due: float = 0.0


def fared(standing: Standing, outcomes: Sequence[Outcome], at: float) -> Standing:
    """A source's standing after some more outcomes, in their order, `at` the database's time."""
    for outcome in outcomes:
        if outcome.state == "failed" and outcome.reason is not None:
            standing = _failed(standing, outcome.reason.code, at)
        elif outcome.state == "done" and outcome.mode not in ("unchanged", "ignored"):
            standing = standing._replace(failing=0, code=None)
            if standing.paused == "failures":
                standing = Standing()
    return standing


def _failed(standing: Standing, code: str, at: float) -> Standing:
    failing = standing.failing + 1 if code == standing.code else 1
    standing = standing._replace(failing=failing, code=code)
    if standing.paused is None and failing >= PAUSE_AFTER:
        standing = standing._replace(paused="failures", since=at, probe_due=at + PROBE_SECONDS)
    elif standing.paused == "failures":
        doublings = max(0, min(failing - PAUSE_AFTER, 30))
        standing = standing._replace(probe_due=at + min(LONGEST_PROBE_SECONDS, PROBE_SECONDS * 2.0**doublings))
    return standing


# --- matching rows of two versions ----------------------------------------------------------------------


class OldRow(NamedTuple):
    """A live task of the version that is being replaced: its number, its place, its `row_key` (None where it
    has none), and what tells its content from another's."""

    id: int
    position: int
    key: object
    content: object


class Placed(NamedTuple):
    """A task of the new version at its position in it."""

    position: int
    task: Task


@dataclass(frozen=True, slots=True)
class RowMatch:
    """What replacing does: `updated` old id → what it becomes, `added` tasks, `archived` old ids."""

    updated: list[tuple[int, Placed]] = field(default_factory=list)
    added: list[Placed] = field(default_factory=list)
    archived: list[int] = field(default_factory=list)


Identity = Callable[[Task], object]


def content_of(task: Task) -> object:
    """What makes two tasks equal: everything but the row that they stand in."""
    return task[1:]


def match_rows(
    old: Sequence[OldRow], new: Sequence[Task], key_of: Identity | None, content: Identity = content_of
) -> RowMatch:
    """Which task of the old version each row of the new one is; rows that are equal are not touched.

    Matched by `key_of` where given, else by content, then by position among those that are left.
    """
    match = RowMatch()
    left = {row.id: row for row in old}
    rest = [(Placed(position, task), content(task)) for position, task in enumerate(new)]
    if key_of is not None:
        rest = _take(left, rest, lambda row: row.key, [key_of(task) for task in new], match)
    rest = _take(left, rest, lambda row: row.content, [told for _, told in rest], match)
    by_position = {row.position: row.id for row in left.values()} if key_of is None else {}
    for placed, _ in rest:
        old_id = by_position.get(placed.position)
        if old_id is None:
            match.added.append(placed)
        else:
            match.updated.append((old_id, placed))
            del left[old_id]
    match.archived.extend(sorted(left))
    return match


def _take(
    left: dict[int, OldRow],
    rest: list[tuple[Placed, object]],
    of_old: Callable[[OldRow], object],
    of_new: Sequence[object],
    match: RowMatch,
) -> list[tuple[Placed, object]]:
    """Match rows that have the same identity, the first with the first; gives those that stay unmatched."""
    waiting: dict[object, list[OldRow]] = {}
    for row in sorted(left.values(), key=lambda row: -row.position):
        waiting.setdefault(of_old(row), []).append(row)
    unmatched = []
    for (placed, content), identity in zip(rest, of_new, strict=True):
        found = waiting.get(identity) if identity is not None else None
        if not found:
            unmatched.append((placed, content))
            continue
        row = found.pop()
        del left[row.id]
        if row.content != content:
            match.updated.append((row.id, placed))
    return unmatched


# --- what the scheduler sees ------------------------------------------------------------------------------


class SourceLoad(NamedTuple):
    """What one source has waiting and under way, as the tick sees it."""

    id: int
    name: str
    project_id: int
    ready: int
    claimed: int
    cursor: tuple[float, int]
    deficit: float
    standing: Standing = Standing()


class ProjectLoad(NamedTuple):
    """How full a project is: live tasks, and the token bucket of its imports (level, time of it)."""

    id: int
    name: str
    tasks: int
    tokens: float
    tokens_at: float


class Candidate(NamedTuple):
    """A ready object that the tick may claim. `lost` > 0 means: run it alone."""

    id: int
    not_before: float
    size: int
    lost: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed batch: what a message stands for. `alone` ones run in a child process of their own."""

    lease: int
    source: str
    ids: tuple[int, ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The whole picture at the start of a tick. Times are the database's, in seconds since 1970.

    `unstarted` objects are claimed but not started, in `waiting` claims; `running` claims are started; none
    of these counts the `alone` claims, waiting or running, which have a thread of their own. `threads` is how
    many worker threads are alive, `finished` the number of objects that ever ended.
    """

    now: float
    sources: Sequence[SourceLoad]
    projects: Sequence[ProjectLoad]
    unstarted: int
    running: int
    threads: int
    finished: int
    waiting: int = 0
    alone: int = 0


class Tick(Protocol):
    """One turn of the scheduler, inside one transaction that no other scheduler shares."""

    def load(self) -> Load:
        """The picture."""

    def release(self, epoch: str) -> int:
        """Make ready the objects of claims that no message stands for any more: claims never started, of
        another epoch of a shared queue, and all claims of an embedded queue whose process is dead."""

    def expire(self, limit: int) -> int:
        """Make ready the objects of leases that have ended; started ones are counted as a lost worker."""

    def candidates(self, source: SourceLoad, quota: int) -> list[Candidate]:
        """The next `quota` due objects of a source after its cursor, held against others until the end."""

    def newest(self, source: SourceLoad) -> list[Candidate]:
        """The object of a source that became due last, if one is due: as `candidates`."""

    def claim(
        self, source: SourceLoad, batch: Sequence[Candidate], epoch: str, seconds: float, *, alone: bool
    ) -> Claim:
        """Claim candidates under one new lease that ends in `seconds` unless it is renewed."""

    def save(self, source_id: int, cursor: tuple[float, int], deficit: float) -> None:
        """Remember where a source's claims have come to."""

    def spend(self, project_id: int, tokens: float) -> None:
        """Remember a project's token bucket, as of now."""


# --- passes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """One listing of a source, as far as it has come; it goes on after a restart from `after`.

    `candidates` counts keys that the store no longer has. `positions` are the log's after its last event.
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


# --- the database -----------------------------------------------------------------------------------------------


class Ledger(Protocol):
    """The tasks' database, which is also the record of work. Thread-safe.

    Every method is one transaction (or says that it is more), is retried from its start where the
    database asks for that, and raises UnavailableError where the database does not answer. All times that
    decide are the database's own.
    """

    # set-up
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
        self, log: str, events: Sequence[ObjectEvent], positions: Mapping[int, int], policy: Mapping[str, OnChange]
    ) -> dict[Effect, int]:
        """Apply folded, checked, sorted events by `on_event`, and the positions (only forward), in one
        transaction. `policy` holds each known source's `on_change`; events of others count as unknown."""

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
    ) -> None:
        """Write tasks of a large file from position `first` on, invisible until its outcome is committed.
        Raises LeaseLost."""

    def unstage(self, lease: int, object_id: int) -> None:
        """Forget what was staged for an object under this lease."""

    def commit(self, lease: int, outcomes: Sequence[Outcome]) -> Committed:
        """Tasks, rejected rows and the ledger's rows, for exactly those objects that are still under this
        lease, in one transaction."""

    def give_back(self, lease: int, *, lost: int | None = None) -> None:
        """End a lease: its objects without an outcome become ready, uncounted. `lost` names the one object
        whose child process died, for which that is counted."""

    def beat(self, worker: str, threads: int, seconds: float) -> None:
        """Say that a process with so many worker threads is alive for the next `seconds`."""

    def sweep(self, limit: int) -> int:
        """Delete at most about `limit` staged rows that will never be published, and old history."""

    # passes
    def begin_pass(self, source_id: int) -> Pass:
        """The source's unfinished pass, or a new one."""

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

    def now(self) -> float:
        """The database's clock, in seconds since 1970."""

    # people
    def reports(self) -> Reports:
        """What can be asked of the ledger."""


class Filter(NamedTuple):
    """Which objects are asked for."""

    source: str | None = None
    state: str | None = None
    code: str | None = None


class Reports(Protocol):
    """Questions that people ask. Reads only, in pages, so that no long reader holds anything up."""

    def sources(self) -> list[dict[str, Any]]:
        """Per source: `name, project, retired, uri`, a count for each state (`ready, claimed, running, done,
        failed, skipped, gone, out_of_scope`), `tasks, rejected, changes, oldest_ready` (seconds since 1970),
        `last_pass`
        (a dict or None), `finished` (objects that ever ended), `finished_at`, `paused` (None, or a dict of `by`
        (`hand` or `failures`), `since`, `failing`, `code`, as in `Standing`)."""

    def projects(self) -> list[dict[str, Any]]:
        """Per project: `name, tasks`."""

    def objects(self, which: Filter, after: int, limit: int) -> list[dict[str, Any]]:
        """Objects by id: `id, source, key, state, version, imported_version, size, attempts, tasks, rejected,
        reason (dict or None), not_before, first_seen, last_event, finished_at`."""

    def find(self, source: str | None, key: str) -> list[dict[str, Any]]:
        """The objects with this key, of any source where `source` is None."""

    def history(self, object_id: int) -> list[dict[str, Any]]:
        """What happened to an object, oldest first: `at, kind, ...`."""

    def imports(self, object_id: int) -> list[dict[str, Any]]:
        """An object's imports: `lease, version, state, mode, tasks, rejected, bytes, at, seconds`."""

    def tasks(self, project: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Live tasks by id: `id, project, source, key, version, position, row, external_id` and, as JSON text,
        `data, annotations, predictions, meta, extra`."""

    def object_tasks(self, object_id: int, limit: int) -> list[dict[str, Any]]:
        """The live tasks of one object, in its order; as `tasks` gives them."""

    def rejected(self, which: Filter, after: tuple[int, int, int], limit: int) -> list[dict[str, Any]]:
        """Rejected rows by (object, lease, number): those, and `source, key, row, line, column, code, message,
        excerpt`."""

    def retry(self, ids: Sequence[int], *, force: bool) -> dict[int, str]:
        """Put objects back; gives the reason for each that was refused (`on_retry`)."""

    def audit(self, source_id: int, after: str | None, limit: int) -> Iterator[Audit]:
        """Objects in key order, each with the tasks that are really there."""

    def pending(self) -> int:
        """How many objects of sources that are not retired wait or are under way; what waits of a source that was
        paused by hand does not count."""


class Audit(NamedTuple):
    """One object as `verify` compares it with the store: `live` tasks as counted in the tables themselves,
    `counted` as the ledger's row says, `imports` live ones that wrote first tasks (more than one is doubled)."""

    id: int
    key: str
    state: State
    wanted: str | None
    imported: str | None
    live: int
    counted: int
    imports: int
