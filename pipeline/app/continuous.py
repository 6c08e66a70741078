"""The roles of one opened process, started together and stopped in the order in which work flows."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event

from pipeline import logs, registry
from pipeline.app.gauges import Gauges
from pipeline.app.leading import Leading
from pipeline.app.parts import Data, Feed, component_of
from pipeline.app.roles import Dispatching, Working, worker_name
from pipeline.app.routes import route_of
from pipeline.config import Config
from pipeline.consumers.broker import LOCAL_EPOCH, Queue
from pipeline.errors import LabelfeedError
from pipeline.metrics import Metrics
from pipeline.producers import Producer
from pipeline.producers.passes import PassRunner
from pipeline.producers.runner import SourceRunner

JOIN_SECONDS = 10.0
NOTIFICATIONS = "notifications"
"""The option of producers that read a queue which the store writes to."""

_log = logging.getLogger(__name__)


class Continuous:
    """The roles of one process. `passes` has a runner for each source that is watched here, `jobs` is the work
    queue where one is needed."""

    def __init__(
        self,
        config: Config,
        data: Data,
        feeds: Mapping[str, Feed],
        passes: Mapping[str, PassRunner],
        jobs: Queue | None,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._data = data
        self._feeds = feeds
        self._leading = {
            name: Leading(SourceRunner(one, self._watcher(one)), name, one.source_id, data.ledger, metrics)
            for name, one in passes.items()
        }
        self._jobs = jobs
        self._metrics = metrics
        # Both clients wait for their server in silence while there is nothing to read.
        self._log = _Asked("dispatch", data.log.end)
        self._queue = _Asked("work", jobs.epoch if jobs is not None else _nothing)
        self._dispatching: Dispatching | None = None
        self._working: Working | None = None
        self._gauges: Gauges | None = None

    def concerns(self) -> list[str]:
        """What works but should be mended, a sentence each."""
        return [] if self._gauges is None else self._gauges.concerns()

    @contextmanager
    def running(self, roles: frozenset[str]) -> Iterator[None]:
        """The roles at work for as long as the block runs; then they drain within `shutdown_timeout`.

        Raises UnavailableError if a server that is needed to begin does not answer, and UsageError where this machine
        lacks what a role needs.
        """
        stop = Event()
        watchers: list[threading.Thread] = []
        try:
            self._start(roles)
            watchers = [*self._watch(stop), self._gauge(roles, stop)]
            yield
        finally:
            stop.set()
            # First what has to finish: watchers may wait for storage, and nothing is lost by what they leave.
            self._drain()
            for thread in watchers:
                thread.join(JOIN_SECONDS)
            if self._jobs is not None:
                self._jobs.close()

    def look(self) -> dict[str, str | None]:
        """Role or source → None while it works, or why it waits. Sets the metric `up`; may take seconds while a
        server is away."""
        told: dict[str, str | None] = {}
        if self._leading:
            sources = {f"source {name}": each.problem() for name, each in self._leading.items()}
            told["watch"] = next((why for why in sources.values() if why is not None), None)
            told |= sources
        if self._dispatching is not None:
            told |= self._dispatching.problems()
            told["dispatch"] = told["dispatch"] or self._log.problem()
        if self._working is not None:
            told["work"] = self._working.problem() or self._queue.problem()
        for role in ("watch", "dispatch", "work"):
            if role in told:
                self._metrics.set("up", told[role] is None, role=role)
        return told

    def _start(self, roles: frozenset[str]) -> None:
        if self._leading or "dispatch" in roles:
            # What no waiting would bring about.
            self._data.log.check_here()
        if self._jobs is not None and "dispatch" in roles:
            self._dispatching = Dispatching(self._config, self._data, self._feeds, self._jobs, self._metrics)
            self._dispatching.start()
        if self._jobs is not None and "work" in roles:
            wake = self._dispatching.wake if self._dispatching is not None else _nothing
            self._working = Working(self._config, self._data, self._feeds, self._jobs, self._metrics, committed=wake)
            self._working.start()

    def _watch(self, stop: Event) -> list[threading.Thread]:
        if not self._leading:
            return []
        holder = f"{LOCAL_EPOCH}{worker_name()}:{uuid.uuid4().hex}"
        self._data.ledger.hold(holder)
        threads = [
            threading.Thread(target=each.run, args=(holder, stop), name=f"lead-{name}", daemon=True)
            for name, each in self._leading.items()
        ]
        for thread in threads:
            thread.start()
        return threads

    def _gauge(self, roles: frozenset[str], stop: Event) -> threading.Thread:
        self._metrics.begin(roles, self._feeds)
        self._gauges = Gauges(self._config, self._data, self._jobs, self._metrics, roles)
        thread = threading.Thread(target=self._gauges.run, args=(stop,), name="gauges", daemon=True)
        thread.start()
        return thread

    def _watcher(self, passes: PassRunner) -> Producer | None:
        """As `_producer`; a queue is watched by what takes from it."""
        if passes.taking is not None:
            return passes.taking if passes.source.watch else None
        return self._producer(self._feeds[passes.source.name])

    def _producer(self, feed: Feed) -> Producer | None:
        """What notices a source's changes as they happen; None where only passes do."""
        source, name = feed.source, component_of(feed.source)
        found = [row for row in registry.components() if (row.kind, row.name) == ("producers", name)]
        by_queue = any(NOTIFICATIONS in row.options for row in found)
        if not found or not source.watch or (by_queue and source.notifications is None):
            return None
        make: Callable[..., Producer] = registry.load("producers", name)
        if not by_queue:
            return make(source, feed.store, feed.scope)
        # Sources may share a queue: whoever receives a message publishes what it says of each of them.
        return make(source, feed.store, feed.scope, route_of(self._feeds), getattr(self._data.log, "bury", None))

    def _drain(self) -> None:
        if self._dispatching is not None:
            self._dispatching.stop()
        if self._working is not None:
            self._working.stop(self._config.shutdown_timeout)
        if self._dispatching is not None:
            self._dispatching.join()


class _Asked:
    """A server that is asked whether it is there; a change is logged."""

    def __init__(self, role: str, ask: Callable[[], object]) -> None:
        self._role = role
        self._ask = ask
        self._away = False

    def problem(self) -> str | None:
        """Why it cannot be used, or None."""
        try:
            self._ask()
        except LabelfeedError as error:
            if not self._away:
                _log.warning(logs.WAITING, extra={"role": self._role, "code": error.code, "error": str(error)})
            self._away = True
            return f"{error.code}: {error}"
        if self._away:
            _log.info(logs.RECOVERED, extra={"role": self._role})
        self._away = False
        return None


def _nothing() -> None:
    """There is no scheduler in this process to wake."""
