"""Queues: what others push is taken in batches, and each batch is recorded as one object of the ledger.

A queue is its own event log: what is in it stays until it is imported. So its batches go into the ledger directly. A
range of a stream is recorded in one transaction with the position behind it, and only if the position is still the
one that it was taken from: two that take at the same time, or again after a crash, cannot take an entry twice or pass
over one. A list's batch has an id of its own, and recording it again changes nothing.

What is imported is settled behind that, as often as it comes to it: nothing depends on when.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pipeline.config import Source
from pipeline.errors import LabelfeedError
from pipeline.events import DiscoveredBy, ObjectEvent, new_id
from pipeline.faults import reached
from pipeline.ledger import Filter, Ledger
from pipeline.metrics import Metrics
from pipeline.producers import Notices
from pipeline.stores import Entry, Queue

TAKE_BATCHES = 20
"""Batches that are recorded in one transaction."""
WAIT_SECONDS = 0.5
"""How long an empty queue is waited for at once, and so how long stopping may take."""
LINGER_SECONDS = 0.05
"""What comes one by one is gathered for so long, so that not each entry is an object of its own."""
SETTLE_BATCHES = 500
"""Batches that are looked at together to see whether they are imported."""
PAGE = 1000

ENDED = frozenset({"done", "skipped", "gone", "out_of_scope"})
"""States of batches that nobody will read again. A failed one may be tried again, and holds up what is behind it."""
LEFT = ("ready", "claimed", "running", "failed")


class Taking:
    """Takes batches of one queue and settles them. Also a `pipeline.producers.Producer`. Thread-safe."""

    def __init__(self, source: Source, source_id: int, store: Queue, ledger: Ledger, metrics: Metrics) -> None:
        self._source = source
        self._source_id = source_id
        self._store = store
        self._ledger = ledger
        self._metrics = metrics
        self._lock = threading.Lock()
        self._sure = False
        self._after: str | None = None
        self._left: dict[str, str | None] = {}

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`, without events: what is noticed here is recorded at once."""
        yield Notices(lost=True)
        while not stop.is_set():
            if self._store.wait(self._after, WAIT_SECONDS):
                stop.wait(LINGER_SECONDS)
                self.take(stop, "notification")
                yield Notices()
            self.settle()

    def take(self, stop: threading.Event, how: DiscoveredBy) -> int:
        """Take and record what is there, until nothing is left or `stop` is set; how many batches that were.

        Raises RetriableError.
        """
        taken = 0
        with self._lock:
            if how == "listing" and not self._store.positioned:
                # A leader that was killed, or still thought it leads, may have left a batch that only the queue knows.
                self._sure = False
            complete = False
            while not complete and not stop.is_set():
                try:
                    count, complete = self._step(how)
                except LabelfeedError:
                    self._sure = False
                    raise
                taken += count
        return taken

    def settle(self) -> None:
        """Tell the queue what is imported. Raises RetriableError."""
        with self._lock:
            try:
                self._remember()
                self._settle()
            except LabelfeedError:
                self._sure = False
                raise

    # --- taking ------------------------------------------------------------------------------------------------

    def _step(self, how: DiscoveredBy) -> tuple[int, bool]:
        """Take some batches: how many, and whether nothing is left."""
        before = self._remember(how)
        page = self._store.take(self._after, TAKE_BATCHES)
        self._metrics.add("store_requests_total", source=self._source.name, operation="list")
        if not page.entries:
            return before, page.complete
        reached("watcher.taken")
        if not self._record(page.entries, how):
            # Somebody else has taken from the same position: what is there is cut anew.
            self._sure = False
            return before, False
        reached("watcher.recorded")
        self._left |= {entry.key: entry.version for entry in page.entries}
        return before + len(page.entries), page.complete

    def _record(self, entries: Sequence[Entry], how: DiscoveredBy) -> bool:
        name = self._source.name
        now = self._ledger.now()
        events = [
            ObjectEvent(name, entry.key, "created", entry.version, None, entry.size, entry.modified, how, now, new_id())
            for entry in entries
        ]
        if self._store.positioned:
            if not self._ledger.record_ranges(self._source_id, self._after, events):
                return False
            self._after = events[-1].key
        else:
            self._ledger.record(name, sorted(events, key=lambda event: event.key), {}, {name: "ignore"})
        self._metrics.add("listed_objects_total", len(entries), source=name)
        self._metrics.add("recorded_events_total", len(entries), effect="new")
        return True

    def _remember(self, how: DiscoveredBy = "listing") -> int:
        """Learn where the ledger stands, and what of it is not imported, if that is not certain; how many batches the
        ledger had not heard of."""
        if self._sure:
            return 0
        self._after = self._ledger.taken(self._source_id) if self._store.positioned else None
        self._left = dict(self._unfinished() if self._store.positioned else self._listed())
        unknown: list[Entry] = []
        if not self._store.positioned:
            known = self._ledger.known_keys(self._source_id, list(self._left))
            unknown = [Entry(key, version or key, 0, 0.0) for key, version in self._left.items() if key not in known]
            if unknown:
                self._record(unknown, how)
        self._sure = True
        return len(unknown)

    def _unfinished(self) -> Iterator[tuple[str, str | None]]:
        """The batches that the ledger has and that are not imported, in their order."""
        rows = [(row["key"], row["version"]) for state in LEFT for row in self._objects(state)]
        return iter(sorted(set(rows), key=lambda row: self._store.place(row[0])))

    def _objects(self, state: str) -> Iterator[dict[str, str]]:
        after = 0
        while rows := self._ledger.reports().objects(Filter(self._source.name, state), after, PAGE):
            yield from rows
            after = rows[-1]["id"]

    def _listed(self) -> Iterator[tuple[str, str | None]]:
        """The batches that the queue holds, in their order."""
        after: str | None = None
        while True:
            page = self._store.list(after, PAGE)
            for entry in page.entries:
                yield entry.key, entry.version
            if page.complete:
                return
            after = page.entries[-1].key

    # --- settling ------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Settle what has ended; of a stream only what nothing unfinished is before."""
        done: list[tuple[str, str | None]] = []
        looked: list[str] = []
        for key in self._left:
            looked.append(key)
            if len(looked) == SETTLE_BATCHES:
                break
        known = self._ledger.known_keys(self._source_id, looked) if looked else {}
        for key in looked:
            row = known.get(key)
            if row is not None and row.state in ENDED:
                done.append((key, row.wanted or self._left[key]))
            elif self._store.positioned:
                break
        for key, _ in done:
            del self._left[key]
        self._store.settle(done, next(iter(self._left), None), self._after)
