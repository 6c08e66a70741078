"""One version of one local file, open."""

from __future__ import annotations

import io
import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from pipeline.errors import ObjectUnsettled
from pipeline.stores import SMALL_BYTES, Entry
from pipeline.stores.local.files import READ, Files

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAM_BUFFER_BYTES = 256 * 1024


class Looker(Protocol):
    """What a reading needs of its store."""

    files: Files
    settle: float

    def entry(self, key: str, status: os.stat_result, now_ns: int) -> Entry:
        """What a file's status says of it at `now_ns`."""


class LocalReading:
    """A context manager. Entering raises as `Files.opened`, and ObjectUnsettled while the file may still be
    being written. Used by one thread.
    """

    __slots__ = ("_handle", "_key", "_status", "_store", "content", "entry")

    entry: Entry
    content: bytes | None

    def __init__(self, store: Looker, key: str) -> None:
        self._store = store
        self._key = key
        self._handle = -1

    def __enter__(self) -> Self:
        self._handle, self._status = self._store.files.opened(self._key, READ)
        try:
            self._begin()
        except BaseException:
            self._close()
            raise
        if self.content is not None:
            self._close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle >= 0:
            try:
                if kind is None:
                    self.check()
            finally:
                self._close()

    def stream(self) -> BinaryIO:
        """As `Reading.stream`. It ends with this reading."""
        if self.content is not None:
            return io.BytesIO(self.content)
        self.check()
        return io.BufferedReader(_FileStream(self), STREAM_BUFFER_BYTES)

    def read_at(self, buffer: WriteableBuffer, offset: int) -> int:
        """Fill `buffer` from `offset` on; gives how many bytes, 0 at the end of the unchanged file."""
        if self._handle < 0:
            raise ValueError("the reading has ended")
        try:
            count = os.preadv(self._handle, [buffer], offset)
        except OSError as error:
            raise self._store.files.translated(error, self._key) from None
        if not count:
            self.check()
        return count

    def check(self) -> None:
        """Raises ObjectUnsettled if the open file is no longer the version that was opened."""
        status, now = self._status, os.fstat(self._handle)
        if now.st_mtime_ns != status.st_mtime_ns or now.st_size != status.st_size:
            raise self._unsettled("changed while it was read")

    def _begin(self) -> None:
        self.entry = self._store.entry(self._key, self._status, time.time_ns())
        if not self.entry.settled:
            raise self._unsettled("may still be being written")
        self.content = self._whole() if self.entry.size <= SMALL_BYTES else None

    def _whole(self) -> bytes:
        size = self.entry.size
        try:
            content = os.read(self._handle, size + 1)
            # A file system in user space may give less than is there.
            while len(content) < size and (more := os.read(self._handle, size + 1 - len(content))):
                content += more
        except OSError as error:
            raise self._store.files.translated(error, self._key) from None
        self.check()
        if len(content) != size:
            raise self._unsettled("changed while it was read")
        return content

    def _unsettled(self, what: str) -> ObjectUnsettled:
        return ObjectUnsettled(f"{self._store.files.uri(self._key)} {what}", retry_after=self._store.settle)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class _FileStream(io.RawIOBase):
    """A place in a reading's file; several of them do not disturb each other."""

    def __init__(self, reading: LocalReading) -> None:
        self._reading = reading
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._reading.entry.size}[whence]
        self._offset = base + offset
        return self._offset

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._reading.read_at(buffer, self._offset)
        self._offset += count
        return count
