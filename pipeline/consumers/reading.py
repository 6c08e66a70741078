"""Objects of one claim, opened one after another, or ahead of their turn where the store has latency."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import BinaryIO

from pipeline.errors import ObjectGone
from pipeline.ledger import Work
from pipeline.parsers import Parser, Rules, select
from pipeline.stores import Entry, Reading, Store, name_of

MEANWHILE_SECONDS = 0.1
"""How often, while an object is waited for, what else is due is looked at."""
READ_AHEAD_BYTES = 64 * 1024 * 1024
"""One claim holds no more than about this, read and not yet parsed."""
READ_AHEAD_OBJECTS = 256
"""... and no more objects, opened and not yet parsed."""
TURN_OBJECTS, TURN_SECONDS = 16, 1.0
"""So many objects, or for so long, a thread reads for one claim before another claim that waits for it is served."""
CHUNK_OBJECTS = 64
CHUNK_BYTES = 1024 * 1024
"""Objects that are given together if they are there, and bytes after which no further ones are added."""
GATHER_SECONDS = 0.05
"""How long more are waited for when one is there: to give each by itself costs a third of reading it."""

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
        except BaseException as error:  # noqa: BLE001 - it is raised again where the object's turn comes
            # A panic of a library that is written in Rust is no Exception, and yet a fault of this object alone.
            self.error = error if isinstance(error, Exception) else RuntimeError(repr(error))

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
        self._there = threading.Condition()
        self._rest: deque[Work] = deque()
        self._found: list[Ahead] = []
        self._bytes = 0
        self._left = 0
        self._readers = self._busy = 0
        self._over = False
        self._failure: BaseException | None = None

    def chunks(self, work: Sequence[Work]) -> Generator[list[Ahead], None, None]:
        """All objects, in chunks of what was there first. Closing the iterator closes what was read for nothing."""
        self._rest.extend(work)
        self._left = len(work)
        try:
            while self._left:
                self._begin()
                self._wait()
                with ExitStack() as opened:
                    chunk = self._chunk()
                    for one in chunk:
                        opened.callback(one.close)
                    self._begin()
                    yield chunk
        finally:
            with self._there:
                self._over = True
                found, self._found = self._found, []
            for one in found:
                one.close()

    def _begin(self) -> None:
        """Let as many threads read as there is work and room for."""
        while True:
            with self._there:
                coming = self._readers - self._busy
                if self._readers >= self._window or coming >= len(self._rest) or not self._has_room():
                    return
                self._readers += 1
            self._pool.submit(self._read)

    def _wait(self) -> None:
        """Wait until something is read; then a moment for others, so that they are parsed together."""
        while not self._is_any():
            self._meanwhile()
        with self._there:
            self._there.wait_for(self._enough, GATHER_SECONDS)
            if self._failure is not None:
                raise self._failure

    def _is_any(self) -> bool:
        with self._there:
            return bool(self._there.wait_for(lambda: self._found or self._failure, MEANWHILE_SECONDS))

    def _enough(self) -> bool:
        if self._failure is not None:
            return True
        return len(self._found) >= min(CHUNK_OBJECTS, self._left) or self._bytes >= CHUNK_BYTES

    def _chunk(self) -> list[Ahead]:
        """What has been read first."""
        with self._there:
            size = count = 0
            for one in self._found[:CHUNK_OBJECTS]:
                size, count = size + one.size, count + 1
                if size >= CHUNK_BYTES:
                    break
            chunk, self._found = self._found[:count], self._found[count:]
            self._bytes -= size
            self._left -= count
        return chunk

    def _has_room(self) -> bool:
        return not self._over and self._bytes < READ_AHEAD_BYTES and len(self._found) < READ_AHEAD_OBJECTS

    def _read(self) -> None:
        try:
            self._read_on()
        except BaseException as error:  # noqa: BLE001 - such as no memory for the next step: the claim ends by it
            with self._there:
                self._failure = error
                self._there.notify()

    def _read_on(self) -> None:
        """Open one object after another, each of which waits for itself alone; then give others the thread."""
        ending = time.monotonic() + TURN_SECONDS
        for _ in range(TURN_OBJECTS):
            with self._there:
                if not self._rest or not self._has_room():
                    self._readers -= 1
                    return
                item = self._rest.popleft()
                self._busy += 1
            self._keep(Ahead(self._store, self._rules, item))
            if time.monotonic() > ending:
                break
        try:
            self._pool.submit(self._read)
        except RuntimeError:
            # The pool is shut down, and with it whoever waits.
            with self._there:
                self._readers -= 1

    def _keep(self, one: Ahead) -> None:
        with self._there:
            self._busy -= 1
            if not self._over:
                self._found.append(one)
                self._bytes += one.size
                if len(self._found) == 1 or self._enough():
                    self._there.notify()
                return
        one.close()
