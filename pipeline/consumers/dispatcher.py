"""Events into the ledger: a polled batch is checked, folded and recorded with its positions in one transaction;
only then is the log told how far this came.

A record that cannot be read, or that the database refuses, goes to the dead letters with its reason. A
database that does not answer is waited for, with the batch in hand; nothing is polled meanwhile.

A database that has lost commits, as a replica does that takes over too early, is behind what was recorded: the log is
read again from where the ledger is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from pipeline import logs
from pipeline.bus import Consumer, EventLog, Polled, Record
from pipeline.errors import DataRefused, LabelfeedError, RetriableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent, check_key, fold, traces_of
from pipeline.faults import reached
from pipeline.ledger import Effect, Ledger, OnChange, check_positions
from pipeline.metrics import Metrics
from pipeline.waiting import Patience, our_error

POLL_EVENTS = 1000
"""Most events of one transaction."""
POLL_SECONDS = 0.1
"""Longest time that one poll waits, and so about the longest that stopping takes."""
PASS_SECONDS = 1.0
"""How long a position waits at least, behind messages that concern nobody, for events that it can be written with: a
topic that is full of others' messages costs the database one small transaction in so long."""
LOOK_SECONDS = 5.0
"""How often the ledger is looked at while nothing comes: it may have lost what was the last to come."""

WORK: frozenset[Effect] = frozenset({"new", "changed", "superseded", "asked"})
"""Effects after which an object is ready."""
IDLE: frozenset[Effect] = frozenset({"unknown", "duplicate", "stale"})
"""Effects of events that changed nothing."""
_WAITED_FOR = (RetriableError, UsageError)
"""A server that is away, and one that refuses us until a person has changed something."""

_log = logging.getLogger(__name__)


class Scope(NamedTuple):
    """What the dispatcher knows of a source: which keys it covers, what a new version of one does, and by which rule
    the configuration leaves out what an event tells of."""

    covers: Callable[[str], bool]
    on_change: OnChange
    left_out: Callable[[ObjectEvent], str | None] | None = None


class _Batch(NamedTuple):
    """What one poll gave and is to be recorded. Of `records` those go that were put aside, so that a batch which is
    tried again meets none of them a second time."""

    consumer: Consumer
    records: list[Record]
    positions: Mapping[int, int]
    effects: Counter[Effect]


class Dispatcher:
    """Reads the log and records it. `recorded` is called whenever there may be new work."""

    def __init__(
        self,
        log: EventLog,
        ledger: Ledger,
        scopes: Mapping[str, Scope],
        metrics: Metrics,
        recorded: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._scopes = scopes
        self._policy = {name: scope.on_change for name, scope in scopes.items()}
        self._metrics = metrics
        self._recorded = recorded
        self._patience = Patience("dispatcher")
        self._reached: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        self._moved = 0.0
        self._looked = 0.0
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until `stop` is called."""
        self._metrics.set("up", 1, role="dispatch")
        while not self._stop.is_set():
            self._reached, self._passed = {}, {}
            try:
                with closing(self._log.consumer(self._positions)) as consumer:
                    self._consume(consumer)
            except LabelfeedError as error:
                self._wait(error)
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                self._wait(our_error(error))

    @property
    def problem(self) -> str | None:
        """Why it waits, or None while it works."""
        return self._patience.problem

    def stop(self) -> None:
        """Make `run` return soon; what is in hand and not recorded is read again later."""
        self._stop.set()

    def _consume(self, consumer: Consumer) -> None:
        while not self._stop.is_set():
            try:
                polled = consumer.poll(POLL_EVENTS, POLL_SECONDS)
            except RetriableError as error:
                self._wait(error)
                continue
            self._answered()
            self.take(consumer, polled)

    def _look(self) -> None:
        """Whether the ledger still has what was recorded. Raises PositionsLost."""
        check_positions(self._ledger.positions(self._log.name), self._reached)
        self._looked = time.monotonic()

    def take(self, consumer: Consumer, polled: Polled) -> dict[Effect, int]:
        """Record what one poll gave and commit its positions; gives what became of its events.

        Positions without records are behind messages that concern nobody. They go with the next records, or alone, at
        most once in PASS_SECONDS; until then they are only read again after a restart.

        Waits for a database that does not answer, or refuses us, until it does, or until `stop`; then nothing is
        committed. Raises PositionsLost.
        """
        self._passed |= polled.positions
        now = time.monotonic()
        if polled.records or (self._passed and now - self._moved >= PASS_SECONDS):
            return self._take(consumer, Polled(polled.records, dict(self._passed)))
        if now - self._looked >= LOOK_SECONDS:
            self._insist(self._look, consumer)
        return {}

    def _take(self, consumer: Consumer, polled: Polled) -> dict[Effect, int]:
        self._metrics.add("received_events_total", len(polled.records))
        effects: Counter[Effect] = Counter()
        started = time.monotonic()
        good, bad, reasons = self._sort_out(polled.records)
        if others := len(polled.records) - len(good) - len(bad):
            self._metrics.add("discarded_events_total", others, reason="out_of_scope")
        # Once a batch: what is tried again while the database is away must not be buried again.
        if bad and not self._insist(lambda: self._bury(consumer, bad, reasons, "unreadable"), consumer):
            return {}
        batch = _Batch(consumer, good, polled.positions, effects)
        if not self._insist(lambda: self._record(batch), consumer):
            return {}
        self._reached |= polled.positions
        self._passed, self._moved = {}, time.monotonic()
        reached("dispatcher.recorded")
        if polled.records:
            self._tell(polled, effects, time.monotonic() - started)
        if not WORK.isdisjoint(effects):
            self._recorded()
        try:
            consumer.commit(polled.positions)
        except RetriableError as error:
            # The ledger's positions are what counts; the log's own are for tools that show lag.
            _log.warning(logs.POSITIONS_UNTOLD, extra={"error": str(error)})
        return dict(effects)

    def _tell(self, polled: Polled, effects: Mapping[Effect, int], seconds: float) -> None:
        for effect, count in effects.items():
            self._metrics.add("recorded_events_total", count, effect=effect)
            if effect in IDLE:
                self._metrics.add("discarded_events_total", count, reason=effect)
        events = [record.event for record in polled.records if isinstance(record.event, ObjectEvent)]
        fields: dict[str, object] = {"events": len(polled.records)} | dict[str, object](effects.items())
        _log.info(logs.EVENTS_RECORDED, extra=fields | {"traces": traces_of(events), "seconds": seconds})

    def _insist(self, call: Callable[[], None], consumer: Consumer) -> bool:
        """Call until it is answered; False if `stop` came first. The log keeps the backlog meanwhile, and this member
        its partitions."""
        while True:
            try:
                call()
            except _WAITED_FOR as error:
                self._wait(error, lambda seconds: self._rest(consumer, seconds))
                if self._stop.is_set():
                    return False
            else:
                self._answered()
                return True

    def _bury(self, consumer: Consumer, records: Sequence[Record], reasons: Sequence[str], code: str) -> None:
        consumer.dead(records, reasons)
        count = len(records)
        self._metrics.add("dead_letters_total", count, reason=code)
        self._metrics.add("discarded_events_total", count, reason="dead_letter")
        self._metrics.add("errors_total", count, stage="record", code=code)

    def _record(self, batch: _Batch) -> None:
        started = time.monotonic()
        batch.effects.clear()
        self._write(batch, tuple(batch.records), batch.positions)
        self._metrics.observe("record_duration_seconds", time.monotonic() - started)

    def _sort_out(self, records: Sequence[Record]) -> tuple[list[Record], list[Record], list[str]]:
        """Records whose events are for us, and those that nobody can use, with reasons."""
        good, bad, reasons = [], [], []
        for record in records:
            event = record.event
            reason = event.reason if isinstance(event, UndecodableEvent) else check_key(event.key)
            if reason is not None:
                bad.append(record)
                reasons.append(reason)
            elif self._wanted(event):
                good.append(record)
        return good, bad, reasons

    def _wanted(self, event: ObjectEvent | UndecodableEvent) -> bool:
        """Whether a source of ours covers the key; a topic may carry what others want."""
        if isinstance(event, UndecodableEvent):
            return False
        scope = self._scopes.get(event.source)
        if scope is None or scope.left_out is None:
            return scope is not None and scope.covers(event.key)
        rule = scope.left_out(event)
        if rule is not None:
            self._metrics.add("left_out_objects_total", source=event.source, rule=rule)
        return rule is None

    def _write(self, batch: _Batch, records: Sequence[Record], positions: Mapping[int, int]) -> None:
        """Record a part of a batch; one that the database refuses is halved until the bad record is alone."""
        try:
            events = self._events(records)
            batch.effects.update(self._ledger.record(self._log.name, events, positions, self._policy, self._reached))
        except DataRefused as error:
            if not records:
                raise
            if len(records) == 1:
                place = {"partition": records[0].partition, "offset": records[0].offset}
                _log.warning(logs.DEAD_LETTERS, extra=place | {"error": str(error)})
                self._bury(batch.consumer, records, [str(error)], "refused")
                batch.records.remove(records[0])
                self._write(batch, (), positions)
                return
            middle = len(records) // 2
            self._write(batch, records[:middle], {})
            self._write(batch, records[middle:], positions)

    @staticmethod
    def _events(records: Sequence[Record]) -> list[ObjectEvent]:
        return fold([record.event for record in records if isinstance(record.event, ObjectEvent)])

    def _positions(self, partitions: Sequence[int]) -> dict[int, int]:
        """Where the ledger stands in these partitions, which are read from there; nothing where it has read nothing."""
        known = self._ledger.positions(self._log.name)
        found = {partition: known[partition] for partition in partitions if partition in known}
        self._reached = {at: place for at, place in self._reached.items() if at not in partitions} | found
        # What was passed over is read again from there, with all that a ledger may have lost before it.
        self._passed = {at: place for at, place in self._passed.items() if at not in partitions}
        return found

    def _answered(self) -> None:
        if self._patience.tried:
            self._patience.succeeded()
            self._metrics.set("up", 1, role="dispatch")

    def _rest(self, consumer: Consumer, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                consumer.rest(min(left, POLL_SECONDS))
            except _WAITED_FOR:
                # The log is away, too. It is joined again once there is something to record into.
                self._stop.wait(min(left, POLL_SECONDS))

    def _wait(self, error: LabelfeedError, rest: Callable[[float], object] | None = None) -> None:
        self._metrics.set("up", 0, role="dispatch")
        self._metrics.add("errors_total", stage="record", code=error.code)
        self._patience.wait(error, self._stop, rest)
