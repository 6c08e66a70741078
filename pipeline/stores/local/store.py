"""The local store itself: listings, single looks, readings."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import ObjectFailed, ObjectGone, ObjectUnsettled, UsageError
from pipeline.stores import Content, Entry, Page
from pipeline.stores.local.files import ABSENT, FORBIDDEN, LOOK, TYPE_MASK, Files
from pipeline.stores.local.folders import Folders
from pipeline.stores.local.reading import LocalReading
from pipeline.stores.local.settling import Settling
from pipeline.stores.local.walk import File, Walk
from pipeline.stores.turn import Turn

Entries = list[Entry]

WALKS_LIMIT = 8
"""Listings under way that are remembered, so that the next page need not look for its beginning."""
WALK_SECONDS = 60.0
"""A listing that is not gone on with for so long begins anew there: its names may be old by then."""


class LocalStore:
    """The files under `root`, or `root` itself if it is a file. Thread-safe. `settle` in seconds."""

    ordered = True
    jumps = True
    floor = threading.Lock()
    """All threads of a process that read many files take their turn on it, whatever the folder."""

    def __init__(self, root: str | os.PathLike[str], settle: float) -> None:
        self.files = Files(root)
        self.settle = settle
        self._settled = Settling(settle).settled
        self._walks: dict[str, tuple[float, Walk]] = {}
        self._lock = threading.Lock()

    def identity(self) -> str:
        """`file://` and the absolute path of the root."""
        return self.files.root_uri()

    def uri(self, key: str) -> str:
        """`file://` and the absolute path, percent-encoded."""
        return self.files.uri(key)

    def ping(self) -> str:
        """What the root is; raises UnavailableError if it is not there or may not be read."""
        try:
            self.files.look()
            if self.files.single:
                return f"a file of {os.stat(self.files.root).st_size} bytes"  # noqa: PTH116 - bytes
            with os.scandir(self.files.root):
                return "a folder"
        except OSError as error:
            raise self.files.root_error(error) from None

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`; raises UnavailableError if the root is not there."""
        if self.files.single:
            return self._single_page(after)
        while True:
            walk = self._take_walk(after)
            with Turn(self.floor):
                try:
                    found = walk.page(limit)
                except OSError as error:
                    raise self.files.root_error(error) from None
                entries = self._entries(found)
            if len(found) < limit:
                return Page(entries, complete=True)
            # If all of these were nothing, the page would be empty and could not say where to go on.
            after = entries[-1].key if entries else found[-1][0]
            self._keep_walk(after, walk)
            if entries:
                return Page(entries, complete=False)

    def head(self, key: str) -> Entry | None:
        """As `Store.head`; raises ObjectFailed (`permission`) where a folder does not let us look."""
        try:
            handle, status = self.files.opened(key, LOOK)
        except ObjectGone:
            return None
        except ObjectFailed as error:
            if error.code == "not_a_file":
                return None
            raise
        os.close(handle)
        return self.entry(key, status, time.time_ns())

    def open(self, key: str) -> LocalReading:
        """As `Store.open`; entering raises ObjectUnsettled while the file may still be being written."""
        return LocalReading(self, key)

    def contents(self, keys: Iterable[str]) -> Iterator[Content]:
        """As `Store.contents`."""
        folders = Folders(self.files)
        try:
            for key in keys:
                found = folders.read(key)
                if found is None:
                    yield None
                    continue
                status, content = found
                entry = self.entry(key, status, time.time_ns())
                yield (entry, content) if entry.settled else None
        finally:
            folders.close()

    def sign(self, key: str, ttl: float) -> str:
        """Raises UsageError: nobody can read a local file by a URL of ours."""
        raise UsageError(f"{self.uri(key)} is a local file: there is no URL for it that lives for {ttl:g} s")

    def close(self) -> None:
        """Forget the listings under way."""
        with self._lock:
            self._walks.clear()

    def entry(self, key: str, status: os.stat_result, now_ns: int) -> Entry:
        """What a file's status says of it at `now_ns`."""
        size = status.st_size
        version = f"{size}-{status.st_mtime_ns}-{status.st_ino}"
        return Entry(key, version, size, status.st_mtime, self._settled(key, version, status, now_ns))

    def _entries(self, found: Sequence[File]) -> Entries:
        entries: Entries = []
        now_ns = time.time_ns()
        for key, item in found:
            try:
                status = item.stat(follow_symlinks=False)
            except OSError as error:
                if error.errno in ABSENT or error.errno in FORBIDDEN:
                    continue
                raise self.files.translated(error, key) from None
            kind = status.st_mode & TYPE_MASK
            if kind == stat.S_IFREG:
                entries.append(self.entry(key, status, now_ns))
            elif kind == stat.S_IFLNK:
                entries.extend(self._linked(key))
        return entries

    def _linked(self, key: str) -> Sequence[Entry]:
        try:
            entry = self.head(key)
        except (ObjectFailed, ObjectUnsettled):
            return []
        return [entry] if entry else []

    def _single_page(self, after: str | None) -> Page:
        key = self.files.name
        entry = self.head(key) if after is None or after < key else None
        return Page([entry] if entry else [], complete=True)

    def _take_walk(self, after: str | None) -> Walk:
        """The listing that has come to `after`, or a new one from there."""
        now = time.monotonic()
        with self._lock:
            since, walk = self._walks.pop(after or "", (0.0, None))
        if walk is None or now - since > WALK_SECONDS:
            self.files.look()
            walk = Walk(self.files.real, after)
        return walk

    def _keep_walk(self, last: str, walk: Walk) -> None:
        with self._lock:
            self._walks[last] = (time.monotonic(), walk)
            if len(self._walks) > WALKS_LIMIT:
                del self._walks[next(iter(self._walks))]
