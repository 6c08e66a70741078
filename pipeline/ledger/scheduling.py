"""What the scheduler sees, and does in one turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, overload

from pipeline.ledger.deliveries import DeliveryTick
from pipeline.ledger.work import Standing


class SourceLoad(NamedTuple):
    """What one source has waiting and under way, as the tick sees it.

    `cursor`, `deficit`, `passed_over` (since when others go before it, 0 if they don't) and `bucket` (of its bytes:
    what may ever have been read, as of a time) are the scheduler's own, kept by `Tick.save`. `expected` are the tasks
    and bytes that what is claimed should bring; `read` are the objects, tasks and bytes that were ever imported.
    """

    id: int
    name: str
    project_id: int
    ready: int
    claimed: int
    cursor: tuple[float, int]
    deficit: float
    standing: Standing = Standing()
    passed_over: float = 0.0
    bucket: tuple[float, float] = (0.0, 0.0)
    expected: tuple[float, float] = (0.0, 0.0)
    read: tuple[int, int, int] = (0, 0, 0)


class ProjectLoad(NamedTuple):
    """How full a project is: live tasks, the token bucket of its imports (tasks that may ever have been imported, as
    of a time), tasks that ever were (`imported`), and since when it is `paused`."""

    id: int
    name: str
    tasks: int
    tokens: float
    tokens_at: float
    imported: int = 0
    paused: float | None = None


class Shared(NamedTuple):
    """What all schedulers share: what they last said of what waits (`notes`, JSON, as of `noted_at`), and what they
    know of the database's `pressure`, by the arithmetic that reads it."""

    noted_at: float = 0.0
    notes: str = "{}"
    pressure: tuple[float, float, int, float, float] = (0.0, 0.0, 0, 0.0, 0.0)


NOTHING_SHARED = Shared()


class Candidate(NamedTuple):
    """A ready object that the tick may claim. `lost` > 0 means: run it alone."""

    id: int
    not_before: float
    size: int
    lost: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates in the order in which they are due, column by column: a turn looks at hundreds of them, and making an
    object of each costs more than all that is done with it."""

    ids: Sequence[int] = ()
    due: Sequence[float] = ()
    sizes: Sequence[int] = ()
    lost: Sequence[int] = ()

    @classmethod
    def of(cls, rows: Iterable[tuple[int, float, int, int]]) -> Self:
        """Of rows as a `Candidate` has them."""
        return cls(*map(list, zip(*rows, strict=True)))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Candidate]:
        return map(Candidate, self.ids, self.due, self.sizes, self.lost)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> Candidate | Self:
        if isinstance(place, slice):
            return type(self)(self.ids[place], self.due[place], self.sizes[place], self.lost[place])
        return Candidate(self.ids[place], self.due[place], self.sizes[place], self.lost[place])

    def __add__(self, more: Self) -> Self:
        if not more or not self:
            return self or more
        columns = ((self.ids, more.ids), (self.due, more.due), (self.sizes, more.sizes), (self.lost, more.lost))
        return type(self)(*([*ours, *others] for ours, others in columns))

    def parted(self) -> tuple[Self, Self]:
        """Those that no worker was lost with, and the others."""
        if not any(self.lost):
            return self, type(self)()
        return type(self).of(each for each in self if not each.lost), type(self).of(each for each in self if each.lost)


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
    many worker threads are alive, and `commits` how many commits their processes have made, in how many seconds
    together; `finished` is the number of objects that ever ended.
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
    commits: tuple[int, float] = (0, 0.0)
    shared: Shared = NOTHING_SHARED


class Tick(Protocol):
    """One turn of the scheduler, inside one transaction that no other scheduler shares."""

    def load(self) -> Load:
        """The picture."""

    def release(self, epoch: str) -> int:
        """Make ready the objects of claims that no message stands for any more: claims never started, of
        another epoch of a shared queue, and all claims of an embedded queue whose process is dead."""

    def expire(self, limit: int) -> int:
        """Make ready the objects of leases that have ended; started ones are counted as a lost worker."""

    def candidates(self, source: SourceLoad, quota: int) -> Candidates:
        """The next `quota` due objects of a source after its cursor, held against others until the end."""

    def leaving(self, source: SourceLoad, quota: int) -> Candidates:
        """As `candidates`, of those alone that have tasks and no version to import: what was deleted, above all."""

    def newest(self, source: SourceLoad) -> Candidates:
        """The object of a source that became due last, if one is due: as `candidates`."""

    def claim(
        self,
        source: SourceLoad,
        batch: Candidates,
        epoch: str,
        seconds: float,
        *,
        alone: bool,
        each: tuple[float, float] = (0.0, 0.0),
    ) -> Claim:
        """Claim candidates under one new lease that ends in `seconds` unless it is renewed. `each` is how many tasks
        and bytes one of them should bring."""

    def save(self, source: SourceLoad) -> None:
        """Remember what is the scheduler's own of a source."""

    def deliveries(self) -> DeliveryTick:
        """The part of the deliveries."""

    def spend(self, project_id: int, tokens: float) -> None:
        """Remember a project's token bucket, as of now."""

    def note(self, notes: str) -> None:
        """Say what waits, as of now."""

    def press(self, pressure: tuple[float, float, int, float, float]) -> None:
        """Remember the database's pressure."""
