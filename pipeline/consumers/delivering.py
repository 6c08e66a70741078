"""Grants of deliveries: the other half of the scheduler's tick, which holds `imports_every` over all processes.

It takes turns of its own in the same tick (`Ledger.tick`), so that one of them at a time is taken by anybody, and so
that neither half waits for the other. What may be begun is decided by `pipeline.ledger.deliveries.next_steps`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline import logs
from pipeline.config import Config
from pipeline.consumers.broker import Queue
from pipeline.errors import LabelfeedError
from pipeline.faults import reached
from pipeline.ledger import Ledger, Tick
from pipeline.ledger.deliveries import DeliveryLoad, Granted, Step, next_steps
from pipeline.ledger.labelling import LABELLED, with_counts
from pipeline.ledger.waits import delivery_waits
from pipeline.metrics import Metrics
from pipeline.waiting import Patience, our_error

BUSY_SECONDS = 0.05
"""Between two turns, at least ..."""
IDLE_SECONDS = 0.2
"""... and so much more while there is nothing to do, unless something wakes it."""
GRANT_SECONDS, LONGEST_GRANT_SECONDS = 15.0, 600.0
"""How long a grant waits for a sender to start it, then it is given to another one; twice as long each time that nobody
did, where no other delivery waits for it. Its message may still be in the queue, behind other work."""
BACKFILL_OBJECTS = 2_000
"""Objects that one turn puts into the outbox of a delivery that is new to its project."""
TELL_SECONDS = 2.0
SWEEP_SECONDS = 60.0
SWEEP_ROWS = 5_000

_log = logging.getLogger(__name__)


class Turned(NamedTuple):
    """What a turn did: grants to send messages of, each with how its delivery stood before, at which time; grants that
    ended, objects put into an outbox."""

    grants: list[tuple[DeliveryLoad, Step, Granted]]
    at: float
    ended: int
    filled: int


class Delivering:
    """Grants deliveries what they may do, in the thread that calls `run`."""

    def __init__(self, config: Config, ledger: Ledger, queue: Queue, metrics: Metrics) -> None:
        self._every = every(config)
        self._counted = counted(config)
        self._projects = {name: project.throttle.imports_every for name, project in config.projects.items()}
        self._ledger = ledger
        self._queue = queue
        self._metrics = metrics
        self._patience = Patience("deliveries")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._told_at = 0.0
        self._swept = time.monotonic()
        self._unstarted: Counter[int] = Counter()
        self._granted: dict[int, float] = {}

    def run(self) -> None:
        """Work until `stop` is called."""
        while not self._stop.is_set():
            try:
                busy = self.step()
                self._patience.succeeded()
            except LabelfeedError as error:
                self._metrics.add("errors_total", stage="deliver", code=error.code)
                self._patience.wait(error, self._stop)
                continue
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                self._patience.wait(our_error(error), self._stop)
                continue
            self._stop.wait(BUSY_SECONDS)
            if not busy:
                self._wake.wait(IDLE_SECONDS)
            self._wake.clear()

    @property
    def problem(self) -> str | None:
        """Why it waits, or None while it works."""
        return self._patience.problem

    def wake(self) -> None:
        """There may be something to grant: tasks were committed, or a grant has ended."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return soon; nothing is granted after that."""
        self._stop.set()
        self._wake.set()

    def step(self) -> bool:
        """One turn, its messages sent; whether there was something to do. Raises UnavailableError."""
        epoch = self._queue.epoch()
        turned = self._ledger.tick(lambda tick: self._turn(tick, epoch))
        if turned is None:
            return True
        for load, step, granted in turned.grants:
            self._unstarted[load.id] = 0 if _begun(load) else self._unstarted[load.id] + 1
            if step == "import":
                self._granted[load.id] = turned.at
            # A grant whose message is lost ends by itself.
            self._queue.deliver(granted)
        if turned.grants:
            reached("scheduler.granted")
        self._tell()
        self._sweep()
        return bool(turned.grants or turned.filled)

    def _turn(self, tick: Tick, epoch: str) -> Turned:
        deliveries = tick.deliveries()
        now = deliveries.now()
        ended = deliveries.expire(epoch)
        filled = deliveries.backfill(BACKFILL_OBJECTS)
        loads = deliveries.load()
        steps = list(next_steps(loads, now, self._every, self._granted))
        steps = list(with_counts(loads, steps, now, self._counted))
        # Without a worker each grant would end unstarted, and leave its message in the queue.
        taken = steps if steps and deliveries.workers() else []
        grants = [
            (load, step, deliveries.grant(load, step, epoch, self._seconds(load, alone=self._alone(load, loads))))
            for load, step in taken
        ]
        return Turned(grants, now, ended, filled)

    def _alone(self, load: DeliveryLoad, loads: Sequence[DeliveryLoad]) -> bool:
        """Whether no other delivery waits for the end of what this one is granted."""
        return not self._every[load.name] or not any(
            other.id != load.id and other.project == load.project and (other.waiting or other.batch is not None)
            for other in loads
            if other.name in self._every and not other.retired and not other.paused
        )

    def _seconds(self, load: DeliveryLoad, *, alone: bool) -> float:
        """How long a grant may wait, by how many before it were not started. Others of its project wait as long."""
        unstarted = 0 if _begun(load) or not alone else self._unstarted[load.id] + 1
        return min(GRANT_SECONDS * 2.0**unstarted, LONGEST_GRANT_SECONDS)

    def _tell(self) -> None:
        if time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        rows, workers = self._ledger.deliveries().report(), self._ledger.reports().threads() > 0
        waits = delivery_waits(rows, self._ledger.now(), self._projects, workers=workers)
        self._metrics.replace(
            "delivery_waits",
            {(name, wait.why): 1.0 for name, wait in waits.items() if wait.why and name in self._every},
        )
        for row in rows:
            if row["name"] in self._every:
                self._metrics.set("undelivered_tasks", row["waiting_tasks"], delivery=row["name"])
                uncounted = row["uncounted"] is not None and row["name"] in self._counted
                failing = row["paused_at"] is not None or row["failing"] > 0 or uncounted
                self._metrics.set("delivery_waiting", failing, delivery=row["name"])

    def _sweep(self) -> None:
        if time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        try:
            swept = self._ledger.deliveries().sweep(SWEEP_ROWS)
        except LabelfeedError as error:
            _log.warning(logs.WAITING, extra={"role": "sweep", "error": str(error)})
            return
        if swept >= SWEEP_ROWS:
            self._swept -= SWEEP_SECONDS


def _begun(load: DeliveryLoad) -> bool:
    """Whether somebody has begun what was granted last, if anything was."""
    return load.started or load.last is None


def every(config: Config) -> Mapping[str, float]:
    """Delivery (`project/name`) → seconds between two imports into it."""
    return {
        f"{name}/{delivery.known_as}": project.throttle.imports_every
        for name, project in config.projects.items()
        for delivery in project.deliveries
    }


def counted(config: Config) -> frozenset[str]:
    """The deliveries (`project/name`) of which it is to be known how many tasks are open there."""
    return frozenset(
        f"{name}/{delivery.known_as}"
        for name, project in config.projects.items()
        for delivery in project.deliveries
        if project.throttle.open_tasks and delivery.kind == LABELLED
    )


def drained(ledger: Ledger, config: Config) -> bool:
    """Whether no delivery has anything left that it could do by itself before long: what is paused, or fails, or waits
    for an answer that nobody gives, ends no run by being waited for."""
    known = every(config)
    for row in ledger.deliveries().report():
        if row["name"] not in known or row["paused_at"] is not None or row["failing"]:
            continue
        if row["granted"] or row["waiting_tasks"] or row["changes"]:
            return False
    return True
