"""Large objects, read in ranges that are all of one version, the next one while this one is worked on."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Self

from pipeline.stores import Entry

RANGE_BYTES = 8 * 1024 * 1024
Part = Callable[[int, int], bytes]
"""The bytes from one place to before another, of the version that was opened. Raises as `Reading`."""


class RangedReading:
    """`pipeline.stores.Reading` of an object of a bucket, which holds nothing that must be closed. `ahead` is where
    ranges are fetched ahead of their reader."""

    def __init__(self, entry: Entry, content: bytes | None, part: Part, ahead: ThreadPoolExecutor) -> None:
        self.entry = entry
        self.content = content
        self._part = part
        self._ahead = ahead

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    def stream(self) -> BinaryIO:
        """As `Reading.stream`."""
        if self.content is not None:
            return io.BytesIO(self.content)
        return io.BufferedReader(_Ranges(self._part, self.entry.size, self._ahead), RANGE_BYTES)


class _Ranges(io.RawIOBase):
    """Ranges one after the other, each asked for while the one before is read."""

    def __init__(self, part: Part, size: int, ahead: ThreadPoolExecutor) -> None:
        self._part = part
        self._size = size
        self._pool = ahead
        self._asked = 0
        self._chunk = memoryview(b"")
        self._next: Future[bytes] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # any writable buffer
        """Fill a buffer, at least partly; 0 at the end."""
        if not self._chunk:
            self._chunk = memoryview(self._following())
        count = min(len(buffer), len(self._chunk))
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count

    def _following(self) -> bytes:
        if self._next is None:
            self._next = self._ask()
        if self._next is None:
            return b""
        chunk = self._next.result()
        self._next = self._ask()
        return chunk

    def _ask(self) -> Future[bytes] | None:
        start = self._asked
        if start >= self._size:
            return None
        self._asked = min(start + RANGE_BYTES, self._size)
        return self._pool.submit(self._part, start, self._asked)

    def close(self) -> None:
        """Forget what was asked for ahead."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._chunk = memoryview(b"")
        super().close()
