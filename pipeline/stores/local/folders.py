"""Folders that are kept open while many small files in them are read, one after another.

A folder is opened by its real path and checked by the kernel's word for where that led, as `files` does with each
file; a file in it is opened by its name alone, and no link is followed. So nothing outside the root is read, and the
way to a folder is walked and checked once for all its files. What is not as simple as that is left to `Files`.
"""

# Paths are bytes here, which pathlib does not take.
# ruff: noqa: PTH115

from __future__ import annotations

import os
import stat

from pipeline.errors import ObjectGone
from pipeline.stores import SMALL_BYTES
from pipeline.stores.local.files import READ, TYPE_MASK, Files
from pipeline.stores.local.names import left_out, to_bytes

FOLDERS_LIMIT = 32
"""Folders that are open at a time."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NONE = -1


class Folders:
    """Reads small files. Used by one thread, and for less than a lease: in a folder that is moved meanwhile files are
    still found, as they were when it was opened."""

    __slots__ = ("_files", "_handles")

    def __init__(self, files: Files) -> None:
        self._files = files
        self._handles: dict[str, int] = {}

    def read(self, key: str) -> tuple[os.stat_result, bytes] | None:
        """The status and all bytes of a small regular file that did not change while it was read; None for all else."""
        folder, _, name = key.rpartition("/")
        handle = self._handles.get(folder)
        if handle is None:
            handle = self._enter(folder)
        raw = to_bytes(name)
        if handle < 0 or raw is None or left_out(name):
            return None
        try:
            file = os.open(raw, READ, dir_fd=handle)
        except OSError:
            return None
        try:
            return _read(file)
        except OSError:
            return None
        finally:
            os.close(file)

    def close(self) -> None:
        """Let go of the folders."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            if handle >= 0:
                os.close(handle)

    def _enter(self, folder: str) -> int:
        """A handle on a folder inside the root; negative where its files are to be opened in the other way."""
        if len(self._handles) >= FOLDERS_LIMIT:
            self.close()
        self._handles[folder] = handle = self._opened(folder)
        return handle

    def _opened(self, folder: str) -> int:
        if self._files.single:
            return _NONE
        try:
            place = self._files.place(folder) if folder else self._files.real
            handle = os.open(place, _FOLDER)
        except (OSError, ObjectGone):
            return _NONE
        try:
            if os.readlink(b"/proc/self/fd/%d" % handle) == place:
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        return _NONE


def _read(file: int) -> tuple[os.stat_result, bytes] | None:
    status = os.fstat(file)
    size = status.st_size
    if size > SMALL_BYTES or status.st_mode & TYPE_MASK != stat.S_IFREG:
        return None
    content = os.read(file, size + 1)
    after = os.fstat(file)
    same = after.st_mtime_ns == status.st_mtime_ns and after.st_size == len(content) == size
    return (status, content) if same else None
