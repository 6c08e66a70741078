"""Roles that work until they are told to stop, and what they say of themselves at /readyz."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from threading import Event

from pipeline import logs, registry
from pipeline.app.parts import Data, Feed
from pipeline.app.roles import Dispatching, Working
from pipeline.config import Config
from pipeline.consumers.broker import Queue
from pipeline.errors import UsageError
from pipeline.metrics import Metrics
from pipeline.producers import Producer
from pipeline.producers.listing import PassRunner
from pipeline.producers.runner import SourceRunner
from pipeline.server import Server

JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Continuous:
    """The roles of one process, started together and stopped in the order in which work flows."""

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
        self._runners = {name: SourceRunner(one, _producer(feeds[name])) for name, one in passes.items()}
        self._jobs = jobs
        self._metrics = metrics

    def run(self, roles: frozenset[str], stop: Event) -> None:
        """Work until `stop` is set, then drain within `shutdown_timeout`."""
        dispatching = working = server = None
        watchers: list[threading.Thread] = []
        if "serve" in roles:
            token = self._config.server.token
            server = Server(
                self._config.server.listen, self._metrics, self.ready, token.get_secret_value() if token else None
            )
        try:
            if self._jobs is not None and "dispatch" in roles:
                dispatching = Dispatching(self._config, self._data, self._feeds, self._jobs, self._metrics)
                dispatching.start()
            if self._jobs is not None and "work" in roles:
                wake = dispatching.scheduler.wake if dispatching is not None else _nothing
                working = Working(self._config, self._data, self._feeds, self._jobs, self._metrics, committed=wake)
                working.start()
            for role in roles - {"serve"}:
                self._metrics.set("up", 1, role=role)
            watchers = [
                threading.Thread(target=runner.run, args=(stop,), name=f"watch-{name}", daemon=True)
                for name, runner in self._runners.items()
            ]
            for thread in watchers:
                thread.start()
            _log.info(logs.STARTED, extra={"roles": ",".join(sorted(roles)), "port": server.port if server else None})
            stop.wait()
            _log.info(logs.STOPPING)
        finally:
            stop.set()
            for thread in watchers:
                thread.join(JOIN_SECONDS)
            if dispatching is not None:
                dispatching.stop()
            if working is not None:
                working.stop(self._config.shutdown_timeout)
            if self._jobs is not None:
                self._jobs.close()
            if server is not None:
                server.close()
            _log.info(logs.STOPPED)

    def ready(self) -> dict[str, str | None]:
        """Role → None while it works, or why it waits."""
        waits: dict[str, str | None] = {}
        for name, runner in self._runners.items():
            status = runner.status()
            waits[f"source {name}"] = None if status.ready else status.reason
        for role in ("dispatch", "schedule", "work"):
            known = self._metrics.registry.get_sample_value("labelfeed_up", {"role": role})
            if known is not None:
                waits[role] = None if known else "waits for a server; the log says which"
        return waits


def _nothing() -> None:
    """There is no scheduler in this process to wake."""


def _producer(feed: Feed) -> Producer | None:
    """What notices a source's changes as they happen; None where only passes do."""
    if not feed.source.watch:
        return None
    try:
        made: Producer = registry.load("producers", registry.scheme(feed.source.url))(
            feed.source, feed.store, feed.scope
        )
    except UsageError:
        return None
    return made
