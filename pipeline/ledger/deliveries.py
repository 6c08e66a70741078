"""Deliveries in the ledger: what they have to do, what may be begun now, and what becomes of a batch.

A *grant* lets one sender work on a delivery, under a number that is never used twice for it: send a batch
(`import`), look for one whose arrival is unknown (`resolve`), bring changes (`change`), or count what is open there
(`count`). There is one grant of a delivery at a time. `next_steps` decides; `Deliveries` is what a database must do.

A *batch* holds fixed tasks before anything is sent. Its life: `filling`, `ready`, `sending` (marked before the first
byte), then `done`, or `ready` again where it surely did not arrive, or `unsure` where nobody knows: then it is
looked for until it is there, or until an answer that was asked for after `settled_at` says that it is absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from pipeline.tasks import Task

OUTBOX_TASKS = 10_000
"""Tasks that one row of the outbox stands for, at most."""
PAGE_TASKS = 2_000
"""Tasks that are read, or written, in one transaction."""
PAGE_BYTES = 16 * 1024 * 1024
"""A page of tasks that are read ends with the one that fills this, which is as large as one task may be."""
NEVER: Mapping[int, float] = MappingProxyType({})
CHANGES_AT_ONCE = 100
"""Updates and deletions that one grant brings."""
REFUSALS_PAUSE = 20
"""So many tasks refused and none accepted: from then on one task at a time is tried, after a back-off."""
FIRST_BACKOFF, LONGEST_BACKOFF = 2.0, 300.0
FIRST_LOOK, LONGEST_LOOK = 1.0, 60.0
"""Seconds between two looks for a batch; they double."""
FOLLOWED_SECONDS = 86_400.0
"""For so long after a batch has settled the remote is believed that an import of it goes on."""
SENT_DAYS = 7
"""How long the outbox and the batches remember what is delivered."""

Step = Literal["import", "resolve", "change", "count"]
BatchState = Literal["filling", "ready", "sending", "unsure", "done", "refused"]


class DeliveryIdentity(NamedTuple):
    """What the configuration says of a delivery: its project, its name in it, its kind, and which remote."""

    project: str
    name: str
    kind: str
    target: str


class DeliveryRow(NamedTuple):
    """A delivery as the ledger has it. `name` is `project/name`."""

    id: int
    name: str
    stamp: str
    label_config: str | None


class DeliveryLoad(NamedTuple):
    """A delivery as the tick sees it. Times are the database's.

    `granted`: somebody has a grant. `batch` is the state of its oldest open batch; `waiting` whether the outbox
    has something, `changes` whether updates or deletions are to be made, `last` what was granted last, and `started`
    whether anybody began that. `retired`: no configuration has it, though a grant may go on. What is open there is
    counted from `count_due` on.
    """

    id: int
    name: str
    granted: bool = False
    paused: bool = False
    due: float = 0.0
    ended_at: float = 0.0
    batch: str | None = None
    look_due: float = 0.0
    waiting: bool = False
    changes: bool = False
    last: str | None = None
    started: bool = True
    retired: bool = False
    count_due: float = 0.0

    @property
    def project(self) -> str:
        """The project whose tasks it brings on."""
        return self.name.partition("/")[0]


class Granted(NamedTuple):
    """What a message stands for: a delivery, and the number of the grant."""

    delivery: int
    lease: int
    name: str = ""


class Batch(NamedTuple):
    """A batch as its sender finds it. `settled`: an answer asked for now, that it is absent, can be believed.
    `overdue`: so can none that its import, if it has a `handle`, goes on."""

    id: int
    state: str
    tasks: int
    handle: str | None = None
    settled: bool = False
    looks: int = 0
    overdue: bool = False


class Grant(NamedTuple):
    """A started grant. `probe`: the last ones were refused, so try one task. `number`: that of its changes, of the same
    sequence as the numbers of batches, so that it is above those of all that this delivery brought before."""

    delivery: int
    lease: int
    step: Step
    stamp: str
    batch: Batch | None = None
    probe: bool = False
    number: int = 0


class Item(NamedTuple):
    """A task of a batch: our number of it, its revision, and the task."""

    id: int
    revision: int
    task: Task


class Waiting(NamedTuple):
    """A task that the outbox speaks of, as it stands now, and what the remote has of it.

    `outbox`, `lease` and `position` say where it stands. `state` is None where it was never given to a batch.
    """

    outbox: int
    lease: int
    position: int
    item: Item
    live: bool
    state: str | None = None
    sent_revision: int = 0


class Page(NamedTuple):
    """Some of what the outbox speaks of, in its order. `rows` are the outbox's rows that were looked at; with
    `complete` there is nothing more in them."""

    rows: Sequence[int]
    waiting: Sequence[Waiting]
    complete: bool


class Taken(NamedTuple):
    """What a sender has decided of a page: `rows` of the outbox are done; one goes on at `cursor` (row, lease,
    position), where the batch was full. `members` join the batch with `bytes`; `refused` ones (id → why, at a
    revision) never can; the other two say what the remote has to be changed in."""

    rows: Sequence[int]
    cursor: tuple[int, int, int] | None
    members: Sequence[Item]
    bytes: int
    updates: Sequence[int]
    deletions: Sequence[int]
    refused: Mapping[int, str]
    refused_items: Sequence[Item] = ()


class Change(NamedTuple):
    """An update or a deletion that the remote has to be told. A task that came back before its deletion was known to be
    made is an update: the remote may have it still."""

    item: Item
    remote_id: str
    delete: bool


ChangeOutcome = Literal["done", "kept", "gone"]
"""What became of a change: made; not made, because somebody has worked on it there, or it is refused; the remote no
longer has it."""


class Changed(NamedTuple):
    """A change that a sender is done with: the task's revision, whether it was a deletion, and what became of it."""

    revision: int
    delete: bool
    outcome: ChangeOutcome
    reason: str

    @property
    def gone(self) -> bool:
        """Whether the remote no longer has the task."""
        return self.outcome == "gone" or (self.outcome == "done" and self.delete)

    @property
    def sent(self) -> int:
        """The revision that the remote has; 0 after a deletion that was not made, as one before it may have been made
        unheard, and an update before it not."""
        return 0 if self.delete and self.outcome == "kept" else self.revision

    @property
    def counted(self) -> Literal["updated", "deleted", "kept"]:
        """As which the delivery counts it."""
        return "kept" if self.outcome == "kept" else "deleted" if self.gone else "updated"

    def state(self, pending: str | None) -> str:
        """What the task is now, of which `pending` was to be told: what we meant to delete may come back."""
        return "done" if not self.gone else "deleted" if pending == "delete" else "gone"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing more is begun for a while: a code, a sentence, and a time in seconds where the remote named one."""

    code: str
    message: str
    retry_after: float | None = None


def next_step(load: DeliveryLoad, now: float, every: float) -> Step | None:
    """What may be begun for a delivery now; None for nothing. `every` is the time between two imports."""
    if load.granted or load.paused or load.due > now:
        return None
    if load.batch == "unsure":
        return "resolve" if load.look_due <= now else None
    importable = (load.batch is not None or load.waiting) and load.ended_at + every <= now
    if load.changes and not (importable and load.last == "change"):
        return "change"
    return "import" if importable else None


def next_steps(
    loads: Sequence[DeliveryLoad], now: float, every: Mapping[str, float], granted: Mapping[int, float] = NEVER
) -> Iterator[tuple[DeliveryLoad, Step]]:
    """What may be begun now.

    `every` says by delivery how many seconds lie between two imports into any delivery of its project, one of which has
    one in flight then; with 0 they do not look at each other. Of what is not in it, or is retired, nothing is begun,
    but its imports count. `granted` is when each was granted an import last: the one that has had none for the longest
    time has its turn, whatever came of that.
    """
    ended: dict[str, float] = {}
    for load in loads:
        ends = math.inf if load.granted and load.last == "import" else load.ended_at
        ended[load.project] = max(ends, ended.get(load.project, 0.0))
    for load in sorted(loads, key=lambda load: max(load.ended_at, granted.get(load.id, 0.0))):
        seconds = every.get(load.name)
        if seconds is None or load.retired:
            continue
        step = next_step(load._replace(ended_at=ended[load.project]) if seconds else load, now, seconds)
        if step == "import":
            ended[load.project] = math.inf
        if step is not None:
            yield load, step


def backoff(failing: int, retry_after: float | None) -> float:
    """Seconds until the next attempt after `failing` that failed one after another."""
    own = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** max(0, min(failing - 1, 30)))
    return max(own, retry_after or 0.0)


def look_pause(looks: int) -> float:
    """Seconds until a batch is looked for again."""
    return min(LONGEST_LOOK, FIRST_LOOK * 2.0 ** min(looks, 30))


class DeliveryTick(Protocol):
    """The deliveries' part of a turn of the scheduler, in its transaction."""

    def expire(self, epoch: str) -> int:
        """End grants whose time is over, whose process is gone, or whose message was lost with its queue. A batch
        that was being sent becomes unsure, and the interval between imports runs from now."""

    def now(self) -> float:
        """The database's clock."""

    def load(self) -> Sequence[DeliveryLoad]:
        """Every delivery, those that are retired, too."""

    def workers(self) -> bool:
        """Whether any process lives that could take a grant."""

    def grant(self, delivery: DeliveryLoad, step: Step, epoch: str, seconds: float) -> Granted:
        """Grant a step; the grant ends in `seconds` unless it is started."""

    def backfill(self, limit: int) -> int:
        """Put up to `limit` objects that were imported before their project had a delivery into the outbox; how many
        were looked at."""


class Deliveries(Protocol):
    """The deliveries of a ledger. Thread-safe; every method is one transaction, or says that it is more. What is
    done under a grant that has ended does nothing and gives False (or nothing)."""

    def register(self, deliveries: Sequence[DeliveryIdentity], *, keep: bool = False) -> list[DeliveryRow]:
        """Make the ledger know the configuration's deliveries; others become retired, but with `keep`. What a new name
        stands for goes on under it where the project had it under one that it no longer has.

        Raises:
            UsageError: a known name stands for another remote now, or a new one for a remote of another delivery.
        """

    def remember_config(self, delivery: int, xml: str) -> None:
        """Keep the remote's labelling configuration for a time when it does not answer."""

    def start(self, delivery: int, lease: int, worker: str, seconds: float) -> Grant | None:
        """Start a grant, which then ends in `seconds`; None if it has ended or was started."""

    def renew(self, delivery: int, lease: int, seconds: float) -> bool:
        """Let a grant end in `seconds` from now."""

    def peek(self, delivery: int, limit: int) -> Page:
        """What the outbox speaks of, up to `limit` tasks and PAGE_BYTES."""

    def begin(self, delivery: int, lease: int) -> int | None:
        """A new batch, to be filled; None if the grant has ended."""

    def take(self, delivery: int, lease: int, batch: int, taken: Taken, seconds: float) -> bool:
        """Write what was decided of a page; the grant does not end before `seconds` from now."""

    def items(self, batch: int, after: int, limit: int) -> list[Item]:
        """The tasks of a batch by number, as they are now, up to `limit` and PAGE_BYTES."""

    def split(self, delivery: int, lease: int, batch: int, keep: Sequence[int]) -> bool:
        """Leave these tasks in a batch; the others go into a new one, which is ready."""

    def sending(self, delivery: int, lease: int, batch: int, seconds: float, settle: float) -> bool:
        """Mark a batch as being sent, durable before the first byte; the grant ends in `seconds` from now."""

    def named(self, delivery: int, lease: int, batch: int, handle: str, seconds: float) -> bool:
        """An import goes on behind its answer, by this name; the grant does not end before `seconds` from now."""

    def arrived(self, delivery: int, lease: int, batch: int, remote: Mapping[int, str]) -> bool:
        """The remote has these tasks of a batch, by these ids; more than one transaction. Others of the batch, if
        there are any, become a new one. Ends the grant."""

    def refuse(self, delivery: int, lease: int, batch: int, reasons: Mapping[int, str], *, sent: bool = True) -> bool:
        """Set tasks of a batch aside; the rest is ready to be sent. Ends the grant."""

    def unsure(self, delivery: int, lease: int, batch: int, failure: Failure, handle: str | None) -> bool:
        """Nobody knows whether a batch has arrived; without a `handle` what `named` wrote counts. Ends the grant."""

    def absent(self, delivery: int, lease: int, batch: Batch) -> bool:
        """A batch is not there (yet). Ends the grant."""

    def failed(self, delivery: int, lease: int, batch: int | None, failure: Failure, *, sent: bool) -> bool:
        """An attempt has failed; its batch surely did not arrive. `sent`: it counts as an import. Ends the grant."""

    def rest(self, delivery: int, lease: int) -> bool:
        """End a grant that has nothing to do, or nothing more."""

    def changes(self, delivery: int, limit: int, after: int = 0) -> list[Change]:
        """Updates and deletions that are due, of tasks `after` a number, up to `limit` and PAGE_BYTES of tasks."""

    def changed(
        self, delivery: int, lease: int, outcomes: Mapping[int, Changed], failure: Failure | None = None
    ) -> bool:
        """What became of changes, by task. What was deleted there by us and is live here goes into the outbox. With a
        `failure`, nothing is begun for a while. Ends the grant."""

    def counted(self, delivery: int, lease: int, found: int | Failure | None) -> bool:
        """So many tasks are open there, None where nobody labels; or why it is not known. Ends the grant."""

    def pause(self, delivery: int) -> None:
        """Begin nothing until `resume`."""

    def resume(self, delivery: int) -> None:
        """Go on at once, also where failures keep it waiting."""

    def retry(self, delivery: int) -> int:
        """Put refused tasks into a batch again; how many."""

    def report(self) -> list[dict[str, Any]]:
        """Per delivery: `id, name, project, kind, target, paused_at, failing, code, reason, since, due, ended_at,
        imports, delivered, updated, deleted, kept, refused, waiting_tasks, changes, batch, batch_tasks, granted,
        what (was granted last), label_config, open_there` (as last counted) and `uncounted` (why it could not be
        counted again)."""

    def refused(self, delivery: int, after: int, limit: int) -> list[dict[str, Any]]:
        """Tasks that were set aside: `task_id, source, key, row, reason`."""

    def of_object(self, object_id: int) -> list[dict[str, Any]]:
        """What became of an object's tasks: `delivery, state, tasks, reason` (of one of them)."""

    def sweep(self, limit: int) -> int:
        """Forget up to `limit` rows of the outbox, and batches, that were delivered SENT_DAYS ago."""
