"""One pass: a source is listed in key order, a page at a time, and compared with what the ledger knows.

A page's range is (last key of the page before, last key of this page]; the last page's runs to the end of
all keys, so that nothing between two pages and nothing after the last is overlooked. Only rows whose last
event is older than the page's request are judged. What the ledger knows and the page has not is asked for
by HEAD, and is gone only if the store itself says so, and only if the configuration would take it if it
were there. Deletions are published by a complete pass only. One page is compared while a remote store lists the
next: memory is two pages, whatever the source's size.

A store that lists in no order tells by its pages alone what is there. Which keys it has listed is kept in a
filter of a fixed size, and after its last page those that are not in it are asked for. A pass that goes on after
a restart has an empty filter, and asks for what it had listed before, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline import logs
from pipeline.errors import LabelfeedError, ObjectFailed, RetriableError, UnavailableError
from pipeline.events import EventKind, ObjectEvent, new_id, new_traceparent
from pipeline.faults import reached
from pipeline.ledger import Known, Pass
from pipeline.producers.asked import Asked
from pipeline.producers.deletions import withheld
from pipeline.producers.seen import SeenKeys
from pipeline.producers.sifting import Sieve, event_of, is_news
from pipeline.stores import Entry, has_latency
from pipeline.stores.scope import OF_AGE

if TYPE_CHECKING:
    from pipeline.producers.passes import PassRunner

PAGE_KEYS = 1000
KNOWN_ROWS = 2000
"""Rows of the ledger that are looked at together: one query for a page from which few keys have gone."""
SAVE_SECONDS = 1.0
"""How often a pass writes down how far it has come."""
CLOCK_SECONDS = 0.25
"""So old may the ledger's clock be by which a page is judged: what was told since is left to the next pass."""
UNSETTLED_ROUNDS = 10
"""A file that is never settled is waited for this many times `settle`."""
UNSETTLED_LOOKS = 5
"""How often in each of these times."""
EMPTY_PAGES = 100
"""So many empty pages in a row are taken for a store that does not answer."""
NOTICE_SECONDS = 5.0
"""How long a notification may take before a pass that finds the change says it was missed."""

_AWAY = frozenset({"gone", "out_of_scope"})
_log = logging.getLogger(__name__)


class Listing:
    """One pass under way. `run` is called once."""

    def __init__(self, runner: PassRunner, state: Pass, stop: threading.Event, *, wait: bool) -> None:
        self._runner = runner
        self._name = runner.source.name
        self._ledger = runner.ledger
        self._state = state
        self._clock, self._clock_read = runner.ledger.now(), time.monotonic()
        """The ledger's clock of late, and when it was read."""
        self._stop = stop
        self._wait = wait
        self._saved = time.monotonic()
        self._unsettled: list[str] = []
        self._empty = 0
        self._sieve = Sieve(runner.source.name, runner.scope, runner.metrics)
        self.traceparent = new_traceparent()
        self._seen: SeenKeys | None = None

    def run(self, *, accept: bool) -> Pass:
        """The pass as it ended, or as far as it came. `accept` and what is raised as `PassRunner.run` has them."""
        complete = self._pages()
        if complete and self._state.whole and not self._runner.store.ordered:
            self._look_at_all()
        self._settle()
        if self._stop.is_set():
            self._save(now=True)
            return self._state
        stopped = self._delete(accept=accept)
        self._advance(replace(self._state, stopped=stopped))
        self._ledger.end_pass(self._state)
        self._advance(replace(self._state, finished=self._ledger.now()))
        return self._state

    def _pages(self) -> bool:
        """Compare page after page, each while the next is listed; whether the last one was among them."""
        asked: Asked | None = self._ask(self._state.after)
        try:
            while asked is not None and not self._stop.is_set():
                asked = self._page(asked)
        except RetriableError:
            with suppress(LabelfeedError):
                self._save(now=True)
            raise
        finally:
            self._latest.leave()
        return asked is None

    # --- one page ------------------------------------------------------------------------------------------

    def _ask(self, after: str | None) -> Asked:
        """Have the page after a key listed: ahead of its turn, where the store has latency to hide."""
        store = self._runner.store
        ask = partial(store.list, self._start(after), PAGE_KEYS)
        name = f"list-{self._name}" if has_latency(store) else None
        self._latest = Asked(name, self._clock, ask, self._stop)
        return self._latest

    def _page(self, asked: Asked) -> Asked | None:
        """Compare one page; the next one, None after the last."""
        runner, after, requested = self._runner, self._state.after, asked.requested
        page = asked.page()
        if page is None:
            return asked
        runner.metrics.add("store_requests_total", source=self._name, operation="list")
        runner.problems.solved("listing")
        if not page.entries and not page.complete:
            self._check_progress()
            self._read_clock()
            return self._ask(after)
        last = page.entries[-1].key if page.entries else after
        ordered = runner.store.ordered
        complete = page.complete or (ordered and runner.scope.beyond(last))
        self._read_clock()
        following = None if complete or self._stop.is_set() else self._ask(last)
        listed = self._sieve.take(page.entries)
        count = len(listed)
        if ordered:
            self._compare_range(listed, after, None if complete else last, requested)
        else:
            self._see(listed)
            rows = self._ledger.known_keys(runner.source_id, list(listed))
            self._compare(list(rows.values()), listed, requested)
        if self._stop.is_set():
            # The comparison may have ended early: this page is listed again.
            return asked
        self._publish(self._found(list(listed.values()), requested), "created")
        runner.metrics.add("listed_objects_total", count, source=self._name)
        left_out = dict(Counter(self._state.left_out) + self._sieve.counts())
        self._advance(replace(self._state, after=last, listed=self._state.listed + count, left_out=left_out))
        self._save()
        if len(self._unsettled) >= PAGE_KEYS:
            self._settle()
        return following

    def _read_clock(self) -> None:
        if time.monotonic() - self._clock_read >= CLOCK_SECONDS:
            self._clock, self._clock_read = self._ledger.now(), time.monotonic()

    def _start(self, after: str | None) -> str | None:
        """Where the next page begins: not among what is left out, if the store can begin elsewhere."""
        scope, store = self._runner.scope, self._runner.store
        if scope.prefixes or not scope.recursive:
            return scope.skip(after) if getattr(store, "jumps", False) else after
        return after

    def _see(self, keys: Iterable[str]) -> None:
        if self._seen is None:
            self._seen = SeenKeys()
        self._seen.add(keys)

    def _check_progress(self) -> None:
        self._empty += 1
        if self._empty > EMPTY_PAGES:
            raise UnavailableError(f"{self._runner.store.identity()} answers with empty pages only")

    def _compare_range(self, listed: dict[str, Entry], after: str | None, upto: str | None, requested: float) -> None:
        """Compare all rows of the ledger in (after, upto] with the page; leaves the unknown ones in `listed`."""
        for rows in self._known(after, upto):
            missing = self._compare(rows, listed, requested)
            if missing and self._state.whole:
                self._miss(missing, requested)

    def _known(self, after: str | None, upto: str | None) -> Iterator[Sequence[Known]]:
        while not self._stop.is_set():
            rows = self._ledger.known(self._runner.source_id, after, upto, KNOWN_ROWS)
            if rows:
                yield rows
            if len(rows) < KNOWN_ROWS:
                return
            after = rows[-1].key

    def _compare(self, rows: Sequence[Known], listed: dict[str, Entry], requested: float) -> list[Known]:
        """Take known keys out of `listed`, publish those that changed; gives the rows that are not in it."""
        follows = self._runner.source.on_change != "ignore"
        changed: list[Entry] = []
        missing: list[Known] = []
        for row in rows:
            entry = listed.pop(row.key, None)
            if entry is None:
                if row.state not in _AWAY and row.last_event < requested:
                    missing.append(row)
            elif not entry.version:
                # The store could not say what it has now: no news of an object that is known.
                continue
            elif row.wanted == entry.version and row.state not in _AWAY:
                if follows and row.state == "done" and row.imported != row.wanted and row.last_event < requested:
                    changed.append(entry)
            elif row.last_event < requested and not row.asked:
                changed.append(entry)
        self._publish(self._found(changed, requested), "updated")
        return missing

    def _found(self, entries: Sequence[Entry], requested: float) -> list[Entry]:
        """Those of new or changed entries that can be published now."""
        found: list[Entry] = []
        for entry in entries:
            if entry.settled:
                found.append(entry)
            elif self._wait:
                self._unsettled.append(entry.key)
        since = self._runner.watched_since
        # What must rest before it is taken is never taken at a notification.
        if since is not None and self._runner.source.older_than is None:
            missed = sum(
                since <= entry.modified < requested - NOTICE_SECONDS and entry.key not in self._runner.noticed
                for entry in found
            )
            self._runner.metrics.add("missed_by_notification_total", missed, source=self._name)
        return found

    def _miss(self, rows: Sequence[Known], requested: float) -> None:
        """Judge rows that were not listed: no longer covered, gone, or there after all."""
        gone: list[str] = []
        out_of_scope: list[int] = []
        for row in rows:
            if self._stop.is_set():
                return
            rule = self._sieve.rule(row.key)
            try:
                entry = None if rule is not None else self._head(row.key)
            except ObjectFailed:
                # The store does not let us look: that is no word on whether it is there.
                continue
            if entry is not None:
                rule = self._runner.scope.refuses(entry)
            if rule is not None:
                # What was taken once is not set aside by growing older.
                out_of_scope += [row.id] if rule not in OF_AGE else []
            elif entry is None:
                gone.append(row.key)
            else:
                self._compare([row], {row.key: entry}, requested)
        self._save(gone, out_of_scope)

    def _head(self, key: str) -> Entry | None:
        self._runner.metrics.add("store_requests_total", source=self._name, operation="head")
        return self._runner.store.head(key)

    # --- after the last page -----------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Ask an unordered store for every known object that it has not listed: only all pages say what is missing."""
        seen, started = self._seen or (), self._state.started
        for rows in self._known(None, None):
            old = [row for row in rows if row.state not in _AWAY and row.last_event < started]
            missing = [row for row in old if row.key not in seen]
            if missing:
                self._miss(missing, 0.0)

    def _settle(self) -> None:
        """Wait for what was still being written, and publish it; what never rests is counted."""
        settle = self._runner.source.settle
        deadline = time.monotonic() + UNSETTLED_ROUNDS * settle
        while self._unsettled and not self._stop.is_set():
            waiting, self._unsettled = self._unsettled, []
            entries = [entry for key in waiting if (entry := self._look_again(key)) is not None]
            self._publish(self._found(entries, 0.0), "created")
            if self._unsettled and time.monotonic() > deadline:
                self._runner.unsettled += len(self._unsettled)
                extra = {"source": self._name, "objects": len(self._unsettled), "first": self._unsettled[0]}
                _log.warning(logs.OBJECTS_UNSETTLED, extra=extra)
                self._unsettled.clear()
            elif self._unsettled:
                self._stop.wait(settle / UNSETTLED_LOOKS)

    def _look_again(self, key: str) -> Entry | None:
        try:
            return self._head(key)
        except ObjectFailed:
            return None

    def _delete(self, *, accept: bool) -> str | None:
        """Publish the deletions that the pass found, or say why they wait."""
        found = sum(len(keys) for keys in self._gone())
        self._advance(replace(self._state, candidates=found))
        runner = self._runner
        why = None if accept else withheld(self._ledger, runner.source, runner.source_id, found)
        if why is not None:
            return why
        for keys in self._gone():
            events = [ObjectEvent(self._name, key, "deleted", time=time.time(), id=new_id()) for key in keys]
            self._send([event._replace(traceparent=self.traceparent) for event in events])
        return None

    def _gone(self) -> Iterator[Sequence[str]]:
        after = None
        while keys := self._ledger.gone_keys(self._state.id, after, PAGE_KEYS):
            yield keys
            after = keys[-1]

    # --- publishing and remembering ----------------------------------------------------------------------------

    def _publish(self, entries: Sequence[Entry], kind: EventKind) -> None:
        now, refused = time.time(), self._runner.refused
        self._send([
            event_of(self._name, entry, kind, now, self.traceparent) for entry in entries if is_news(entry, refused)
        ])  # fmt: skip

    def _send(self, events: Sequence[ObjectEvent]) -> None:
        if not events:
            return
        positions = dict(self._state.positions) | dict(self._runner.log.publish(events))
        reached("watcher.published")
        self._runner.metrics.add("sent_events_total", len(events), source=self._name, discovered_by="listing")
        self._advance(replace(self._state, published=self._state.published + len(events), positions=positions))

    def _advance(self, state: Pass) -> None:
        self._state = self._runner.state = state

    def _save(self, gone: Sequence[str] = (), out_of_scope: Sequence[int] = (), *, now: bool = False) -> None:
        """Write down how far the pass has come, if it found what the ledger must know or has not done so for a while.
        What was published since is found again after a crash, and published again."""
        if now or gone or out_of_scope or time.monotonic() - self._saved >= SAVE_SECONDS:
            self._ledger.save_pass(self._state, gone, out_of_scope)
            self._saved = time.monotonic()
