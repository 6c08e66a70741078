"""One turn of the scheduler, inside its transaction: look at the load, decide by the pure arithmetic of
`pipeline.throttle`, claim, and say what waits and why.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pipeline import throttle
from pipeline.config import Config
from pipeline.consumers.counting import Counting
from pipeline.consumers.pausing import claimable
from pipeline.consumers.permits import Permits
from pipeline.consumers.queueing import Queueing
from pipeline.ledger import Candidates, Claim, Load, SourceLoad, Tick
from pipeline.throttle import Cost, Wait

EXPIRED_CLAIMS = 100
"""Leases that one turn ends, at most."""
ROUNDS = 4
"""Times that one turn divides again what some sources could not use."""
CURSOR_SECONDS = 5.0
"""How long a source's claims go on from where they were before they look from the start again."""
REMEMBER_SECONDS = 1.0
"""How long it is believed that a source's next object costs as much as it did when a rate stopped it."""
ALONE_CLAIMS = 2
"""Claims of suspects at a time, waiting or running ..."""
ALONE_OBJECTS = 25
"""... and objects in one."""

SUPPLY_SECONDS = 0.1
"""What waits for a thread behind the claim that it works on is to keep it busy for so long, or claims are made as soon
as they can be."""
LEAVING_OBJECTS = 500
"""Deletions of one source that a turn looks at while its project has tasks enough."""

_START = (0.0, 0)
_LEAST = Cost(1, 1.0, 1.0)


class _Stopped(NamedTuple):
    """What the object that a rate stopped should cost, by what was `read` of its source, until when (by the clock)
    that is believed."""

    cost: Cost
    read: tuple[int, int, int]
    until: float


@dataclass(slots=True)
class Turn:
    """What one turn did and saw: claims to send, whether there is more to claim, leases that ended, the load, and
    by name what sources and projects wait for. `held` are sources that will go on by no passing of time; `enough`
    objects keep a thread busy for SUPPLY_SECONDS."""

    claims: list[Claim] = field(default_factory=list)
    more: bool = False
    ended: int = 0
    load: Load | None = None
    sources: dict[str, Wait] = field(default_factory=dict)
    projects: dict[str, Wait] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    enough: float = 0.0

    @property
    def supplied(self) -> bool:
        """Whether a claim waits for each thread behind the one that it works on, and all of them are enough. Those that
        idle threads take are as large as the others, as far as is known."""
        load = self.load
        if load is None or load.threads <= 0:
            return False
        made = [len(claim.ids) for claim in self.claims if not claim.alone]
        claims, objects = load.waiting + len(made), load.unstarted + sum(made)
        behind = claims - max(0, load.threads - load.running)
        return behind >= load.threads and objects * behind >= claims * load.threads * self.enough


class Turns:
    """Takes turns; keeps in mind what may be forgotten. `eager` and `windows` as the scheduler has them; `clock` is
    monotonic."""

    def __init__(
        self,
        config: Config,
        counting: Counting,
        *,
        eager: bool = False,
        windows: Mapping[str, int] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._config = config
        self._limits = config.limits
        self._known = {source.name: source for source in config.sources}
        self._counting = counting
        self._eager = eager
        self._finished: deque[tuple[float, int]] = deque()
        self._pace = throttle.Pace()
        self._windows = windows
        self._cursors_reset: dict[int, float] = {}
        self._stopped: dict[int, _Stopped] = {}
        self._left: dict[int, tuple[float, int]] = {}

    def take(self, tick: Tick, epoch: str) -> Turn:
        """Decide and claim; may be run again from its start after a conflict."""
        released = tick.release(epoch)
        ended = tick.expire(EXPIRED_CLAIMS) + released
        load = tick.load()
        turn = Turn(ended=ended, load=load)
        permits = Permits(self._config, load, self._counting)
        queue = self._queue(tick, permits, load, turn)
        turn.more = bool(queue)
        room = self._room(tick, load, queue)
        turn.enough = self._pace.ends(SUPPLY_SECONDS)
        if queue and room.objects > 0:
            self._find(tick, queue, room.objects)
            self._claim(tick, queue, epoch, room, turn)
        self._save(tick, queue, permits, load)
        self._explain(queue, permits, room, turn)
        return turn

    def waiting(self, tick: Tick, why: Wait) -> Turn:
        """A turn in which nothing can be claimed, whatever there is."""
        turn = Turn(ended=tick.expire(EXPIRED_CLAIMS), load=tick.load())
        assert turn.load is not None
        turn.sources = {source.name: why for source in turn.load.sources if self._ours(source)}
        return turn

    # --- what there is ---

    def _ours(self, source: SourceLoad) -> bool:
        """Whether there is work that this configuration speaks of: an import by hand shares a ledger with others."""
        return source.ready > 0 and source.name in self._known

    def _queue(self, tick: Tick, permits: Permits, load: Load, turn: Turn) -> list[Queueing]:
        """The sources of which something may be claimed; of the others `turn` learns what they wait for."""
        queue = []
        for source in filter(self._ours, load.sources):
            wait = self._wait(source, permits, load)
            leaving = self._leaving(tick, source) if wait is not None and wait.why in throttle.ENOUGH else None
            if wait is not None and not leaving:
                turn.sources[source.name] = wait
                continue
            ready = claimable(source, load.now, eager=self._eager)
            own = permits.of(source)
            each = Queueing(self._placed(source), self._known[source.name], own, ready, load.now)
            if leaving:
                each.leaving, each.wait, each.ready = leaving, wait, min(ready, len(leaving))
                each.permits = [permit for permit in own if permit.unit != "tasks"]
            queue.append(each)
        return queue

    def _leaving(self, tick: Tick, source: SourceLoad) -> Candidates:
        """What takes tasks away, or leaves them as they are: a full project could not be emptied without it. It goes
        on where it was, as `_placed`, and looks from the start once there is nothing more behind."""
        place = self._left.pop(source.id, _START)
        found = tick.leaving(source._replace(cursor=place), LEAVING_OBJECTS)
        if found or place == _START:
            return found
        return tick.leaving(source._replace(cursor=_START), LEAVING_OBJECTS)

    def _wait(self, source: SourceLoad, permits: Permits, load: Load) -> Wait | None:
        """Why nothing of a source need be looked at."""
        if permits.paused(source) or source.standing.paused == "hand":
            return Wait("paused")
        if not claimable(source, load.now, eager=self._eager):
            return Wait("failing", source.standing.probe_due)
        cost = self._next_cost(source)
        blocking = next((permit for permit in permits.of(source) if not permit.admits(cost)), None)
        return None if blocking is None or blocking.first else blocking.wait(cost, load.now)

    def _next_cost(self, source: SourceLoad) -> Cost:
        """What the next object of a source should cost: the least that anything does, or what the one that a rate
        stopped does, as long as nothing more is known of it. What limits have left is asked anew in each turn: what is
        under way may give back most of what was guessed of it."""
        stopped = self._stopped.get(source.id)
        if stopped is not None and stopped.read == source.read and self._clock() < stopped.until:
            return stopped.cost
        self._stopped.pop(source.id, None)
        return _LEAST

    def _placed(self, source: SourceLoad) -> SourceLoad:
        """A source whose claims go on where they were, or now and then from the start."""
        now = self._clock()
        if now - self._cursors_reset.setdefault(source.id, now) >= CURSOR_SECONDS:
            self._cursors_reset[source.id] = now
            return source._replace(cursor=_START)
        return source

    def _room(self, tick: Tick, load: Load, queue: Sequence[Queueing]) -> throttle.Room:
        flight = throttle.Flight(
            objects=sum(source.claimed for source in load.sources),
            unstarted=load.unstarted,
            waiting=load.waiting,
            running=load.running,
            threads=load.threads,
            recent=self._recent(load),
        )
        full = [self._batch(source) for source in queue] or [self._limits.batch_objects]
        ceiling = self._limits.in_flight_objects
        return throttle.room(flight, batch=max(full), ceiling=ceiling, bound=self._bound(tick, load), least=min(full))

    def _batch(self, source: Queueing) -> int:
        """How many objects make a full batch of a source."""
        return self._pace.batch(self._limits.batch_objects, self._windows.get(source.load.name, 1))

    def _recent(self, load: Load) -> int:
        """Objects that ended in the last RECENT_SECONDS, wherever their workers are."""
        now = self._clock()
        samples = self._finished
        if samples and load.finished < samples[-1][1]:
            samples.clear()
        elif samples:
            at, before = samples[-1]
            self._pace = self._pace.after(load.finished - before, load.running, now - at)
        samples.append((now, load.finished))
        while len(samples) > 2 and samples[1][0] <= now - throttle.RECENT_SECONDS:  # noqa: PLR2004 - one stays behind
            samples.popleft()
        return load.finished - samples[0][1]

    def _bound(self, tick: Tick, load: Load) -> int:
        """How many claims the database can take at once, by how long commits took of late; 0 for any number."""
        if self._limits.database_pressure == "off":
            return 0
        before = throttle.Pressure(*load.shared.pressure)
        after = throttle.adapt(before, load.now, *load.commits, load.threads)
        if (after.bound, after.commits) != (before.bound, before.commits):
            tick.press((after.bound, after.best, after.commits, after.seconds, after.at))
        return throttle.claims(after)

    # --- who gets what ---

    def _find(self, tick: Tick, queue: Sequence[Queueing], objects: int) -> None:
        """Take candidates by fair share, class by class. What is ready but not due yet, or not allowed, shows here;
        others get its part."""
        for rank in sorted({source.rank for source in queue}, reverse=True):
            group = [source for source in queue if source.rank == rank]
            for _ in range(ROUNDS):
                objects -= sum(self._look(tick, source, quota) for source, quota in _shared(group, objects))
                if objects <= 0:
                    return
                if not any(source.short for source in group):
                    break

    def _look(self, tick: Tick, source: Queueing, quota: int) -> int:
        """Look for so many candidates, and keep those that every limit allows; how many."""
        if quota <= 0:
            return 0
        if source.leaving is not None:
            found = source.leaving[len(source.found) :][:quota]
        elif source.load.standing.paused:
            found = tick.newest(source.load)  # whoever has mended something waits for the newest ones
        else:
            found = tick.candidates(source.load._replace(cursor=source.cursor), quota)
        kept = source.keep(found)
        if kept < len(found):
            self._remember(source)
        source.short = source.short or len(found) < quota
        return kept

    def _remember(self, source: Queueing) -> None:
        """Look no sooner than the rate that was met allows what it stopped."""
        if source.blocked is not None and source.blocked.rate and source.cost is not None:
            until = self._clock() + REMEMBER_SECONDS
            self._stopped[source.load.id] = _Stopped(source.cost, source.load.read, until)

    def _claim(self, tick: Tick, queue: Sequence[Queueing], epoch: str, room: throttle.Room, turn: Turn) -> None:
        """Cut the candidates into claims, as many as there is room for, spread over idle threads."""
        load = turn.load
        assert load is not None
        idle = max(1, load.threads - load.running)
        total = sum(len(source.found) for source in queue)
        alone = ALONE_CLAIMS - load.alone
        budget = float(room.batches)
        # Who is owed most is served first, should the claims run out before the objects do.
        for source in sorted(queue, key=lambda source: (-source.rank, -(source.load.deficit + source.fair))):
            healthy, suspects = source.found.parted()
            parts = max(1, round(idle * len(source.found) / total)) if total else 1
            most = self._batch(source)
            for places in throttle.batches(healthy.sizes, most, parts):
                if budget <= 0:
                    source.left = True
                    break
                batch = healthy[places.start : places.stop]
                budget -= throttle.cost(len(batch), sum(batch.sizes), most)
                turn.claims.append(self._claimed(tick, source, batch, epoch, alone=False))
            if suspects and alone > 0:
                turn.claims.append(self._claimed(tick, source, suspects[:ALONE_OBJECTS], epoch, alone=True))
                alone -= 1
            self._place(source)

    def _claimed(self, tick: Tick, source: Queueing, batch: Candidates, epoch: str, *, alone: bool) -> Claim:
        source.served += len(batch)
        return tick.claim(source.load, batch, epoch, self._limits.lease, alone=alone, each=source.each(batch))

    def _place(self, source: Queueing) -> None:
        """Look from the beginning again where nothing more was found, or healthy candidates were left where they are.

        Suspects that must wait for their turn are passed by, or they would stand before all others."""
        if source.leaving is not None:
            if source.found and not source.left:
                self._left[source.load.id] = source.cursor
            return
        exhausted = source.short and source.blocked is None
        if source.left or exhausted or len(source.found) >= source.ready:
            source.cursor = _START
            self._cursors_reset[source.load.id] = self._clock()

    # --- what is kept, and told ---

    def _save(self, tick: Tick, queue: Sequence[Queueing], permits: Permits, load: Load) -> None:
        waiting = {each.load.id for each in queue}
        for source in load.sources:
            back = permits.set_back(source)
            if (source.passed_over or back) and source.id not in waiting:
                tick.save((permits.with_bucket(source) if back else source)._replace(passed_over=0.0))
        _level(queue)
        highest = max((each.rank for each in queue if each.served), default=-1)
        for each in queue:
            after = each.after(load.now, passed_over=not each.served and each.rank < highest)
            back = permits.set_back(each.load)
            if back or after != each.load:
                tick.save(permits.with_bucket(after) if back or each.served else after)
        permits.save(tick, {each.load.project_id for each in queue if each.served})

    def _explain(self, queue: Sequence[Queueing], permits: Permits, room: throttle.Room, turn: Turn) -> None:
        load = turn.load
        assert load is not None
        for each in queue:
            wait = Wait("workers") if load.threads <= 0 else each.wait or self._behind(each, room, load)
            if wait is not None:
                turn.sources[each.load.name] = wait
        ready = {source.project_id for source in load.sources if source.ready}
        for project in load.projects:
            if project.name in self._config.projects:
                wait = permits.project_wait(project, wanted=project.id in ready)
                if wait is not None:
                    turn.projects[project.name] = wait
        busy = {source.project_id for source in load.sources if source.claimed}
        busy |= {each.load.project_id for each in queue if each.leaving}
        busy |= {
            project.id
            for project in load.projects
            if project.name in turn.projects
            and turn.projects[project.name].why in ("enough", "uncounted")
            and not self._counting.open_exactly(project)
        }
        turn.held = {
            source.name: throttle.told(turn.sources[source.name], load.now)
            for source in load.sources
            if _held(turn.sources.get(source.name), source, busy)
        }

    def _behind(self, each: Queueing, room: throttle.Room, load: Load) -> Wait | None:
        """Why a source that no limit of its own stops was given less than it has ready."""
        if each.served >= each.ready:
            return None
        if each.short and not each.left:
            return None if each.served or each.load.claimed else Wait("back_off")
        others = [other for other in load.sources if other.id != each.load.id and other.claimed]
        if others and not each.served:
            return Wait("share", behind=max(others, key=lambda other: other.claimed).name)
        bound = throttle.claims(throttle.Pressure(*load.shared.pressure))
        pressed = self._limits.database_pressure == "auto" and 0 < bound < load.threads and not room.objects
        return Wait("database") if pressed else None


def _shared(group: Sequence[Queueing], objects: int) -> Iterator[tuple[Queueing, int]]:
    shares = throttle.share([source.waiting() for source in group], objects)
    for source in group:
        quota, fair = shares[source.load.id]
        source.fair += fair
        yield source, quota


def _level(queue: Sequence[Queueing]) -> None:
    """Cut fair parts down to what was really claimed: there may have been fewer claims to give than objects, and what
    nobody got is owed to nobody."""
    for rank in {each.rank for each in queue}:
        group = [each for each in queue if each.rank == rank]
        fair, served = sum(each.fair for each in group), sum(each.served for each in group)
        for each in group:
            each.fair *= served / fair if fair else 0.0


def _held(wait: Wait | None, source: SourceLoad, busy: AbstractSet[int]) -> bool:
    """Whether no passing of time lets a source go on. What is under way may leave more room than was expected."""
    return wait is not None and (wait.why == "paused" or (wait.why in throttle.HELD and source.project_id not in busy))
