"""Passes of one source: begun, gone on with, and ended; a listing compares its pages, a queue is taken from."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace

from pipeline import logs
from pipeline.bus import EventLog
from pipeline.config import Source
from pipeline.events import trace_of
from pipeline.ledger import Ledger, Pass
from pipeline.metrics import Metrics
from pipeline.producers.listing import Listing
from pipeline.producers.problems import Problems
from pipeline.producers.queues import Taking
from pipeline.producers.seen import RecentKeys
from pipeline.stores import Store, is_queue
from pipeline.stores.scope import Scope

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class PassRunner:
    """Makes the passes of one source. One pass at a time.

    `state` is the pass under way or the last one, for whoever shows progress; `unsettled` counts the objects
    that the last `run` left because they were still being written. `watched_since` (seconds since 1970) says
    from when on notifications should have brought every change.
    """

    source: Source
    source_id: int
    store: Store
    scope: Scope
    ledger: Ledger
    log: EventLog
    metrics: Metrics
    state: Pass | None = None
    unsettled: int = 0
    watched_since: float | None = None
    refused: dict[str, str] = field(default_factory=dict)
    noticed: RecentKeys = field(default_factory=RecentKeys)
    """Keys of which notifications told of late."""
    problems: Problems = field(init=False)
    taking: Taking | None = None
    """What takes from the source, if it is a queue: then a pass takes what is there."""

    def __post_init__(self) -> None:
        self.problems = Problems(self.ledger, self.source_id)
        if is_queue(self.store):
            self.taking = Taking(self.source, self.source_id, self.store, self.ledger, self.metrics)

    def run(self, stop: threading.Event, *, wait_for_unsettled: bool = False, accept_deletions: bool = False) -> Pass:
        """One pass, from where an unfinished one had come to; unfinished itself if `stop` is set meanwhile.

        `wait_for_unsettled` waits for what is still being written, and begins a new pass after it has ended
        an unfinished one, so that all that was there at the call is published. `accept_deletions` lets the
        pass archive as much as it finds gone. Raises RetriableError.
        """
        with self.problems.told_of("listing"):
            state = self._begin()
            if self.taking is not None:
                return self._take(self.taking, state, stop)
            if wait_for_unsettled and (state.listed or (state.whole and state.after is not None)):
                state = self._run(state, stop, wait=True, accept=accept_deletions)
                if state.finished is None:
                    return state
                state = self._begin()
            return self._run(state, stop, wait=wait_for_unsettled, accept=accept_deletions)

    def _begin(self) -> Pass:
        """The unfinished pass, or a new one: of what comes after the last one, or a whole one where that is due."""
        if self.source.start_after == "latest" and self.taking is None and self.store.ordered:
            last = self.ledger.last_pass(self.source_id)
            if last is not None and last.after is not None and last.whole_at is not None:
                due = last.whole_at + self.source.reconcile
                return self.ledger.begin_pass(self.source_id, last if self.ledger.now() < due else None)
        return self.ledger.begin_pass(self.source_id)

    def _run(self, state: Pass, stop: threading.Event, *, wait: bool, accept: bool) -> Pass:
        began = time.monotonic()
        listing = Listing(self, state, stop, wait=wait)
        self.unsettled = 0
        return self._ended(listing.run(accept=accept), time.monotonic() - began, trace_of(listing.traceparent))

    def _take(self, taking: Taking, state: Pass, stop: threading.Event) -> Pass:
        """Take what is there from a queue."""
        began = time.monotonic()
        self.state = state
        taken = taking.take(stop, "listing")
        taking.settle()
        self.problems.solved("listing")
        self.state = state = replace(state, listed=state.listed + taken, published=state.published + taken)
        if stop.is_set():
            self.ledger.save_pass(state, (), ())
        else:
            self.ledger.end_pass(state)
            self.state = state = replace(state, finished=self.ledger.now())
        return self._ended(state, time.monotonic() - began)

    def _ended(self, state: Pass, seconds: float, trace: str | None = None) -> Pass:
        name = self.source.name
        if state.finished is None:
            self.metrics.add("passes_total", source=name, outcome="interrupted")
            return state
        self.metrics.add("passes_total", source=name, outcome="stopped" if state.stopped else "complete")
        self.metrics.observe("pass_duration_seconds", seconds, source=name)
        fields: dict[str, object] = {"listed": state.listed, "published": state.published, "gone": state.candidates}
        fields |= {"source": name, "trace": trace, "unsettled": self.unsettled, "seconds": seconds}
        _log.info(logs.PASS_FINISHED, extra=fields)
        if state.stopped:
            extra = {"source": name, "candidates": state.candidates, "why": state.stopped}
            _log.warning(logs.PASS_STOPPED, extra=extra)
        return state
