"""What the scheduler sees, and does in one turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.ledger.work import Standing


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
