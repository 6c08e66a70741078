"""The roles of a process: dispatch (dispatcher and scheduler) and work (importers), each with its threads."""

from __future__ import annotations

import base64
import gc
import os
import pickle
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Mapping

from pipeline.app.outlets import open_outlets
from pipeline.app.parts import Data, Feed
from pipeline.config import Config
from pipeline.consumers.broker import Queue
from pipeline.consumers.child import ChildRunner
from pipeline.consumers.deliverer import Deliverer
from pipeline.consumers.delivering import Delivering
from pipeline.consumers.dispatcher import Dispatcher, Scope
from pipeline.consumers.importer import Importer
from pipeline.consumers.renewer import Renewer
from pipeline.consumers.scheduler import Scheduler
from pipeline.consumers.workers import WorkerPool
from pipeline.errors import LabelfeedError
from pipeline.metrics import Metrics
from pipeline.stores import concurrency

PRUNE_SECONDS = 60.0
"""How often what is older than `limits.retention` is taken out of the event log."""
JOIN_SECONDS = 5.0
COLLECT_AFTER = 50_000
"""Containers that are made before Python looks for cycles among them. A parser makes that many in a tenth of a second,
and none of them in a cycle: with Python's own 700 a third of its time goes into looking."""
DELIVERY_THREADS = 4
"""Deliveries that one process sends to at once, at most."""
_BOOT = uuid.uuid4().hex[:8]
"""Tells processes apart that have one host's name and the same number, as those of containers on a host's network."""
CHILD = (sys.executable, "-m", "pipeline.app.child")


def _nothing() -> None:
    """Nobody needs to be woken."""


class Dispatching:
    """Events into the ledger, and claims out of it. `eager` as the scheduler has it."""

    def __init__(
        self,
        config: Config,
        data: Data,
        feeds: Mapping[str, Feed],
        queue: Queue,
        metrics: Metrics,
        *,
        eager: bool = False,
    ) -> None:
        scopes = {
            name: Scope(feed.scope.covers, feed.source.on_change, feed.scope.of_event) for name, feed in feeds.items()
        }
        windows = {name: concurrency(feed.store) for name, feed in feeds.items()}
        self.scheduler = Scheduler(config, data.ledger, queue, metrics, eager=eager, windows=windows)
        self._dispatcher = Dispatcher(data.log, data.ledger, scopes, metrics, recorded=self.scheduler.wake)
        self._delivering = Delivering(config, data.ledger, queue, metrics) if data.deliveries else None
        self._log = data.log
        self._retention = config.limits.retention
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._dispatcher.run, name="dispatcher", daemon=True),
            threading.Thread(target=self.scheduler.run, name="scheduler", daemon=True),
            threading.Thread(target=self._prune_often, name="pruner", daemon=True),
        ]
        if self._delivering is not None:
            self._threads.append(threading.Thread(target=self._delivering.run, name="deliveries", daemon=True))

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell the threads to end: what is in hand and not recorded is read again later."""
        self._stop.set()
        self._dispatcher.stop()
        self.scheduler.stop()
        if self._delivering is not None:
            self._delivering.stop()

    def wake(self) -> None:
        """There may be something to claim or to deliver: a worker has committed, or a delivery has ended."""
        self.scheduler.wake()
        if self._delivering is not None:
            self._delivering.wake()

    def join(self) -> None:
        """Wait for the threads, which were told to end."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def problems(self) -> dict[str, str | None]:
        """Why the dispatcher and the scheduler wait; None where they work."""
        return {"dispatch": self._dispatcher.problem, "schedule": self.scheduler.problem}

    def _prune_often(self) -> None:
        while not self._stop.wait(PRUNE_SECONDS):
            try:
                self._log.prune(self._retention)
            except LabelfeedError:
                # The next time comes in a minute, and an old event harms nobody.
                continue


class Working:
    """The workers of this process."""

    def __init__(
        self,
        config: Config,
        data: Data,
        feeds: Mapping[str, Feed],
        queue: Queue,
        metrics: Metrics,
        committed: Callable[[], None] = _nothing,
    ) -> None:
        worker = worker_name()
        limits = config.limits
        renewer = Renewer(data.ledger, worker, limits.lease, commits=lambda: metrics.totals("commit_duration_seconds"))
        importer = Importer(feeds, data.ledger, metrics, worker, limits, renewer, committed)
        children = ChildRunner(CHILD, child_payload(config), data.ledger, renewer, worker, limits)
        self._threads = limits.workers
        self._importer = importer
        self._renewer = renewer
        self._pool = WorkerPool(queue, importer, children, renewer, data.ledger)
        outlets = open_outlets(config, data.deliveries)
        self._deliverer = Deliverer(outlets, data.ledger, metrics, worker, committed)
        self._delivering = min(len(outlets), DELIVERY_THREADS)
        self._queue = queue

    def start(self) -> None:
        """Take claims."""
        collect_seldom()
        self._pool.start(self._threads)
        if self._delivering:
            self._queue.start_deliveries(self._deliverer.run, self._delivering)

    def stop(self, timeout: float) -> None:
        """Take no further claim; finish, or cancel and give back, what runs."""
        self._deliverer.cancel()
        self._pool.stop(timeout)
        self._deliverer.close()

    def problem(self) -> str | None:
        """Why the workers wait, or None."""
        return self._importer.problem or self._renewer.problem


def collect_seldom() -> None:
    """Let the collector of cyclic garbage run less often in this process."""
    _, *others = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *others)


def worker_name() -> str:
    """What this process is called in leases and logs; no other one is."""
    return f"{socket.gethostname()}:{os.getpid()}-{_BOOT}"


def child_payload(config: Config) -> dict[str, str]:
    """The configuration for a child process; it goes through a pipe, as it may hold secrets."""
    return {"config": base64.b64encode(pickle.dumps(config)).decode()}


def config_of(payload: Mapping[str, str]) -> Config:
    """The inverse of `child_payload`."""
    config: Config = pickle.loads(base64.b64decode(payload["config"]))  # noqa: S301 - our own parent wrote it
    return config
