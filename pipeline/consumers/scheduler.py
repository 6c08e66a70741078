"""Claims of ready objects: one turn at a time, within the throttle, by fair share over sources.

A turn is one short transaction (`Ledger.tick`, `pipeline.consumers.turns`). Messages are sent after it; if that
fails the claims are undone. While the queue does not answer nothing is claimed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pipeline import logs
from pipeline.config import Config
from pipeline.consumers.broker import Queue
from pipeline.consumers.counting import Counting
from pipeline.consumers.delivering import counted
from pipeline.consumers.notes import Notes
from pipeline.consumers.pausing import Pauses
from pipeline.consumers.turns import Turn, Turns
from pipeline.errors import LabelfeedError
from pipeline.faults import reached
from pipeline.ledger import Claim, Ledger, Tick
from pipeline.metrics import Metrics
from pipeline.throttle import Wait
from pipeline.waiting import Patience, our_error

BUSY_SECONDS = 0.05
"""Between two turns while objects are claimed, unless something wakes the scheduler."""
WAITING_SECONDS = 0.1
"""... while there are some, but no room for them: then the workers have work for longer than this, or are to have less
than they could do while the database is slow."""
IDLE_SECONDS = 0.2
"""... while there are none."""
SHORTEST_SECONDS = 0.02
"""Between two turns, however often it is woken: events and commits come in hundreds."""
SUPPLIED_SECONDS = 0.05
"""... and while a further claim that is no crumb waits for each worker thread: nobody stands idle meanwhile."""
GAUGE_SECONDS = 1.0
SWEEP_SECONDS = 5.0
SWEEP_ROWS = 5000

_log = logging.getLogger(__name__)


class Scheduler:
    """Claims objects and sends their messages, in the thread that calls `run`.

    `eager` tries the objects of a source that its failures paused without waiting in between: for a run that is to
    end when it has tried everything. `windows` says by source how many objects of a claim are read at once.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        queue: Queue,
        metrics: Metrics,
        *,
        eager: bool = False,
        windows: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        projects = config.projects.items()
        there = {name.partition("/")[0] for name in counted(config)}
        self._counting = Counting(
            unlabelled=[name for name, project in projects if project.throttle.open_tasks and name not in there],
            there=there,
            undelivered=[
                name for name, project in projects if project.deliveries and project.throttle.undelivered_tasks
            ],
        )
        self._turns = Turns(config, self._counting, eager=eager, windows=windows)
        self._notes = Notes(config, metrics)
        self._ledger = ledger
        self._queue = queue
        self._metrics = metrics
        self._patience = Patience("scheduler")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._gauged = self._swept = 0.0
        self._shortest = SHORTEST_SECONDS
        self._pauses = Pauses(metrics)
        self._held: Mapping[str, str] = {}

    def run(self) -> None:
        """Work until `stop` is called."""
        self._metrics.set("up", 1, role="schedule")
        while not self._stop.is_set():
            try:
                pause = self.step()
                if self._patience.tried:
                    self._patience.succeeded()
                    self._metrics.set("up", 1, role="schedule")
            except LabelfeedError as error:
                self._wait(error)
                continue
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                self._wait(our_error(error))
                continue
            self._stop.wait(self._shortest)
            if self._wake.wait(pause) and not self._stop.is_set():
                self._held = {}
            self._wake.clear()

    def _wait(self, error: LabelfeedError) -> None:
        self._metrics.set("up", 0, role="schedule")
        self._metrics.add("errors_total", stage="schedule", code=error.code)
        self._patience.wait(error, self._stop)

    @property
    def problem(self) -> str | None:
        """Why it waits, or None while it works."""
        return self._patience.problem

    @property
    def held(self) -> Mapping[str, str]:
        """Sources of which something is ready that no passing of time lets go on, and why, for a person. None until
        the next turn once something has happened: it may be what one of them waited for."""
        return {} if self._wake.is_set() and not self._stop.is_set() else self._held

    def wake(self) -> None:
        """There may be something to claim: events were recorded, or a worker has committed."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return soon; nothing is claimed after that."""
        self._stop.set()
        self._wake.set()

    def step(self) -> float:
        """One turn, its messages sent; seconds after which the next one is due. Raises LabelfeedError."""
        try:
            epoch = self._queue.epoch()
        except LabelfeedError:
            self._ledger.tick(self._without_queue)
            raise
        self._counting.look(self._ledger.reports())
        started = time.monotonic()
        turn = self._ledger.tick(lambda tick: self._turn(tick, epoch))
        if turn is None:
            return BUSY_SECONDS
        self._metrics.observe("tick_duration_seconds", time.monotonic() - started)
        if turn.claims:
            reached("scheduler.claimed")
        self._send(turn.claims)
        self._tell(turn)
        self._sweep()
        self._shortest = SUPPLIED_SECONDS if turn.supplied else SHORTEST_SECONDS
        if turn.claims:
            return BUSY_SECONDS
        return WAITING_SECONDS if turn.more else IDLE_SECONDS

    # --- inside the transaction ---

    def _turn(self, tick: Tick, epoch: str) -> Turn:
        turn = self._turns.take(tick, epoch)
        self._notes.keep(tick, turn)
        return turn

    def _without_queue(self, tick: Tick) -> None:
        self._notes.keep(tick, self._turns.waiting(tick, Wait("queue")))

    # --- after the transaction ---

    def _send(self, claims: Sequence[Claim]) -> None:
        for number, claim in enumerate(claims):
            try:
                self._queue.send(claim)
            except LabelfeedError:
                self._ledger.unclaim([unsent.lease for unsent in claims[number:]])
                raise
            self._metrics.add("claimed_objects_total", len(claim.ids), source=claim.source)
            fields = {"lease": claim.lease, "source": claim.source, "objects": len(claim.ids)}
            _log.info(logs.OBJECTS_CLAIMED, extra=fields)

    def _tell(self, turn: Turn) -> None:
        self._held = turn.held
        self._notes.count(turn)
        if turn.ended:
            _log.warning(logs.LEASES_ENDED, extra={"objects": turn.ended})
            self._metrics.add("leases_ended_total", turn.ended, why="ended")
        now = time.monotonic()
        if turn.load is None or now - self._gauged < GAUGE_SECONDS:
            return
        self._gauged = now
        self._pauses.tell(turn.load.sources)
        self._notes.gauge(turn)
        self._metrics.set("in_flight_objects", sum(source.claimed for source in turn.load.sources))
        self._metrics.set("in_flight_bytes", sum(source.expected[1] for source in turn.load.sources))
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
