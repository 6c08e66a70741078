"""A source during one turn of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline import throttle
from pipeline.config import Source
from pipeline.ledger import Candidate, SourceLoad
from pipeline.throttle import Cost, History, Permit, Wait


@dataclass(slots=True)
class Queueing:
    """What a source has, may have, and has got so far.

    `permits` are shared with others where a limit is. `short` says that no more of it can be had in this turn,
    `blocked` by which limit; `left` that some that were found could not be claimed.
    """

    load: SourceLoad
    settings: Source
    permits: Sequence[Permit]
    ready: int
    now: float
    fair: float = 0.0
    served: int = 0
    short: bool = False
    left: bool = False
    found: list[Candidate] = field(default_factory=list)
    blocked: Permit | None = None
    wait: Wait | None = None
    cursor: tuple[float, int] = field(init=False)
    rank: int = field(init=False)
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.cursor = self.load.cursor
        self.rank = throttle.rank(self.settings.priority, self.load.passed_over, self.now)
        self.history = History(*self.load.read)

    def waiting(self) -> throttle.Waiting:
        """As the division of shares wants it: nothing is wanted beyond what every limit may allow."""
        wants = 0 if self.short else self.ready - len(self.found)
        bound = throttle.most(self.permits, throttle.expected(self.history, 0)) if wants else None
        if bound is not None:
            wants = min(wants, bound)
        deficit = self.load.deficit + self.fair - len(self.found)
        return throttle.Waiting(self.load.id, wants, self.settings.weight, deficit)

    def keep(self, candidate: Candidate) -> bool:
        """Take a candidate if every limit allows it; else the source has come to its end for this turn."""
        cost = self.cost(candidate)
        first = not self.load.claimed and not self.found
        self.blocked = throttle.admit(self.permits, cost, first=first)
        if self.blocked is not None:
            self.short = True
            self.wait = self.blocked.wait(cost, self.now)
            return False
        self.found.append(candidate)
        self.cursor = (candidate.not_before, candidate.id)
        return True

    def cost(self, candidate: Candidate) -> Cost:
        """What an object should cost. One that becomes a task by reference is not read."""
        cost = throttle.expected(self.history, candidate.size)
        return cost._replace(tasks=1.0, bytes=0.0) if by_reference(self.settings) else cost

    def each(self, batch: Sequence[Candidate]) -> tuple[float, float]:
        """The tasks and bytes that one object of a batch should bring."""
        costs = [self.cost(candidate) for candidate in batch]
        return sum(cost.tasks for cost in costs) / len(costs), sum(cost.bytes for cost in costs) / len(costs)

    def after(self, now: float, *, passed_over: bool) -> SourceLoad:
        """What is to be remembered of the source."""
        ready = self.served if self.short else self.ready
        waiting = throttle.Waiting(self.load.id, ready, self.settings.weight, self.load.deficit)
        since = 0.0 if self.served or self.short else self.load.passed_over
        if passed_over and not self.short:
            since = since or now
        return self.load._replace(
            cursor=self.cursor, deficit=throttle.owed(waiting, self.fair, self.served), passed_over=since
        )


def by_reference(source: Source) -> bool:
    """Whether every object of a source becomes one task that only names it."""
    return source.as_ == "files" or source.format == "files"
