"""Whether store, ledger and tasks agree: the store's listing and the ledger's audit, walked in step.

Memory is one page of each, whatever the bucket's size. What differs is looked at a second time before it is
told, because the pipeline may be at work meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.config import Source
from pipeline.events import check_key
from pipeline.ledger import Audit, Known, Ledger
from pipeline.stores import Entry, Queue, Store, is_queue
from pipeline.stores.scope import Scope

PAGE = 1000
LOOKS = 3
"""How often a stream that may be trimmed meanwhile is held against its ranges."""

Kind = Literal["missing", "doubled", "stale", "orphaned"]
"""The store has it and the ledger (or the tasks) lack it; tasks are there twice; the ledger is behind the
store; the ledger has it, or its tasks are live, and the store has it no more."""
KINDS: tuple[Kind, ...] = ("missing", "doubled", "stale", "orphaned")


class Finding(NamedTuple):
    """One object about which store, ledger and tasks do not agree."""

    source: str
    key: str
    kind: Kind
    detail: str


@dataclass(slots=True)
class Verified:
    """What became of a source's objects: `good` agree (`failed` and `skipped` ones do, with their reasons),
    `waiting` are still on their way, the rest by kind."""

    source: str
    good: int = 0
    failed: int = 0
    skipped: int = 0
    waiting: int = 0
    found: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for, and nothing is still on its way."""
        return not self.waiting and not any(self.found.values())


@dataclass(frozen=True, slots=True)
class Subject:
    """The source that is verified, and where its two sides are."""

    source: Source
    source_id: int
    store: Store
    ledger: Ledger


Verdict = tuple[Kind, str] | Literal["good", "waiting", "ignored"]


def verify(subject: Subject, tell: Callable[[Finding], None]) -> Verified:
    """Compare a source's store with its ledger and tasks; `tell` gets each object that does not agree.

    Raises RetriableError where the store or the database does not answer.
    """
    if is_queue(subject.store):
        return _verify_queue(subject, subject.store, tell)
    result = Verified(subject.source.name)
    scope = Scope.of(subject.source)
    for entry, audit in _pairs(subject, scope):
        verdict = judge(entry, audit, subject.source)
        if isinstance(verdict, tuple) and _moved(subject, entry, audit):
            verdict = "waiting"
        if isinstance(verdict, tuple):
            result.found[verdict[0]] += 1
            key = entry.key if entry is not None else audit.key if audit is not None else ""
            tell(Finding(subject.source.name, key, *verdict))
        elif verdict == "waiting":
            result.waiting += 1
        elif verdict == "good":
            result.good += 1
            if audit is not None:
                result.failed += audit.state == "failed"
                result.skipped += audit.state == "skipped"
    return result


# --- queues --------------------------------------------------------------------------------------------


def _verify_queue(subject: Subject, store: Queue, tell: Callable[[Finding], None]) -> Verified:
    """A queue lists no keys of its own: what the ledger has taken is held against the tasks, what a stream still
    holds against the ranges that were taken of it, and what was not taken yet is waiting."""
    result = Verified(subject.source.name)
    for audit in _audits(subject):
        verdict = _tasks(audit, empty=True)
        if audit.state in ("ready", "claimed"):
            result.waiting += 1
        elif verdict is not None:
            result.found[verdict[0]] += 1
            tell(Finding(subject.source.name, audit.key, *verdict))
        else:
            result.good += 1
            result.failed += audit.state == "failed"
            result.skipped += audit.state == "skipped"
    after = subject.ledger.taken(subject.source_id)
    gap = _gap(subject, store, after) if after is not None else None
    if after is not None and gap is not None:
        result.found[gap[0]] += 1
        tell(Finding(subject.source.name, after, *gap))
    left = [entry.key for entry in store.preview(after, PAGE).entries]
    result.waiting += len(set(left) - subject.ledger.known_keys(subject.source_id, left).keys())
    return result


def _gap(subject: Subject, store: Queue, after: str) -> tuple[Kind, str] | None:
    """Whether the ranges that were taken hold all entries up to the last one, and none twice."""
    held = taken = 0
    for _ in range(LOOKS):
        held, taken = store.holds(after, ())[0], 0
        last = store.place(after)
        for page in _audit_pages(subject):
            taken += store.holds(None, [audit.key for audit in page if store.place(audit.key) <= last])[1]
        if held == taken:
            return None
    told = f"the stream holds {held} entries up to this range, the ranges that were taken hold {taken}"
    return ("missing" if taken < held else "doubled"), told


# --- judging one object --------------------------------------------------------------------------------


def judge(entry: Entry | None, audit: Audit | None, source: Source) -> Verdict:
    """What a store's entry and a ledger's row say of one object together; None for a side that has none."""
    if audit is None:
        if entry is None:
            return "ignored"
        refused = check_key(entry.key)
        if refused is not None:
            return "missing", refused
        return ("missing", "the ledger does not know it") if entry.settled else "waiting"
    if audit.state in ("ready", "claimed") or (entry is not None and not entry.settled):
        return "waiting"
    return _tasks(audit) or _compared(entry, audit, source)


def _compared(entry: Entry | None, audit: Audit, source: Source) -> Verdict:
    if entry is None:
        return _absent(audit, source)
    return _present(entry, audit, source) if entry.version else _untold(audit, source)


def _tasks(audit: Audit, *, empty: bool = False) -> tuple[Kind, str] | None:
    """What is wrong with the tasks of an object; `empty` says that it may have none."""
    if audit.imports > 1:
        return "doubled", f"{audit.imports} imports of it are live"
    if audit.live > audit.counted:
        return "doubled", f"{audit.live} tasks are live, the ledger counts {audit.counted}"
    if audit.live < audit.counted:
        return "missing", f"{audit.live} tasks are live, the ledger counts {audit.counted}"
    if audit.state == "done" and not audit.live and not empty:
        return "missing", "it is imported, and has no tasks"
    return None


def _present(entry: Entry, audit: Audit, source: Source) -> Verdict:
    if audit.state == "out_of_scope":
        return "ignored"
    if audit.state == "gone":
        return "stale", "the store has it, the ledger says that it is gone"
    if audit.state == "done":
        if audit.imported == entry.version or source.on_change == "ignore":
            return "good"
        return "stale", f"the store has version {entry.version}, imported is {audit.imported}"
    if audit.wanted not in (None, entry.version):
        return "stale", f"the store has version {entry.version}, the ledger knows {audit.wanted}"
    return "good"


def _untold(audit: Audit, source: Source) -> Verdict:
    """Of an object of which the store could not say just now what it has."""
    if audit.state in ("failed", "skipped", "out_of_scope"):
        return "good"
    return "good" if audit.state == "done" and source.on_change == "ignore" else "waiting"


def _absent(audit: Audit, source: Source) -> Verdict:
    if audit.state == "out_of_scope":
        return "ignored"
    if audit.state == "gone":
        if audit.live and source.on_delete == "archive":
            return "orphaned", f"the store no longer has it, and {audit.live} tasks of it are live"
        return "good"
    if audit.live:
        return "orphaned", f"the store no longer has it, the ledger says {audit.state}"
    return "stale", f"the store no longer has it, the ledger says {audit.state}"


def _moved(subject: Subject, entry: Entry | None, audit: Audit | None) -> bool:
    """Whether either side has changed since it was read."""
    key = entry.key if entry is not None else audit.key if audit is not None else ""
    there = subject.store.head(key)
    if (there is None) != (entry is None) or (there and entry and there.version != entry.version):
        return True
    row = subject.ledger.known_keys(subject.source_id, [key]).get(key)
    return _seen(row) != (None if audit is None else (audit.state, audit.wanted, audit.imported))


def _seen(row: Known | None) -> tuple[str, str | None, str | None] | None:
    return None if row is None else (row.state, row.wanted, row.imported)


# --- walking in step -----------------------------------------------------------------------------------


def _pairs(subject: Subject, scope: Scope) -> Iterator[tuple[Entry | None, Audit | None]]:
    pairs = _merged(subject) if subject.store.ordered else _looked_up(subject)
    for entry, audit in pairs:
        key = entry.key if entry is not None else audit.key if audit is not None else ""
        if scope.covers(key) and (entry is None or scope.refuses(entry) is None):
            yield entry, audit


def _merged(subject: Subject) -> Iterator[tuple[Entry | None, Audit | None]]:
    entries, audits = _entries(subject.store), _audits(subject)
    entry, audit = next(entries, None), next(audits, None)
    while entry is not None or audit is not None:
        here = None if entry is None else entry.key.encode()
        there = None if audit is None else audit.key.encode()
        if here is not None and (there is None or here < there):
            yield entry, None
            entry = next(entries, None)
        elif there is not None and (here is None or there < here):
            yield None, audit
            audit = next(audits, None)
        else:
            yield entry, audit
            entry, audit = next(entries, None), next(audits, None)


def _looked_up(subject: Subject) -> Iterator[tuple[Entry | None, Audit | None]]:
    for audit in _audits(subject):
        yield subject.store.head(audit.key), audit
    after: str | None = None
    while True:
        page = subject.store.list(after, PAGE)
        known = subject.ledger.known_keys(subject.source_id, [entry.key for entry in page.entries])
        yield from ((entry, None) for entry in page.entries if entry.key not in known)
        if page.complete:
            return
        after = page.entries[-1].key if page.entries else after


def _entries(store: Store) -> Iterator[Entry]:
    after: str | None = None
    while True:
        page = store.list(after, PAGE)
        yield from page.entries
        if page.complete:
            return
        after = page.entries[-1].key if page.entries else after


def _audits(subject: Subject) -> Iterator[Audit]:
    for page in _audit_pages(subject):
        yield from page


def _audit_pages(subject: Subject) -> Iterator[list[Audit]]:
    reports = subject.ledger.reports()
    after: str | None = None
    while page := list(reports.audit(subject.source_id, after, PAGE)):
        yield page
        after = page[-1].key
