"""How to read storage: list it in order, look at one object, open its bytes.

A store is thread-safe and holds no state but its client. It raises RetriableError where the storage does
not answer, ObjectGone where there is no such object, ObjectFailed (`permission`, `not_a_file`) where it
will never answer, and UsageError where its own options are wrong. No message of it holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, TypeGuard

SMALL_BYTES = 1024 * 1024
"""An object up to this size is read whole, in one request."""
READING_THREADS_LIMIT = 256
"""Threads that read ahead from one source, for all worker threads of a process together."""


class Entry(NamedTuple):
    """What a store says of one object: its key, the opaque name of its content, bytes, seconds since 1970.

    `version` is empty where a listing could not tell it just now. `settled` is False where somebody may still be
    writing it. `sequencer` as in `ObjectEvent`, as text.
    """

    key: str
    version: str
    size: int
    modified: float
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing, in byte order of the keys; `complete` says that nothing follows."""

    entries: list[Entry]
    complete: bool


class Reading(Protocol):
    """One version of one object, opened. Everything read through it is of that version.

    Raises ObjectUnsettled from any read if the object changed meanwhile.
    """

    entry: Entry
    content: bytes | None
    """All bytes of an object of at most SMALL_BYTES, else None."""

    def stream(self) -> BinaryIO:
        """A new stream from the first byte; it may be asked for more than once."""


class Store(Protocol):
    """Storage as the rest of the pipeline sees it.

    A store may have `contents(keys)`, which reads small objects one after another and is cheaper than `open` for many:
    for each key, in their order, its entry and all its bytes, or None where it must be opened to learn more.

    A store whose `jumps` is true may be asked to list after any text, and passes over no key then; one that has no
    such attribute is asked for keys that it gave.
    """

    @property
    def ordered(self) -> bool:
        """Whether `list` gives keys in byte order of their UTF-8. May ask the storage, and raise as `list` does."""

    def identity(self) -> str:
        """What tells this store from all others: scheme, endpoint, bucket or root, prefix. No secret."""

    def uri(self, key: str) -> str:
        """The canonical URI of an object, as tasks refer to it."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if the store can't be used."""

    def list(self, after: str | None, limit: int) -> Page:
        """At most `limit` objects whose keys come after `after`, in order; a page may be short, even empty."""

    def head(self, key: str) -> Entry | None:
        """What the store holds under this key now; None if nothing."""

    def open(self, key: str) -> AbstractContextManager[Reading]:
        """Open what the store holds under this key now. Raises ObjectGone if that is nothing."""

    def sign(self, key: str, ttl: float) -> str:
        """A URL that anybody may read the object by for `ttl` seconds; UsageError where there is no such thing."""

    def close(self) -> None:
        """Let go of connections and files."""


class Queue(Store, Protocol):
    """A store of which others push tasks, that are taken in batches; each batch is one object, and never changes.

    There are two kinds. What is *positioned* (a stream) keeps what was taken, and its batches are ranges that come to
    be by being recorded together with the position behind them, in the ledger. What is not (a list) moves what it
    gives into batches of its own, which it lists until they are settled. A batch that was imported need not stay.
    """

    positioned: bool

    def take(self, after: str | None, limit: int) -> Page:
        """The next batches, at most `limit`; `after` is the position of what is positioned, the key of its last
        batch. A list gives what it has moved now, not what it lists already."""

    def preview(self, after: str | None, limit: int) -> Page:
        """What is there to be imported behind a position, with nothing moved by it."""

    def wait(self, after: str | None, seconds: float) -> bool:
        """Wait until there is more to take, but no longer than this; whether there is."""

    def place(self, key: str) -> tuple[int, ...]:
        """What a batch's key is sorted by, to be in the order in which it was pushed."""

    def settle(self, done: Sequence[tuple[str, str | None]], left: str | None, after: str | None) -> None:
        """These batches (key and version) are imported. `left` is the first one that is not, in their order; without
        it all are up to the position `after`."""

    def holds(self, after: str | None, keys: Sequence[str]) -> tuple[int, int]:
        """How many entries what is positioned still holds up to a position, and in these batches; else 0 and 0."""


Content = tuple[Entry, bytes] | None
"""What `Store.contents` gives of an object."""


def is_queue(store: Store) -> TypeGuard[Queue]:
    """Whether a store is a queue."""
    return hasattr(store, "positioned")


def has_latency(store: Store) -> bool:
    """Whether a store's answers take their time: it says how many may be under way at once, be it one."""
    return hasattr(store, "concurrency")


def concurrency(store: Store) -> int:
    """How many objects are read from a store at once for each worker thread; one where it has no latency to hide."""
    return max(1, int(getattr(store, "concurrency", 1)))


def name_of(store: Store, key: str) -> str:
    """The file name that tells how an object is read: its key, unless the store says another one by `name_of`."""
    own = getattr(store, "name_of", None)
    return key if own is None else str(own(key))
