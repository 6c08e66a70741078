"""Claims of ready objects: one turn at a time, within the throttle, by fair share over sources.

A turn is one short transaction (`Ledger.tick`): end the leases that are over, look at the load, decide by
the pure arithmetic of `pipeline.throttle`, claim. Messages are sent after it; if that fails the claims are
undone. While the queue does not answer nothing is claimed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline import logs, throttle
from pipeline.config import Config, Limits, Throttle
from pipeline.consumers.broker import Queue
from pipeline.consumers.pausing import Pauses, claimable
from pipeline.consumers.waiting import Patience, our_error
from pipeline.errors import LabelfeedError, RetriableError, UnavailableError
from pipeline.faults import reached
from pipeline.ledger import Candidate, Claim, Ledger, Load, ProjectLoad, SourceLoad, Tick
from pipeline.metrics import Metrics

BUSY_SECONDS = 0.05
"""Between two turns while there is work, unless something wakes the scheduler."""
IDLE_SECONDS = 0.2
"""Between two turns while there is none."""
SHORTEST_SECONDS = 0.005
"""Between two turns, however often it is woken: events and commits come in hundreds."""
EXPIRED_CLAIMS = 100
"""Leases that one turn ends, at most."""
ROUNDS = 4
"""Times that one turn divides again what some sources could not use."""
CURSOR_SECONDS = 5.0
"""How long a source's claims go on from where they were before they look from the start again."""
ALONE_CLAIMS = 2
"""Claims of suspects at a time, waiting or running ..."""
ALONE_OBJECTS = 25
"""... and objects in one."""
GAUGE_SECONDS = 1.0
SWEEP_SECONDS = 5.0
SWEEP_ROWS = 5000

_START = (0.0, 0)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Turn:
    """What one turn did: claims to send, whether there is more to claim, leases that ended."""

    claims: list[Claim] = field(default_factory=list)
    more: bool = False
    ended: int = 0
    load: Load | None = None


@dataclass(slots=True)
class _Queueing:
    """A source during one turn."""

    load: SourceLoad
    weight: float
    room: int | None
    ready: int
    deficit: float
    cursor: tuple[float, int]
    fair: float = 0.0
    served: int = 0
    short: bool = False
    left: bool = False
    found: list[Candidate] = field(default_factory=list)

    @property
    def wants(self) -> int:
        """Objects that it could still be given in this turn."""
        return 0 if self.short else self.ready - len(self.found)


class Scheduler:
    """Claims objects and sends their messages, in the thread that calls `run`.

    `eager` tries the objects of a source that its failures paused without waiting in between: for a run that is to
    end when it has tried everything.
    """

    def __init__(self, config: Config, ledger: Ledger, queue: Queue, metrics: Metrics, *, eager: bool = False) -> None:
        self._limits: Limits = config.limits
        self._throttles: Mapping[str, Throttle] = {name: p.throttle for name, p in config.projects.items()}
        self._weights = {source.name: source.weight for source in config.sources}
        self._ledger = ledger
        self._queue = queue
        self._metrics = metrics
        self._patience = Patience("scheduler")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._finished: deque[tuple[float, int]] = deque()
        self._cursors_reset: dict[int, float] = {}
        self._gauged = self._swept = 0.0
        self._eager = eager
        self._pauses = Pauses(metrics)

    def run(self) -> None:
        """Work until `stop` is called."""
        self._metrics.set("up", 1, role="schedule")
        while not self._stop.is_set():
            try:
                more = self.step()
                if self._patience.tried:
                    self._patience.succeeded()
                    self._metrics.set("up", 1, role="schedule")
            except RetriableError as error:
                self._wait(error)
                continue
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                self._wait(our_error(error))
                continue
            self._stop.wait(SHORTEST_SECONDS)
            self._wake.wait(BUSY_SECONDS if more else IDLE_SECONDS)
            self._wake.clear()

    def _wait(self, error: LabelfeedError) -> None:
        self._metrics.set("up", 0, role="schedule")
        self._patience.wait(error, self._stop)

    @property
    def problem(self) -> str | None:
        """Why it waits, or None while it works."""
        return self._patience.problem

    def wake(self) -> None:
        """There may be something to claim: events were recorded, or a worker has committed."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return soon; nothing is claimed after that."""
        self._stop.set()
        self._wake.set()

    def step(self) -> bool:
        """One turn, its messages sent; whether there was work. Raises UnavailableError."""
        try:
            epoch = self._queue.epoch()
        except UnavailableError:
            self._ledger.tick(lambda tick: tick.expire(EXPIRED_CLAIMS))
            raise
        started = time.monotonic()
        turn = self._ledger.tick(lambda tick: self.turn(tick, epoch))
        if turn is None:
            return True
        self._metrics.observe("tick_duration_seconds", time.monotonic() - started)
        if turn.claims:
            reached("scheduler.claimed")
        self._send(turn.claims)
        self._tell(turn)
        self._sweep()
        return turn.more or bool(turn.claims)

    # --- inside the transaction ---

    def turn(self, tick: Tick, epoch: str) -> Turn:
        """Decide and claim; may be run again from its start after a conflict."""
        released = tick.release(epoch)
        ended = tick.expire(EXPIRED_CLAIMS) + released
        load = tick.load()
        room = self._room(load)
        rooms = self._project_rooms(tick, load)
        ours = [source for source in load.sources if self._ours(source)]
        sources = [
            self._queueing(source, ready, rooms.get(source.project_id))
            for source in ours
            if (ready := claimable(source, load.now, eager=self._eager))
        ]
        turn = Turn(ended=ended, load=load, more=bool(sources))
        if sources and self._queue_wants(room, load):
            self._find(tick, sources, room.objects)
            self._claim(tick, sources, epoch, room, load, turn)
            self._save(tick, sources)
        return turn

    def _ours(self, source: SourceLoad) -> bool:
        """Whether there is work that this configuration speaks of: an import by hand shares a ledger with others."""
        return source.ready > 0 and source.name in self._weights

    @staticmethod
    def _queue_wants(room: throttle.Room, load: Load) -> bool:
        return load.threads > 0 and room.objects > 0

    def _room(self, load: Load) -> throttle.Room:
        return throttle.room(
            in_flight=sum(source.claimed for source in load.sources),
            unstarted=load.unstarted,
            waiting=load.waiting,
            recent=self._recent(load),
            idle=max(0, load.threads - load.running),
            batch=self._limits.batch_objects,
            ceiling=self._limits.in_flight_objects,
        )

    def _recent(self, load: Load) -> int:
        """Objects that ended in the last RECENT_SECONDS, wherever their workers are."""
        now = time.monotonic()
        samples = self._finished
        if samples and load.finished < samples[-1][1]:
            samples.clear()
        samples.append((now, load.finished))
        while len(samples) > 2 and samples[1][0] <= now - throttle.RECENT_SECONDS:  # noqa: PLR2004 - one stays behind
            samples.popleft()
        return load.finished - samples[0][1]

    def _project_rooms(self, tick: Tick, load: Load) -> dict[int, int]:
        """How many objects each bounded project may be given now."""
        rooms = {}
        for project in load.projects:
            limits = self._throttles.get(project.name)
            if limits is None or not (limits.tasks_per_second or limits.max_tasks):
                continue
            bucket = self._refilled(tick, project, limits, load.now)
            in_flight = sum(source.claimed for source in load.sources if source.project_id == project.id)
            bound = throttle.project_room(
                tasks=project.tasks, in_flight=in_flight, bucket=bucket, max_tasks=limits.max_tasks
            )
            if bound is not None:
                rooms[project.id] = bound
        return rooms

    @staticmethod
    def _refilled(tick: Tick, project: ProjectLoad, limits: Throttle, now: float) -> throttle.Bucket | None:
        if not limits.tasks_per_second:
            return None
        before = throttle.Bucket(project.tokens, project.tokens_at)
        bucket = throttle.refill(before, now, limits.tasks_per_second, project.tasks)
        if bucket.allowed != before.allowed or before.at <= 0:
            tick.spend(project.id, bucket.allowed)
        return bucket

    def _queueing(self, source: SourceLoad, ready: int, room: int | None) -> _Queueing:
        cursor = source.cursor
        now = time.monotonic()
        if now - self._cursors_reset.setdefault(source.id, now) >= CURSOR_SECONDS:
            self._cursors_reset[source.id] = now
            cursor = _START
        return _Queueing(source, self._weights.get(source.name, 1.0), room, ready, source.deficit, cursor)

    def _find(self, tick: Tick, sources: Sequence[_Queueing], objects: int) -> None:
        """Take candidates by fair share. What is ready but not due yet shows here; others get its part."""
        for _ in range(ROUNDS):
            shares = throttle.share([self._waiting(source, sources) for source in sources], objects)
            for source in sources:
                quota, fair = shares[source.load.id]
                source.fair += fair
                # Two sources of one project may have been promised the same room.
                quota = min(quota, self._project_left(source, sources))
                if quota > 0:
                    objects -= self._take(tick, source, quota)
            if objects <= 0 or not any(source.short for source in sources):
                return

    def _waiting(self, source: _Queueing, sources: Sequence[_Queueing]) -> throttle.Waiting:
        ready = min(source.wants, self._project_left(source, sources))
        return throttle.Waiting(source.load.id, ready, source.weight, source.deficit + source.fair - len(source.found))

    @staticmethod
    def _project_left(source: _Queueing, sources: Sequence[_Queueing]) -> int:
        if source.room is None:
            return source.wants
        taken = sum(len(other.found) for other in sources if other.load.project_id == source.load.project_id)
        return max(0, source.room - taken)

    @staticmethod
    def _take(tick: Tick, source: _Queueing, quota: int) -> int:
        if source.load.standing.paused:
            found = tick.newest(source.load)  # whoever has mended something waits for the newest ones
        else:
            found = tick.candidates(source.load._replace(cursor=source.cursor), quota)
        source.found.extend(found)
        source.short = len(found) < quota
        if found:
            source.cursor = (found[-1].not_before, found[-1].id)
        return len(found)

    def _claim(
        self, tick: Tick, sources: Sequence[_Queueing], epoch: str, room: throttle.Room, load: Load, turn: Turn
    ) -> None:
        """Cut the candidates into claims, as many as there is room for, spread over idle threads."""
        idle = max(1, load.threads - load.running)
        total = sum(len(source.found) for source in sources)
        alone = ALONE_CLAIMS - load.alone
        budget = float(room.batches)
        # Who is owed most is served first, should the claims run out before the objects do.
        for source in sorted(sources, key=lambda source: -(source.deficit + source.fair)):
            healthy = [candidate for candidate in source.found if not candidate.lost]
            suspects = [candidate for candidate in source.found if candidate.lost]
            parts = max(1, round(idle * len(source.found) / total)) if total else 1
            for batch in throttle.batches(healthy, _size, self._limits.batch_objects, parts):
                if budget <= 0:
                    source.left = True
                    break
                budget -= throttle.cost(len(batch), sum(map(_size, batch)), self._limits.batch_objects)
                turn.claims.append(self._claimed(tick, source, batch, epoch, alone=False))
            if suspects and alone > 0:
                turn.claims.append(self._claimed(tick, source, suspects[:ALONE_OBJECTS], epoch, alone=True))
                alone -= 1
            self._place(source)

    def _claimed(self, tick: Tick, source: _Queueing, batch: Sequence[Candidate], epoch: str, *, alone: bool) -> Claim:
        source.served += len(batch)
        return tick.claim(source.load, batch, epoch, self._limits.lease, alone=alone)

    def _place(self, source: _Queueing) -> None:
        """Look from the beginning again where nothing more was found, or healthy candidates were left where they are.

        Suspects that must wait for their turn are passed by, or they would stand before all others."""
        if source.left or source.short or len(source.found) >= source.ready:
            source.cursor = _START
            self._cursors_reset[source.load.id] = time.monotonic()

    @staticmethod
    def _save(tick: Tick, sources: Sequence[_Queueing]) -> None:
        for source in sources:
            waiting = throttle.Waiting(source.load.id, source.ready, source.weight, source.deficit)
            if source.short:
                waiting = waiting._replace(ready=source.served)
            deficit = throttle.owed(waiting, source.fair, source.served)
            if (source.cursor, deficit) != (source.load.cursor, source.load.deficit):
                tick.save(source.load.id, source.cursor, deficit)

    # --- after the transaction ---

    def _send(self, claims: Sequence[Claim]) -> None:
        for number, claim in enumerate(claims):
            try:
                self._queue.send(claim)
            except UnavailableError:
                self._ledger.unclaim([unsent.lease for unsent in claims[number:]])
                raise
            self._metrics.add("claimed_objects_total", len(claim.ids), source=claim.source)

    def _tell(self, turn: Turn) -> None:
        if turn.ended:
            _log.warning(logs.LEASES_ENDED, extra={"objects": turn.ended})
            self._metrics.add("leases_ended_total", turn.ended, why="ended")
        now = time.monotonic()
        if turn.load is None or now - self._gauged < GAUGE_SECONDS:
            return
        self._gauged = now
        self._pauses.tell(turn.load.sources)
        self._metrics.set("in_flight_objects", sum(source.claimed for source in turn.load.sources))
        for source in turn.load.sources:
            self._metrics.set("ready_objects", source.ready, source=source.name)

    def _sweep(self) -> None:
        """Now and then delete some of what was staged and never published."""
        if time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        try:
            left = self._ledger.sweep(SWEEP_ROWS)
        except LabelfeedError as error:
            _log.warning(logs.WAITING, extra={"role": "sweep", "error": str(error)})
            left = 0
        self._swept = 0.0 if left else time.monotonic()


def _size(candidate: Candidate) -> int:
    return candidate.size
