"""How to read storage: list it in order, look at one object, open its bytes.

A store is thread-safe and holds no state but its client. It raises RetriableError where the storage does
not answer, ObjectGone where there is no such object, ObjectFailed (`permission`, `not_a_file`) where it
will never answer, and UsageError where its own options are wrong. No message of it holds a secret.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

SMALL_BYTES = 1024 * 1024
"""An object up to this size is read whole, in one request."""


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
    """Storage as the rest of the pipeline sees it."""

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
