"""An installation, opened: what the verbs work with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from importlib.metadata import version
from types import TracebackType
from typing import Self

from pipeline.app.asking import questions
from pipeline.app.continuous import Continuous
from pipeline.app.leaving import Behind
from pipeline.app.once import Once, for_once
from pipeline.app.outlets import identities, pings, with_label_configs
from pipeline.app.parts import Data, Feed, direct_log, disks, open_data, open_feed
from pipeline.app.progress import Gauge, Progress
from pipeline.app.roles import Dispatching, Working
from pipeline.app.routes import route_of
from pipeline.bus import DeadLetter
from pipeline.config import Config
from pipeline.consumers.broker import EMBEDDED, Queue, queue
from pipeline.consumers.delivering import drained
from pipeline.errors import LabelfeedError, UnavailableError
from pipeline.ledger import Ledger, SourceIdentity
from pipeline.metrics import Concern, Metrics
from pipeline.producers.passes import PassRunner
from pipeline.server import look


class App:
    """An installation, opened: ledger, event log, feeds. A context manager; closing it lets go of everything."""

    def __init__(self, config: Config, data: Data, feeds: dict[str, Feed], stack: ExitStack, metrics: Metrics) -> None:
        self.config = config
        self.ledger: Ledger = data.ledger
        self.feeds = feeds
        self.metrics = metrics
        self.metrics.set("build_info", 1, version=version("labelfeed"))
        self.log = data.log
        self._data = data
        self._stack = stack

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        accept: frozenset[str] = frozenset(),
        readonly: bool = False,
        direct: bool = False,
        metrics: Metrics | None = None,
    ) -> App:
        """Open what the configuration names.

        `accept` names sources that may stand for another store than before. `readonly` writes nothing, and
        answers from an empty ledger where there is none yet. `direct` is an import by hand. `metrics` are the
        process's, where it has some already.

        Raises:
            UsageError: the configuration asks for what cannot be.
            UnavailableError: the database or the event log does not answer.
        """
        with ExitStack() as stack:
            feeds = {}
            for source in config.sources:
                feeds[source.name] = feed = open_feed(config, source, direct=direct)
                stack.callback(feed.store.close)
            data = open_data(config, stack, route_of(feeds), readonly=readonly)
            if direct:
                data = direct_log(data, stack)
            if not readonly:
                data = replace(data, deliveries=data.ledger.deliveries().register(identities(config), keep=direct))
            config = with_label_configs(config, data.ledger, None if readonly else data.deliveries)
            feeds = {
                name: open_feed(config, feed.source, direct=direct, store=feed.store) for name, feed in feeds.items()
            }
            if readonly:
                ids = {row["name"]: row["id"] for row in data.ledger.reports().sources()}
            else:
                ids = {row.name: row.id for row in data.ledger.register(_identities(feeds), accept=accept, keep=direct)}
            known = {name: replace(feed, source_id=ids.get(name, 0)) for name, feed in feeds.items()}
            return cls(config, data, known, stack.pop_all(), metrics or Metrics())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Events that could not be recorded, newest first, at most one of each object."""
        return self._data.log.dead_letters(limit)

    def ping_log(self) -> str:
        """One sentence that says what the event log is; raises LabelfeedError if it can't be used."""
        return _told(self._data.log.ping(), self._data.log.concerns())

    def delivery_pings(self) -> dict[str, Callable[[], str]]:
        """For each delivery what says in a sentence what is found there; raises LabelfeedError if it can't be used."""
        return pings(self.config)

    def ping_queue(self) -> str:
        """One sentence that says what the work queue is; raises LabelfeedError if it can't be used."""
        with closing(queue(self.config.queue)) as jobs:
            jobs.epoch()
            health = jobs.health()
        waiting = health.messages["stored"]
        found = "in this process" if self.config.queue == EMBEDDED else f"Redis answers, {waiting} messages"
        return _told(found, health.concerns)

    def ping_clocks(self) -> str:
        """How far the clocks of the database and of Redis are from this machine's; raises LabelfeedError if the
        database does not say."""
        before = time.time()
        there = self.ledger.now()
        skews = {"database": there - (before + time.time()) / 2}
        if self.config.queue != EMBEDDED:
            with suppress(LabelfeedError), closing(queue(self.config.queue)) as jobs:
                skew = jobs.health().skew
                skews |= {} if skew is None else {"Redis": skew}
        return ", ".join(f"{server} {skew:+.1f} s" for server, skew in skews.items()) + " beside this machine's"

    def ping_disks(self) -> str:
        """How much is free where this process writes; raises UnavailableError if a disk does not say."""
        parts, places = [], disks(self.config)
        if "spool" not in places:
            why = "no folder for temporary files can be written to, which large files need; name one by TMPDIR"
            raise UnavailableError(why, code="disk")
        for place, folder in places.items():
            try:
                usage = shutil.disk_usage(folder)
            except OSError as error:
                raise UnavailableError(f"the disk of {place}, {folder}: {error.strerror}", code="disk") from error
            parts.append(f"{place} {usage.free / usage.total:.0%} of {usage.total / 1e9:,.1f} GB free, in {folder}")
        return "; ".join(parts)

    def source_pings(self) -> dict[str, Callable[[], str]]:
        """For each source, and each thing that it must be allowed to do, what says in a sentence what is found there;
        raises LabelfeedError if it can't be done."""
        return {
            ", ".join(filter(None, (name, what))): ping
            for name, feed in self.feeds.items()
            for what, ping in questions(feed)
        }

    def ping_server(self) -> str:
        """One sentence on whether /metrics can be served where it should; raises UsageError if not."""
        return look(self.config.server.listen)

    def pass_runner(self, name: str) -> PassRunner:
        """What lists a source."""
        feed = self.feeds[name]
        return PassRunner(
            feed.source, feed.source_id, feed.store, feed.scope, self.ledger, self._data.log, self.metrics
        )

    def run_once(
        self, show: Callable[[Sequence[Progress]], None], *, accept_deletions: frozenset[str] = frozenset()
    ) -> list[Progress]:
        """One pass of every source, everything imported; `show` is called a few times a second.

        `accept_deletions` names sources whose pass may archive as much as it finds gone. Where a store does not answer
        within `limits.storage_patience`, its source is left as it is, and its progress says so.
        """
        jobs, config, reports = self._queue(), for_once(self.config), self.ledger.reports()
        for name in self.feeds:
            reports.hasten(name)
        dispatching = Dispatching(config, self._data, self.feeds, jobs, self.metrics, eager=True)
        working = Working(config, self._data, self.feeds, jobs, self.metrics, committed=dispatching.wake)
        scheduler, behind = dispatching.scheduler, Behind(self.ledger, self.config)
        patience = config.limits.storage_patience
        gauge = Gauge(
            reports, self.metrics, list(self.feeds), lambda: {**behind.held(), **scheduler.held}, patience=patience
        )
        passes = {name: self.pass_runner(name) for name in self.feeds}
        once = Once(self._data, passes, gauge, show, lambda: drained(self.ledger, self.config))
        dispatching.start()
        working.start()
        try:
            once.run(accept_deletions=accept_deletions)
        finally:
            once.stop()
            dispatching.stop()
            working.stop(self.config.shutdown_timeout)
            dispatching.join()
            jobs.close()
        return once.close()

    def continuous(self, roles: frozenset[str]) -> Continuous:
        """What works continuously in these roles (`watch`, `dispatch`, `work`)."""
        passes = {name: self.pass_runner(name) for name in self.feeds} if "watch" in roles else {}
        jobs = self._queue() if roles & {"dispatch", "work"} else None
        return Continuous(self.config, self._data, self.feeds, passes, jobs, self.metrics)

    def _queue(self) -> Queue:
        jobs = queue(self.config.queue)
        if self.config.queue == EMBEDDED:
            self.ledger.hold(jobs.epoch())
        return jobs


def _told(found: str, concerns: Sequence[Concern]) -> str:
    return "; ".join([found, *(concern.text for concern in concerns)])


def _identities(feeds: dict[str, Feed]) -> list[SourceIdentity]:
    return [
        SourceIdentity(name, feed.source.project, feed.store.identity(), feed.store.uri(""), feed.shape)
        for name, feed in feeds.items()
    ]
