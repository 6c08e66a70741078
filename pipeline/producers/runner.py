"""One source at work: its passes in one thread, its producer in another, both into the event log.

Nothing that may work later ends a source: it is reported, waited for, and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import logs
from pipeline.errors import LabelfeedError, RetriableError
from pipeline.events import TRACES_TOLD, traced, traces_of
from pipeline.faults import reached
from pipeline.ledger import Pass
from pipeline.producers import Notices, Producer
from pipeline.producers.passes import PassRunner
from pipeline.waiting import Patience, our_error

ROLE = "watch"
LOOK_SECONDS = 0.1
"""How often a resting source looks whether it is asked to go on."""
WATCH_SECONDS = 5.0
"""How long the first pass waits for the producer to be in place, so that nothing changes unseen between the two."""
REQUEST_SECONDS = 1.0
"""A pass that is asked for starts no sooner than this after the last one, nor sooner than that one took."""
PASS_TIMEOUT_SECONDS = 900.0
"""A pass waits for the ledger to have the last one's events, but no longer than this."""
REPORT_SECONDS = 1.0
"""Changes that were noticed are logged together at most this often."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source does: `reason` says why it is not `ready`; `watching` that its producer works."""

    name: str
    ready: bool
    reason: str
    watching: bool
    last_pass: Pass | None


class SourceRunner:
    """Runs one source until it is stopped. `status` and `request_pass` may be called from any thread."""

    def __init__(self, passes: PassRunner, producer: Producer | None) -> None:
        self._passes = passes
        self._producer = producer
        self._name = passes.source.name
        self._due = threading.Event()
        self._watching = threading.Event()
        self._pass_problem = ""
        self._watch_problem = ""
        self._last: Pass | None = None
        self._took = 0.0
        self._noticed = 0
        self._traces: list[str] = []
        self._reported = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Passes and noticing, until `stop` is set."""
        thread = threading.Thread(target=self._watch, args=(stop,), name=f"notice-{self._name}")
        if self._producer is not None:
            thread.start()
            self._await_producer(stop)
        patience = Patience(ROLE, source=self._name)
        while not stop.is_set():
            try:
                self._pass(stop)
                patience.succeeded()
                self._rest(stop)
            except LabelfeedError as error:
                self._pass_failed(error, patience, stop)
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                ours = our_error(error)
                self._passes.problems.tell("listing", ours)
                self._pass_failed(ours, patience, stop)
        if self._producer is not None:
            thread.join()
        self._report(now=True)

    def request_pass(self) -> None:
        """Let the next pass start at once."""
        self._due.set()

    def status(self) -> SourceStatus:
        """How the source does now."""
        problem = self._pass_problem or self._watch_problem
        return SourceStatus(self._name, not problem, problem, self._watching.is_set(), self._last)

    # --- passes ------------------------------------------------------------------------------------------------

    def _await_producer(self, stop: threading.Event) -> None:
        deadline = time.monotonic() + WATCH_SECONDS
        while not (stop.is_set() or self._due.is_set() or time.monotonic() > deadline):
            self._due.wait(LOOK_SECONDS)

    def _pass(self, stop: threading.Event) -> None:
        self._due.clear()
        began = time.monotonic()
        state = self._passes.run(stop)
        self._took = time.monotonic() - began
        if state.finished is not None:
            self._last = state
            self._pass_problem = ""

    def _pass_failed(self, error: LabelfeedError, patience: Patience, stop: threading.Event) -> None:
        self._passes.metrics.add("passes_total", source=self._name, outcome="failed")
        self._failed("list", error)
        self._pass_problem = _told(error)
        patience.wait(error, stop)

    def _rest(self, stop: threading.Event) -> None:
        """Wait until the next pass is due, and the ledger has what the last one published."""
        ended = time.monotonic()
        soonest = max(REQUEST_SECONDS, self._took)
        while not stop.wait(LOOK_SECONDS):
            self._report()
            rested = time.monotonic() - ended
            due = rested >= self._passes.source.poll or (self._due.is_set() and rested >= soonest)
            if due and (rested >= PASS_TIMEOUT_SECONDS or self._recorded()):
                return

    def _recorded(self) -> bool:
        """Whether the ledger reflects all that the last pass published."""
        if self._last is None or not self._last.positions:
            return True
        try:
            reached = self._passes.ledger.positions(self._passes.log.name)
        except RetriableError:
            return False
        return all(reached.get(partition, 0) >= position for partition, position in self._last.positions.items())

    # --- noticing ------------------------------------------------------------------------------------------------

    def _watch(self, stop: threading.Event) -> None:
        assert self._producer is not None
        patience = Patience(ROLE, source=self._name)
        while not stop.is_set():
            try:
                for notices in self._producer.notices(stop):
                    self._take(notices, stop)
                    patience.succeeded()
            except LabelfeedError as error:
                self._watch_failed(error, patience, stop)
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                self._watch_failed(our_error(error), patience, stop)
        self._watching.clear()

    def _watch_failed(self, error: LabelfeedError, patience: Patience, stop: threading.Event) -> None:
        self._watching.clear()
        self._passes.watched_since = None
        self._watch_problem = _told(error)
        self._passes.problems.tell("notifications", error)
        self._failed("notify", error)
        self._due.set()
        patience.wait(error, stop)

    def _take(self, notices: Notices, stop: threading.Event) -> None:
        """Publish notices and put aside what can't be read of them, as often as it takes, and settle them."""
        if not self._watching.is_set():
            self._passes.watched_since = time.time()
            self._watch_problem = ""
            self._passes.problems.solved("notifications")
            self._watching.set()
        patience = Patience(ROLE, source=self._name)
        self._passes.noticed.add([event.key for event in notices.events if event.source == self._name])
        for step in (lambda: self._publish(notices), notices.put_aside):
            while not self._done(step, patience, stop):
                if stop.is_set():
                    return
        notices.settle()
        if notices.lost:
            self._due.set()

    def _done(self, step: Callable[[], None], patience: Patience, stop: threading.Event) -> bool:
        """Whether the log took what it was given. Where it did not, there has been a wait, during which the notices are
        kept: given back at every attempt, sound messages would seem poison to their queue's redrive policy. So what a
        person must mend is waited for as well."""
        try:
            step()
        except LabelfeedError as error:
            self._watch_problem = _told(error)
            self._passes.problems.tell("notifications", error)
            self._failed("publish", error)
            patience.wait(error, stop)
            return False
        if patience.tried:
            self._watch_problem = ""
            self._passes.problems.solved("notifications")
            patience.succeeded()
        return True

    def _publish(self, notices: Notices) -> None:
        if not notices.events:
            return
        events = traced(notices.events)
        self._passes.log.publish(events)
        reached("watcher.published")
        count = len(notices.events)
        self._noticed += count
        self._traces = list(dict.fromkeys([*self._traces, *traces_of(events)]))[:TRACES_TOLD]
        self._passes.metrics.add("sent_events_total", count, source=self._name, discovered_by="notification")

    def _failed(self, stage: str, error: LabelfeedError) -> None:
        self._passes.metrics.add("errors_total", stage=stage, code=error.code)

    def _report(self, *, now: bool = False) -> None:
        if self._noticed and (now or time.monotonic() - self._reported >= REPORT_SECONDS):
            noticed, self._noticed = self._noticed, 0
            traces, self._traces = self._traces, []
            self._reported = time.monotonic()
            _log.info(logs.EVENTS_PUBLISHED, extra={"source": self._name, "events": noticed, "traces": traces})


def _told(error: LabelfeedError) -> str:
    return f"{error.code}: {error}"
