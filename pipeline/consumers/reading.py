"""Objects of one claim, opened one after another, or ahead of their turn where the store has latency."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
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

Opened = AbstractContextManager[Reading]


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
    """A reading that another thread has opened already; `with` gives it and closes it."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.reading = opened.__enter__()

    def __enter__(self) -> Reading:
        return self.reading

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._opened.__exit__(kind, error, trace)


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


Open = Callable[[], tuple[Parser, Opened]]
"""Gives an object's parser and its reading, or raises what kept it from being opened."""


def in_turn(store: Store, rules: Rules, work: Sequence[Work]) -> Generator[tuple[Work, Open], None, None]:
    """Each object with the call that opens it in the caller's thread."""
    for item in work:
        yield item, partial(open_object, store, rules, item.key)


class ReadAhead:
    """Opens objects of one claim in the threads of a pool, at most `window` ahead, bounded by bytes. `meanwhile` is
    called every MEANWHILE_SECONDS while one is waited for; what it raises ends the waiting."""

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

    def objects(self, work: Sequence[Work]) -> Generator[tuple[Work, Open], None, None]:
        """Each object with the call that waits for it. Closing the iterator closes what was read for nothing."""
        rest = iter(work)
        ahead: deque[tuple[Work, Future[tuple[Parser, Ahead]]]] = deque()
        try:
            while True:
                while len(ahead) < self._window and (self._bytes < READ_AHEAD_BYTES or not ahead):
                    item = next(rest, None)
                    if item is None:
                        break
                    ahead.append((item, self._pool.submit(self._open, item.key)))
                if not ahead:
                    return
                item, future = ahead.popleft()
                yield item, lambda future=future: self._take(future)  # type: ignore[misc]  # bound at once
        finally:
            for _, future in ahead:
                _forget(future)

    def _open(self, key: str) -> tuple[Parser, Ahead]:
        parser, opened = open_object(self._store, self._rules, key)
        ahead = Ahead(opened)
        self._count(len(ahead.reading.content or b""))
        return parser, ahead

    def _take(self, future: Future[tuple[Parser, Ahead]]) -> tuple[Parser, Opened]:
        try:
            while not future.done():
                if not wait([future], MEANWHILE_SECONDS).done:
                    self._meanwhile()
        except BaseException:
            _forget(future)
            raise
        parser, ahead = future.result()
        self._count(-len(ahead.reading.content or b""))
        return parser, ahead

    def _count(self, more: int) -> None:
        with self._lock:
            self._bytes += more


def _forget(future: Future[tuple[Parser, Ahead]]) -> None:
    if not future.cancel():
        future.add_done_callback(_close)


def _close(future: Future[tuple[Parser, Ahead]]) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    with future.result()[1]:
        """What was opened for nothing is closed."""
