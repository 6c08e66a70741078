"""What of a listing becomes an event: what the configuration takes, and what was not refused before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.events import EventKind, ObjectEvent, check_key, new_id
from pipeline.metrics import Metrics
from pipeline.stores import Entry
from pipeline.stores.scope import Rule, Scope

REFUSED_LIMIT = 1000
"""Keys that no ledger takes of which is remembered that they were published."""


class Sieve:
    """Parts pages into what a source takes and what it leaves out, which is counted. `left` is of the last page."""

    def __init__(self, source: str, scope: Scope, metrics: Metrics) -> None:
        self._source = source
        self._scope = scope
        self._metrics = metrics
        self.left: dict[str, Rule] = {}

    def take(self, entries: Sequence[Entry]) -> dict[str, Entry]:
        """What of a page the configuration takes, by key."""
        refuses = self._scope.refuses
        taken: dict[str, Entry] = {}
        self.left = {}
        for entry in entries:
            rule = refuses(entry)
            if rule is None:
                taken[entry.key] = entry
            else:
                self.left[entry.key] = rule
        for each, count in self.counts().items():
            self._metrics.add("left_out_objects_total", count, source=self._source, rule=each)
        return taken

    def counts(self) -> Counter[str]:
        """How many of the last page each rule has left out."""
        return Counter(self.left.values())

    def rule(self, key: str) -> Rule | None:
        """The rule that leaves out a key, as far as its page or the key itself tells."""
        return self.left.get(key) or self._scope.left_out(key)


def is_news(entry: Entry, refused: dict[str, str]) -> bool:
    """False for a key that no ledger takes and that was published before: it would be refused in each pass."""
    if check_key(entry.key) is None:
        return True
    if refused.get(entry.key) == entry.version:
        return False
    if len(refused) >= REFUSED_LIMIT:
        del refused[next(iter(refused))]
    refused[entry.key] = entry.version
    return True


def event_of(source: str, entry: Entry, kind: EventKind, now: float, traceparent: str) -> ObjectEvent:
    """What a pass says of an object."""
    return ObjectEvent(
        source, entry.key, kind, entry.version or None, None, entry.size, entry.modified, "listing", now, new_id(),
        traceparent,
    )  # fmt: skip
