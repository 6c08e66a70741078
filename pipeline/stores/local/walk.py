"""The files of a folder tree in byte order of their keys, in bounded memory, a page at a time.

Each folder is scanned once and its names are sorted, a folder's name with the `/` that its files' keys
have after it: so the order of names is the order of keys, whatever stands beside a folder (`a-b`, `a/x`,
`a0`). A folder with more names than fit is scanned again for the next smallest ones.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

from pipeline import logs
from pipeline.stores.local.names import UNFINISHED, to_text

NAMES_LIMIT = 50_000
"""Names of one folder that are taken in one scan; at most twice as many are in memory."""

File = tuple[str, "os.DirEntry[bytes]"]
"""A file's key, and what its folder says of it. It may be a symbolic link, or no regular file at all."""

_log = logging.getLogger(__name__)


class _Level(NamedTuple):
    """One open folder: its names that are left, and where to go on in the one that `resumed` names."""

    prefix: str
    names: Iterator[File]
    resumed: str
    rest: str


class Walk:
    """One walk through the tree under `folder`, from the first key after `after`. Used by one thread at a time.

    Hidden and unfinished names are left out; folders behind symbolic links are not entered.
    """

    def __init__(self, folder: bytes, after: str | None) -> None:
        self._levels = [_level(folder, "", after or "")]

    def page(self, limit: int) -> list[File]:
        """The next files; fewer than `limit` only at the end. Raises OSError if the root cannot be read."""
        found: list[File] = []
        levels = self._levels
        while levels and len(found) < limit:
            level = levels[-1]
            prefix = level.prefix
            for name, item in level.names:
                if name[-1] == "/":
                    rest = level.rest if name == level.resumed else ""
                    levels.append(_level(item.path, prefix + name, rest))
                    break
                found.append((prefix + name, item))
                if len(found) == limit:
                    break
            else:
                levels.pop()
        return found


def _level(folder: bytes, prefix: str, after: str) -> _Level:
    head, inside, rest = after.partition("/")
    # Nothing sorts between a name and the same name with a NUL after it.
    first = head + "/" if inside else head + "\x00"
    names = _names(folder, first)
    return _Level(prefix, _readable(names, folder) if prefix else names, first, rest)


def _readable(names: Iterator[File], folder: bytes) -> Iterator[File]:
    """The names of a folder below the root, none of one that cannot be read: its neighbours can be."""
    try:
        yield from names
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
            raise
        _log.warning(logs.FOLDER_UNREADABLE, extra={"folder": to_text(folder), "error": error.strerror})


def _names(folder: bytes, first: str) -> Iterator[File]:
    """Names from `first` on, in order."""
    while True:
        found, bound = _scan(folder, first)
        for name in sorted(found):
            yield name, found[name]
        if bound is None:
            return
        first = bound + "\x00"


def _scan(folder: bytes, first: str) -> tuple[dict[str, os.DirEntry[bytes]], str | None]:
    """The smallest names from `first` on; the second value is the last of them if others follow it."""
    found: dict[str, os.DirEntry[bytes]] = {}
    bound: str | None = None
    with os.scandir(folder) as items:
        for item in items:
            name = to_text(item.name)
            if name[0] == "." or name.endswith(UNFINISHED):
                continue
            if item.is_dir(follow_symlinks=False):
                name += "/"
            if name < first or (bound is not None and name > bound):
                continue
            found[name] = item
            if len(found) > 2 * NAMES_LIMIT:
                kept = sorted(found)[:NAMES_LIMIT]
                found = {name: found[name] for name in kept}
                bound = kept[-1]
    return found, bound
