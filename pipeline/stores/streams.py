"""Listings under way, kept between one page and the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

STREAMS_LIMIT = 4
"""Listings that are remembered, to go on with."""

T = TypeVar("T")
Stream = Iterator[tuple[Sequence[T], bool]]
"""Pages of a listing, each with whether it is the last."""


class Streams(Generic[T]):
    """Streams by the key and page size that the next page will be asked for with. Thread-safe.

    A page that begins where the one before ended so goes on with the server's own continuation token.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, int], Stream[T]] = {}

    def take(self, after: str | None, limit: int) -> Stream[T] | None:
        """The stream that goes on after a key, for this caller alone; None if there is none."""
        with self._lock:
            return self._streams.pop((after, limit), None) if after else None

    def keep(self, after: str, limit: int, stream: Stream[T]) -> None:
        """Remember a stream; the oldest of too many is forgotten."""
        with self._lock:
            self._streams[after, limit] = stream
            while len(self._streams) > STREAMS_LIMIT:
                del self._streams[next(iter(self._streams))]
