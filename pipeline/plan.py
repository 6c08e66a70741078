"""What a run would do: every object of a source held against the ledger, tasks estimated from a sample.

Nothing is written. The ledger's own rule (`on_event`) decides what is new, so a plan cannot differ from a run.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

import orjson

from pipeline.config import Source
from pipeline.consumers.reading import open_object
from pipeline.errors import RetriableError, TerminalError
from pipeline.events import ObjectEvent
from pipeline.labelconfig import type_name
from pipeline.ledger import Known, on_event
from pipeline.parsers import Body, Rules
from pipeline.producers.seen import SeenKeys
from pipeline.stores import Entry, Page, Queue, Store, is_queue, name_of
from pipeline.stores.scope import Scope
from pipeline.tasks import Parsed, RejectedRow, Task

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PAGE = 1000
SAMPLE_OBJECTS = 8
"""Objects of one extension that are read to estimate the tasks of all."""
SAMPLE_BYTES = 2 * 1024 * 1024
"""Of a large object so much is read, and the rest is estimated from it."""
EXTENSIONS_LIMIT = 50
"""Extensions that are told apart; what comes later is sampled together."""
TASKS_SHOWN = 3
PRESENT = frozenset({"ready", "claimed", "done", "failed", "skipped"})
"""States of an object that the store should have."""
PROBLEMS_SHOWN = 5
TASKS_LOOKED_AT = 100
"""Tasks of a piece whose types are told."""
COLUMNS_LIMIT = 200
"""Keys of tasks whose types are told."""


class Knowing(Protocol):
    """What a plan asks of a ledger."""

    def known(self, source_id: int, after: str | None, upto: str | None, limit: int) -> list[Known]:
        """As `Ledger.known`."""

    def known_keys(self, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
        """As `Ledger.known_keys`."""

    def taken(self, source_id: int) -> str | None:
        """As `Ledger.taken`."""


@dataclass(slots=True)
class Kind:
    """Objects of one extension: how many there are, what reads them, and what the sampled ones gave."""

    count: int = 0
    size: int = 0
    parser: str = ""
    sampled: int = 0
    sampled_bytes: int = 0
    sampled_tasks: int = 0
    most: int = 0

    def estimate(self) -> int:
        """Tasks of all of them: by bytes, but by the object where each gives at most one."""
        if not self.sampled:
            return 0
        if self.most <= 1 or not self.sampled_bytes:
            return round(self.count * self.sampled_tasks / self.sampled)
        return round(self.size * self.sampled_tasks / self.sampled_bytes)


@dataclass(slots=True)
class Plan:
    """What a run would do with one source. `tasks` is an estimate; `size` is in bytes of what would be read.

    `ignored` objects have changed and `on_change: ignore` leaves them; `unsettled` ones may still be being
    written; `problems` are sampled objects that would fail or be skipped, each with its reason.

    By the sample: `kinds` tells what becomes of the files of each extension, `columns` which types the data's keys
    hold, `rejected` counts rows by code with the first one's message, `missing` keys that the labelling configuration
    asks for and no task has, `unused` ones that it doesn't ask for. `left_out` counts objects that the configuration
    leaves out, by its rule.
    """

    source: str
    new: int = 0
    changed: int = 0
    ignored: int = 0
    deleted: int = 0
    unchanged: int = 0
    waiting: int = 0
    unsettled: int = 0
    size: int = 0
    tasks: int = 0
    first_tasks: list[Task] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    columns: dict[str, set[str]] = field(default_factory=dict)
    rejected: dict[str, tuple[int, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def plan(source: Source, store: Store, rules: Rules, ledger: Knowing | None, source_id: int) -> Plan:
    """What a run would do with a source; without a ledger everything is new.

    Raises RetriableError where the store or the database does not answer.
    """
    result = Plan(source.name)
    for entry, row in _looked_at(result, source, store, ledger, source_id):
        if _takes(result, source, entry, row):
            _sample(result, store, rules, entry)
    result.tasks = sum(kind.estimate() for kind in result.kinds.values())
    if rules.label_config is not None and result.first_tasks:
        asked = rules.label_config.data_keys
        result.missing = [key for key in asked if key not in result.columns and key.split(".")[0] not in result.columns]
        roots = {key.split(".")[0] for key in asked} | set(asked)
        result.unused = [key for key in result.columns if key not in roots]
    return result


Looked = Iterator[tuple[Entry, Known | None]]
"""Objects that the store has, each with what the ledger knows of it."""


def _looked_at(result: Plan, source: Source, store: Store, ledger: Knowing | None, source_id: int) -> Looked:
    """All that a run would look at; counts what is known and deleted."""
    scope = Scope.of(source)
    if is_queue(store):
        return _queued(store, ledger, source_id)
    walk = _in_order if store.ordered else _in_no_order
    return walk(result, scope, store, ledger, source_id)


def _in_order(result: Plan, scope: Scope, store: Store, ledger: Knowing | None, source_id: int) -> Looked:
    after: str | None = None
    while True:
        page = store.list(after, PAGE)
        listed = {entry.key for entry in page.entries}
        entries = {entry.key: entry for entry in _taken(result, scope, page.entries)}
        upto = None if page.complete else page.entries[-1].key if page.entries else after
        known: dict[str, Known] = {}
        for row in _rows(ledger, source_id, after, upto):
            if row.key in entries:
                known[row.key] = row
            elif row.key in listed or not scope.covers(row.key) or row.state not in PRESENT:
                continue
            elif store.head(row.key) is None:
                result.deleted += 1
        for key, entry in entries.items():
            yield entry, known.get(key)
        if page.complete:
            return
        after = upto


def _taken(result: Plan, scope: Scope, entries: Sequence[Entry]) -> list[Entry]:
    """What the configuration takes; what it leaves out is counted."""
    taken = []
    for entry in entries:
        rule = scope.refuses(entry)
        if rule is None:
            taken.append(entry)
        else:
            result.left_out[rule] = result.left_out.get(rule, 0) + 1
    return taken


def _in_no_order(result: Plan, scope: Scope, store: Store, ledger: Knowing | None, source_id: int) -> Looked:
    """Only all pages together say what is missing."""
    seen = SeenKeys()
    for entries in _pages(store.list, None):
        covered = _taken(result, scope, entries)
        seen.add(entry.key for entry in entries)
        known = ledger.known_keys(source_id, [entry.key for entry in covered]) if ledger is not None else {}
        yield from ((entry, known.get(entry.key)) for entry in covered)
    for row in _rows(ledger, source_id, None, None):
        if scope.covers(row.key) and row.state in PRESENT and row.key not in seen and store.head(row.key) is None:
            result.deleted += 1


def _queued(store: Queue, ledger: Knowing | None, source_id: int) -> Looked:
    """What is in a queue and not imported. What was taken and waits for a worker is told beside what is new."""
    after = ledger.taken(source_id) if ledger is not None and store.positioned else None
    for row in _rows(ledger, source_id, None, None) if store.positioned else ():
        entry = store.head(row.key) if row.state in ("ready", "claimed") else None
        if entry is not None:
            yield entry, row
    for entries in _pages(store.preview, after):
        known = ledger.known_keys(source_id, [entry.key for entry in entries]) if ledger is not None else {}
        yield from ((entry, known.get(entry.key)) for entry in entries)


def _pages(listing: Callable[[str | None, int], Page], after: str | None) -> Iterator[list[Entry]]:
    while True:
        page = listing(after, PAGE)
        yield page.entries
        if page.complete:
            return
        after = page.entries[-1].key if page.entries else after


def _takes(result: Plan, source: Source, entry: Entry, row: Known | None) -> bool:
    """Count one object; whether a run would import it."""
    if not entry.settled:
        result.unsettled += 1
        return False
    event = ObjectEvent(source.name, entry.key, "seen", entry.version or None, time=time.time())
    effect = on_event(row, event, source.on_change).effect
    if effect == "duplicate" and row is not None and row.state in ("ready", "claimed"):
        result.waiting += 1
        return True
    if effect == "new":
        result.new += 1
    elif effect in ("changed", "superseded"):
        result.changed += 1
    elif effect == "ignored":
        result.ignored += 1
    else:
        result.unchanged += 1
    return effect in ("new", "changed", "superseded")


def _rows(ledger: Knowing | None, source_id: int, after: str | None, upto: str | None) -> Iterator[Known]:
    while ledger is not None and (rows := ledger.known(source_id, after, upto, PAGE)):
        yield from rows
        after = rows[-1].key


# --- the sample ------------------------------------------------------------------------------------------


def _sample(result: Plan, store: Store, rules: Rules, entry: Entry) -> None:
    result.size += entry.size
    kinds = result.kinds
    extension = PurePosixPath(name_of(store, entry.key)).suffix.lower()
    if extension not in kinds and len(kinds) >= EXTENSIONS_LIMIT:
        extension = ""
    kind = kinds.setdefault(extension, Kind())
    kind.count += 1
    kind.size += entry.size
    if kind.sampled >= SAMPLE_OBJECTS:
        return
    kind.sampled += 1
    try:
        tasks, read = _parsed(result, kind, store, rules, entry)
    except (TerminalError, RetriableError) as error:
        if len(result.problems) < PROBLEMS_SHOWN:
            result.problems.append((entry.key, f"{error.code}: {error}"))
        tasks, read = 0, entry.size
    kind.sampled_tasks += tasks
    kind.sampled_bytes += read
    kind.most = max(kind.most, tasks)


@dataclass(slots=True)
class _Sample:
    """What one object gave, as far as it was read."""

    tasks: int = 0
    first: list[Task] = field(default_factory=list)
    columns: dict[str, set[str]] = field(default_factory=dict)
    rejected: list[RejectedRow] = field(default_factory=list)

    def add(self, piece: Parsed) -> None:
        """Count the piece's tasks, and look at some of them."""
        self.tasks += len(piece.tasks)
        self.rejected += piece.rejected
        self.first += piece.tasks[: TASKS_SHOWN - len(self.first)]
        for task in piece.tasks[:TASKS_LOOKED_AT]:
            for key, value in orjson.loads(task.data).items():
                if key in self.columns or len(self.columns) < COLUMNS_LIMIT:
                    # An empty cell has no type of its own.
                    self.columns.setdefault(key, set()).update([type_name(value)] if value != "" else [])

    def tell(self, result: Plan) -> None:
        """Join what the plan knows already."""
        result.first_tasks += self.first[: TASKS_SHOWN - len(result.first_tasks)]
        for key, types in self.columns.items():
            if key in result.columns or len(result.columns) < COLUMNS_LIMIT:
                result.columns.setdefault(key, set()).update(types)
        for row in self.rejected:
            count, message = result.rejected.get(row.code, (0, row.message))
            result.rejected[row.code] = (count + 1, message)


def _parsed(result: Plan, kind: Kind, store: Store, rules: Rules, entry: Entry) -> tuple[int, int]:
    """Tasks of an object, and of how many of its bytes; a large one is not read to its end."""
    parser, opened = open_object(store, rules, entry.key)
    kind.parser = parser.name
    read, sample = entry.size, _Sample()
    with opened as reading:
        counted = _Counted(reading.stream) if parser.reads and reading.content is None else None
        body = Body(entry.key, store.uri(entry.key), reading.entry.size, reading.content, counted)
        for piece in parser.parse(body, rules):
            if piece.restart:
                sample = _Sample()
            sample.add(piece)
            if counted is not None and counted.read_bytes >= SAMPLE_BYTES:
                read = min(counted.read_bytes, entry.size)
                break
    sample.tell(result)
    return sample.tasks, read


class _Counted:
    """Opens streams of one object and counts the bytes that the newest of them gave."""

    def __init__(self, reopen: Callable[[], BinaryIO]) -> None:
        self._reopen = reopen
        self.read_bytes = 0

    def __call__(self) -> BinaryIO:
        self.read_bytes = 0
        return io.BufferedReader(_CountingStream(self._reopen(), self))


class _CountingStream(io.RawIOBase):
    def __init__(self, inner: BinaryIO, counted: _Counted) -> None:
        self._inner = inner
        self._counted = counted

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        found = self._inner.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(found)] = found
        self._counted.read_bytes += len(found)
        return len(found)

    def close(self) -> None:
        self._inner.close()
        super().close()
