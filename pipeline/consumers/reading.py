"""Objects of one claim, opened one after another, or ahead of their turn where the store has latency."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import BinaryIO

from pipeline.errors import ObjectGone, RetriableError
from pipeline.ledger import Work
from pipeline.parsers import Parser, Rules, select
from pipeline.stores import Entry, Reading, Store, name_of

MEANWHILE_SECONDS = 0.1
"""How often, while an object is waited for, what else is due is looked at."""
READ_AHEAD_BYTES = 64 * 1024 * 1024
"""One claim holds no more than about this, read and not yet parsed."""
GROUP_OBJECTS = 8
"""Objects that one thread reads one after another, at most: to hand over each by itself costs a third of reading it."""
GROUP_SECONDS = 1.0
"""A group that takes longer is given as far as it was read, and from then on each object is handed over by itself."""
CHUNK_OBJECTS = 64
CHUNK_BYTES = 1024 * 1024
"""Objects that are given together if they are there, and bytes after which no further ones are added."""

Opened = AbstractContextManager[Reading]
Open = Callable[[], tuple[Parser, Opened]]
"""Gives an object's parser and its reading, or raises what kept it from being opened."""


class Reference:
    """A reading of an object whose bytes nobody wants: its task only refers to it."""

    content: bytes | None = None

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def stream(self) -> BinaryIO:
        """Never asked for; a parser that reads is given a reading with bytes."""
        raise ValueError("the bytes of a reference were asked for")

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""


class Ahead:
    """An object that another thread has opened: its parser and reading, or what kept it from being opened. `open`
    is an `Open`, and `with` closes what it gives."""

    __slots__ = ("_opened", "error", "parser", "reading", "work")

    def __init__(self, store: Store, rules: Rules, work: Work) -> None:
        self.work = work
        self.parser: Parser | None = None
        self.reading: Reading | None = None
        self.error: Exception | None = None
        self._opened: Opened | None = None
        try:
            self.parser, self._opened = open_object(store, rules, work.key)
            self.reading = self._opened.__enter__()
        except Exception as error:  # noqa: BLE001 - it is raised again where the object's turn comes
            self.error = error

    @property
    def size(self) -> int:
        """Bytes of it that are in memory."""
        return 0 if self.reading is None else len(self.reading.content or b"")

    def open(self) -> tuple[Parser, Opened]:
        """As `Open`."""
        if self.parser is None or self.reading is None:
            raise self.error or ValueError("it was closed")
        return self.parser, self

    def __enter__(self) -> Reading:
        if self.reading is None:
            raise ValueError("it was closed")
        return self.reading

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        opened, self._opened, self.reading = self._opened, None, None
        return None if opened is None else opened.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close it unless it was."""
        if self.reading is not None:
            self.__exit__(None, None, None)


def open_object(store: Store, rules: Rules, key: str) -> tuple[Parser, Opened]:
    """Choose the parser of a key and open its object, or just look at it if the parser reads no bytes.

    Raises ObjectSkipped if no parser takes it, and what `Store.open` raises.
    """
    parser = select(name_of(store, key), rules, None)
    if parser.reads:
        return parser, store.open(key)
    entry = store.head(key)
    if entry is None:
        raise ObjectGone("the store no longer has it")
    return parser, Reference(entry)


class ReadAhead:
    """Opens objects of one claim in the threads of a pool, at most `window` at once, bounded by bytes. `meanwhile` is
    called every MEANWHILE_SECONDS while some are waited for; what it raises ends the waiting."""

    def __init__(
        self, pool: ThreadPoolExecutor, store: Store, rules: Rules, window: int, meanwhile: Callable[[], None]
    ) -> None:
        self._meanwhile = meanwhile
        self._pool = pool
        self._store = store
        self._rules = rules
        self._window = window
        self._lock = threading.Lock()
        self._bytes = 0
        self._over = False
        self._group = GROUP_OBJECTS

    def chunks(self, work: Sequence[Work]) -> Generator[list[Ahead], None, None]:
        """All objects, in chunks of what was there first. Closing the iterator closes what was read for nothing."""
        rest = deque(work)
        self._group = max(1, min(GROUP_OBJECTS, len(work) // self._window))
        reading: deque[tuple[list[Work], Future[list[Ahead]]]] = deque()
        try:
            while rest or reading:
                while rest and len(reading) < self._window and (self._bytes < READ_AHEAD_BYTES or not reading):
                    items = [rest.popleft() for _ in range(min(self._group, len(rest)))]
                    reading.append((items, self._pool.submit(self._read, items)))
                self._wait(reading[0][1])
                with ExitStack() as opened:
                    chunk = self._chunk(reading, rest)
                    for one in chunk:
                        opened.callback(one.close)
                    yield chunk
        finally:
            self._over = True
            for _, future in reading:
                _forget(future)

    def _wait(self, future: Future[list[Ahead]]) -> None:
        while not future.done():
            if not wait([future], MEANWHILE_SECONDS).done:
                self._meanwhile()

    def _chunk(self, reading: deque[tuple[list[Work], Future[list[Ahead]]]], rest: deque[Work]) -> list[Ahead]:
        """What has been read, in order; objects of a group that its thread left go to the front of `rest`."""
        chunk: list[Ahead] = []
        size = 0
        while reading and len(chunk) < CHUNK_OBJECTS and size < CHUNK_BYTES and reading[0][1].done():
            items, future = reading.popleft()
            found = future.result()
            rest.extendleft(reversed(items[len(found) :]))
            chunk += found
            size += sum([one.size for one in found])
        self._count(-size)
        return chunk

    def _read(self, items: Sequence[Work]) -> list[Ahead]:
        """Open a group, or as many of it as there is room for. Where storage hangs or answers slowly, those behind are
        read by others: an object waits for itself alone."""
        found: list[Ahead] = []
        began = time.monotonic()
        for item in items:
            if found and (self._over or self._bytes >= READ_AHEAD_BYTES):
                break
            if found and (isinstance(found[-1].error, RetriableError) or time.monotonic() - began > GROUP_SECONDS):
                self._group = 1
                break
            found.append(Ahead(self._store, self._rules, item))
            self._count(found[-1].size)
        return found

    def _count(self, more: int) -> None:
        with self._lock:
            self._bytes += more


def _forget(future: Future[list[Ahead]]) -> None:
    if not future.cancel():
        future.add_done_callback(_close)


def _close(future: Future[list[Ahead]]) -> None:
    if not future.cancelled():
        for one in future.result():
            one.close()
