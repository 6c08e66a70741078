"""A model of ledger and workers with a clock of its own: minutes of scheduling in a second, with the real turns."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config import Config
from pipeline.consumers.counting import Counting
from pipeline.consumers.turns import Turn, Turns
from pipeline.ledger import Candidates, Claim, Load, ProjectLoad, Shared, SourceLoad

EPOCH = "model"
BEGIN = 1000.0


@dataclass(slots=True)
class Thing:
    """An object: what its event tells of it, and what it will give; one that `leaves` takes what it gave before."""

    id: int
    due: float
    size: int
    tasks: int
    leaves: bool = False


@dataclass(slots=True)
class Place:
    """A source of the model: what waits in it, and what was done of it."""

    load: SourceLoad
    ready: deque[Thing] = field(default_factory=deque)
    claimed: int = 0
    expected: tuple[float, float] = (0.0, 0.0)
    read: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class Lease:
    """A claim under way."""

    source: str
    things: list[Thing]
    each: tuple[float, float]


class World:
    """Sources, workers and any number of schedulers on one simulated clock.

    `seconds` is how long an object takes, `commit` how long a commit does while so many claims are being worked on.
    `behind` is how far the database's clock was set back.
    """

    def __init__(
        self,
        config: Config,
        *,
        threads: int = 4,
        seconds: float = 0.002,
        schedulers: int = 1,
        commit: Callable[[int], float] = lambda _: 0.0,
        counting: Counting | None = None,
    ) -> None:
        self.now = BEGIN
        self.behind = 0.0
        self.commit = commit
        self.told = (0, 0.0)
        self.config = config
        self.seconds = seconds
        self.threads = threads
        self.busy = 0
        self.waiting: deque[int] = deque()
        self.leases: dict[int, Lease] = {}
        self.ends: list[tuple[float, int]] = []
        self.shared = Shared()
        self.projects = {
            name: ProjectLoad(number, name, 0, 0.0, 0.0) for number, name in enumerate(config.projects, start=1)
        }
        self.places = {
            source.name: Place(SourceLoad(number, source.name, self.projects[source.project].id, 0, 0, (0.0, 0), 0.0))
            for number, source in enumerate(config.sources, start=1)
        }
        self.served: Counter[str] = Counter()
        self.claims: list[tuple[float, str, list[Thing]]] = []
        self.commits: list[tuple[float, str, list[Thing]]] = []
        self.turns = [Turns(config, counting or Counting(), clock=lambda: self.now) for _ in range(schedulers)]
        self.last = Turn()
        self._numbers = 0

    def put(self, source: str, count: int, *, size: int = 100, tasks: int = 1, leaves: bool = False) -> None:
        """Let so many objects wait."""
        for _ in range(count):
            self._numbers += 1
            self.places[source].ready.append(Thing(self._numbers, self.now, size, tasks, leaves))

    def run(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass: the schedulers take turns one after another."""
        end, number = self.now + seconds, 0
        while self.now < end - 1e-9:
            self._end_work()
            self.last = self.turns[number % len(self.turns)].take(self, EPOCH)  # type: ignore[arg-type]  # no deliveries
            self._begin_work()
            number += 1
            self.now += step

    def tasks(self, project: str) -> int:
        """Live tasks of a project."""
        return self.projects[project].tasks

    # --- workers ---

    def _begin_work(self) -> None:
        while self.waiting and self.busy < self.threads:
            lease = self.waiting.popleft()
            self.busy += 1
            took = self.commit(self.busy)
            self.told = (self.told[0] + 1, self.told[1] + took)
            heapq.heappush(self.ends, (self.now + self.seconds * len(self.leases[lease].things) + took, lease))

    def _end_work(self) -> None:
        while self.ends and self.ends[0][0] <= self.now:
            at, number = heapq.heappop(self.ends)
            lease = self.leases.pop(number)
            self.busy -= 1
            self._commit(lease, at)
            self._begin_work()

    def _commit(self, lease: Lease, at: float) -> None:
        place, count = self.places[lease.source], len(lease.things)
        read = [thing for thing in lease.things if not thing.leaves]
        tasks, size = sum(thing.tasks for thing in read), sum(thing.size for thing in read)
        place.claimed -= count
        place.expected = (place.expected[0] - count * lease.each[0], place.expected[1] - count * lease.each[1])
        place.read = (place.read[0] + len(read), place.read[1] + tasks, place.read[2] + size)
        name = self.config.source(lease.source).project
        before = self.projects[name]
        gone = sum(thing.tasks for thing in lease.things if thing.leaves)
        self.projects[name] = before._replace(tasks=before.tasks + tasks - gone, imported=before.imported + tasks)
        self.commits.append((at, lease.source, lease.things))

    # --- what a tick is ---

    def load(self) -> Load:
        """As `Tick.load`."""
        running = [lease for lease in self.leases if lease not in self.waiting]
        return Load(
            now=self.now - self.behind,
            sources=[
                place.load._replace(
                    ready=len(place.ready), claimed=place.claimed, expected=place.expected, read=place.read
                )
                for place in self.places.values()
            ],
            projects=list(self.projects.values()),
            unstarted=sum(len(self.leases[lease].things) for lease in self.waiting),
            running=len(running),
            threads=self.threads,
            finished=sum(place.read[0] for place in self.places.values()),
            waiting=len(self.waiting),
            commits=self.told,
            shared=self.shared,
        )

    def release(self, epoch: str) -> int:
        """As `Tick.release`."""
        return 0

    def expire(self, limit: int) -> int:
        """As `Tick.expire`."""
        return 0

    def candidates(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.candidates`: in order, after the cursor."""
        found = (thing for thing in self.places[source.name].ready if (thing.due, thing.id) > source.cursor)
        return Candidates.of((each.id, each.due, each.size, 0) for each, _ in zip(found, range(quota), strict=False))

    def leaving(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.leaving`."""
        ready = (thing for thing in self.places[source.name].ready if thing.leaves)
        found = (thing for thing in ready if (thing.due, thing.id) > source.cursor)
        return Candidates.of((each.id, each.due, each.size, 0) for each, _ in zip(found, range(quota), strict=False))

    def claim(
        self, source: SourceLoad, batch: Candidates, epoch: str, seconds: float, *, alone: bool, each: Any
    ) -> Claim:
        """As `Tick.claim`."""
        place, ids = self.places[source.name], set(batch.ids)
        among = [thing for thing in place.ready if thing.leaves] if each[0] == 0 else place.ready
        things = [thing for thing, _ in zip(among, batch, strict=False)]
        assert {thing.id for thing in things} == ids, "candidates are claimed in their order"
        place.ready = deque(thing for thing in place.ready if thing.id not in ids)
        place.claimed += len(things)
        place.expected = (place.expected[0] + len(things) * each[0], place.expected[1] + len(things) * each[1])
        self._numbers += 1
        self.leases[self._numbers] = Lease(source.name, things, each)
        self.waiting.append(self._numbers)
        self.served[source.name] += len(things)
        self.claims.append((self.now, source.name, things))
        return Claim(self._numbers, source.name, tuple(ids))

    def save(self, source: SourceLoad) -> None:
        """As `Tick.save`."""
        self.places[source.name] = replace(self.places[source.name], load=source)

    def spend(self, project_id: int, tokens: float) -> None:
        """As `Tick.spend`."""
        (name,) = (name for name, project in self.projects.items() if project.id == project_id)
        self.projects[name] = self.projects[name]._replace(tokens=tokens, tokens_at=self.now - self.behind)

    def press(self, pressure: Any) -> None:
        """As `Tick.press`."""
        self.shared = self.shared._replace(pressure=pressure)


def heaviest(happened: list[tuple[float, str, list[Thing]]], unit: str, rate: float) -> float:
    """By how much what happened was ever above a rate, over all windows of time."""
    most, level, last = 0.0, 0.0, BEGIN
    for at, _, things in happened:
        # What a bucket of this rate would have to hold: the largest excess of any window that ends here.
        level = max(0.0, level - rate * (at - last)) + sum(getattr(thing, unit) for thing in things)
        most, last = max(most, level), at
    return most
