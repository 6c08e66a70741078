"""Files and folders that a person named, anywhere on this machine: what `labelfeed import` reads.

All such files are one store, whose keys are absolute paths without their first slash. So a file is the same
object whichever way it was named: alone, by a glob, or in a folder. A listing gives only what was named this
time; what was named before can still be looked at and opened, and so is not taken for deleted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import parse_qsl, quote_from_bytes

from pipeline.config import Source
from pipeline.errors import ObjectGone, UsageError
from pipeline.stores import Entry, Page, Reading
from pipeline.stores.local import LocalStore
from pipeline.stores.local.names import to_bytes, to_text

SCHEME = "import:"


def url_of(paths: Sequence[Path]) -> str:
    """The url of a source that holds these paths, which are absolute and hold no symbolic link."""
    return SCHEME + "&".join(f"path={quote_from_bytes(os.fsencode(path))}" for path in paths)


def open_store(source: Source, folder: Path) -> NamedFiles:  # noqa: ARG001 - all paths are absolute
    """The store of a source whose url `url_of` made."""
    words = parse_qsl(source.url.removeprefix(SCHEME), errors="surrogateescape")
    return NamedFiles([os.fsencode(value) for name, value in words if name == "path"], source.settle)


class _Root:
    """One file or folder that was named: where its keys begin and end among all."""

    def __init__(self, path: bytes, settle: float) -> None:
        self.store = LocalStore(os.fsdecode(path), settle)
        self.folder = os.path.isdir(path)  # noqa: PTH112 - bytes
        self.path = path.removeprefix(b"/")
        parent = self.path.rpartition(b"/")
        self.before = self.path + b"/" if self.folder and self.path else b"".join(parent[:2])
        self.first = self.before if self.folder else self.path

    def covers(self, path: bytes) -> bool:
        """Whether a path is this one or lies in it."""
        return path == self.path or (self.folder and path.startswith(self.before))

    def page(self, after: bytes | None, limit: int) -> Page | None:
        """Entries after a key, under their keys here; None if the key is behind all of them."""
        inner = None
        if after is not None and after >= self.first:
            if not self.folder or not after.startswith(self.before):
                return None
            inner = to_text(after[len(self.before) :])
        page = self.store.list(inner, limit)
        prefix = to_text(self.before)
        return Page([entry._replace(key=prefix + entry.key) for entry in page.entries], page.complete)


class NamedFiles:
    """Named files and folders as one store. Thread-safe. `settle` in seconds."""

    ordered = True

    def __init__(self, paths: Sequence[bytes], settle: float) -> None:
        self._settle = settle
        self._roots: list[_Root] = []
        for root in sorted((_Root(path, settle) for path in set(paths)), key=lambda root: root.first):
            if not self._roots or not self._roots[-1].covers(root.path):
                self._roots.append(root)

    def identity(self) -> str:
        """This machine's files."""
        return "file:///"

    def uri(self, key: str) -> str:
        """`file://` and the absolute path, percent-encoded."""
        return "file:///" + quote_from_bytes(to_bytes(key) or key.encode(errors="replace"))

    def ping(self) -> str:
        """What was named; raises UnavailableError if something of it is not there."""
        for root in self._roots:
            root.store.ping()
        return f"{len(self._roots)} files and folders"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`, of what was named."""
        entries: list[Entry] = []
        start = None if after is None else to_bytes(after) or after.encode()
        for root in self._roots:
            while (page := root.page(start, limit - len(entries))) is not None:
                entries.extend(page.entries)
                if len(entries) >= limit:
                    return Page(entries, complete=False)
                if page.complete:
                    break
                start = to_bytes(entries[-1].key)
        return Page(entries, complete=True)

    def head(self, key: str) -> Entry | None:
        """As `Store.head`, of any file of this machine."""
        try:
            store, inner = self._found(key)
        except ObjectGone:
            return None
        entry = store.head(inner)
        return None if entry is None else entry._replace(key=key)

    def open(self, key: str) -> AbstractContextManager[Reading]:
        """As `Store.open`, of any file of this machine."""
        store, inner = self._found(key)
        return store.open(inner)

    def named(self, key: str) -> bool:
        """Whether a file was named this time, itself or by a folder that it is in."""
        path = to_bytes(key)
        return path is not None and any(root.covers(path) for root in self._roots)

    def _found(self, key: str) -> tuple[LocalStore, str]:
        """The store of a file and its key there; what was not named this time is a store of its own."""
        path = to_bytes(key)
        if path is None:
            raise ObjectGone(f"{key!r} is no name of a file")
        for root in self._roots:
            if root.covers(path):
                return root.store, to_text(path.removeprefix(root.before))
        if not os.path.lexists(b"/" + path):
            raise ObjectGone(f"there is no {self.uri(key)}")
        return LocalStore(os.fsdecode(b"/" + path), self._settle), to_text(path.rpartition(b"/")[2])

    def sign(self, key: str, ttl: float) -> str:
        """Raises UsageError, as for all local files."""
        raise UsageError(f"local files cannot be signed ({self.uri(key)}, for {ttl:g} s)")

    def close(self) -> None:
        """Close what was named."""
        for root in self._roots:
            root.store.close()
