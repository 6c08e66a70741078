"""A source during one turn of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline import throttle
from pipeline.config import Source
from pipeline.ledger import Candidates, SourceLoad
from pipeline.throttle import Cost, History, Permit, Wait


@dataclass(slots=True)
class Queueing:
    """What a source has, may have, and has got so far.

    `permits` are shared with others where a limit is. `short` says that no more of it can be had in this turn,
    `blocked` by which limit, and the `cost` of what it stopped; `left` that some that were found could not be claimed.
    Of a source whose project has tasks enough there are no others to be had than those `leaving`: they bring no task.
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
    found: Candidates = field(default_factory=Candidates)
    blocked: Permit | None = None
    cost: Cost | None = None
    wait: Wait | None = None
    leaving: Candidates | None = None
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

    def keep(self, found: Candidates) -> int:
        """Take candidates as long as every limit allows it; how many. With the first that one forbids the source has
        come to its end for this turn."""
        if not found:
            return 0
        kept = len(found)
        if not throttle.admit_all(self.permits, self.total(found)):
            kept = next((place for place in range(kept) if not self._keep(found[place : place + 1], place)), kept)
        if kept:
            self.found += found[:kept]
            self.cursor = (found.due[kept - 1], found.ids[kept - 1])
        return kept

    def _keep(self, one: Candidates, place: int) -> bool:
        cost = self.total(one)
        first = not self.load.claimed and not self.found and not place
        self.blocked = throttle.admit(self.permits, cost, first=first)
        if self.blocked is None:
            return True
        self.short = True
        self.cost = cost
        self.wait = self.blocked.wait(cost, self.now)
        return False

    def total(self, found: Candidates) -> Cost:
        """What objects should cost. Those that become a task by reference are not read."""
        count = len(found)
        if self.leaving is not None:
            return Cost(count, 0.0, 0.0 if by_reference(self.settings) else float(sum(found.sizes)))
        if by_reference(self.settings):
            return Cost(count, float(count), 0.0)
        size = sum(found.sizes)
        each = throttle.expected(self.history, round(size / count))
        return Cost(count, count * each.tasks, float(size) or count * each.bytes)

    def each(self, batch: Candidates) -> tuple[float, float]:
        """The tasks and bytes that one object of a batch should bring."""
        cost = self.total(batch)
        return cost.tasks / cost.objects, cost.bytes / cost.objects

    def after(self, now: float, *, passed_over: bool) -> SourceLoad:
        """What is to be remembered of the source."""
        ready = self.served if self.short else self.ready
        waiting = throttle.Waiting(self.load.id, ready, self.settings.weight, self.load.deficit)
        since = 0.0 if self.served or self.short else self.load.passed_over
        if passed_over and not self.short:
            since = min(since or now, now)
        return self.load._replace(
            cursor=self.cursor if self.leaving is None else self.load.cursor,
            deficit=throttle.owed(waiting, self.fair, self.served),
            passed_over=since,
        )


def by_reference(source: Source) -> bool:
    """Whether every object of a source becomes one task that only names it."""
    return source.as_ == "files" or source.format == "files"
