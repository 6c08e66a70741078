"""The files under one root, opened so that no link leads out of it.

What is opened is checked by the path that the kernel gives for it (`/proc/self/fd`): whoever exchanges a
file or a folder for a link, at whatever moment, gets nothing read that is not in the root.
"""

# Paths are bytes here, which pathlib does not take.
# ruff: noqa: PTH100, PTH113, PTH115, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import errno
import os
import re
import stat
from urllib.parse import quote

from pipeline.errors import LabelfeedError, ObjectFailed, ObjectGone, ObjectUnsettled, UnavailableError
from pipeline.stores.local.names import left_out, to_bytes, to_text

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is opened: to be read, or for its status alone, which needs no permission to read it."""
TYPE_MASK = 0o170000

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_NO_FILE = frozenset({errno.EISDIR, errno.ENXIO, errno.ENODEV})

_EXCHANGED = frozenset({errno.EINVAL, errno.ELOOP})
"""A link was exchanged for something else between two looks."""
_PERMISSION_HINT = "let the user that runs labelfeed read it and enter its folders"

_PLAIN = re.compile(r"[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]*")
"""Keys that stand in a URI as they are."""

Opened = tuple[int, os.stat_result]
"""A handle, which its taker closes, and the status of what it is open on."""


class Files:
    """A folder and the files in it by their keys, or one file, whose name is its key. Thread-safe.

    `single` says that it is a file, `real` is its path without links.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fsencode(os.path.abspath(root))
        self._uri = "file://" + quote(os.path.join(self.root, b""))
        self.look()

    def look(self) -> None:
        """Note anew whether the root is a file, and where links on the way to it lead."""
        self.single = os.path.isfile(self.root)
        self.real = os.path.realpath(self.root)
        self._base = os.path.join(self.real, b"")

    @property
    def name(self) -> str:
        """The root's own name as a key."""
        return to_text(os.path.basename(self.root))

    def uri(self, key: str) -> str:
        """`file://` and the absolute path, percent-encoded."""
        if self.single:
            return self.root_uri()
        if _PLAIN.fullmatch(key):
            return self._uri + key
        return "file://" + quote(os.path.join(self.root, to_bytes(key) or key.encode(errors="replace")))

    def root_uri(self) -> str:
        """The root as `uri` writes a file."""
        return "file://" + quote(self.root)

    def key_of(self, path: str) -> str | None:
        """The key of a path under the root, whether or not a file is there; None if it is none of ours."""
        raw = os.fsencode(path)
        if self.single:
            return self.name if raw == self.root else None
        prefix = os.path.join(self.root, b"")
        if not raw.startswith(prefix):
            return None
        key = to_text(raw[len(prefix) :])
        return None if any(map(left_out, key.split("/"))) else key

    def is_folder(self, key: str) -> bool:
        """Whether the key names a folder (no link to one)."""
        try:
            return stat.S_ISDIR(os.lstat(self.place(key)).st_mode)
        except (OSError, ObjectGone):
            return False

    def opened(self, key: str, flags: int) -> Opened:
        """Open the regular file that the key stands for.

        Raises:
            ObjectGone: there is none.
            ObjectFailed: `permission` or `not_a_file`.
            ObjectUnsettled: it was moved at this moment.
            UnavailableError: the disk does not answer, or the whole root is not there.
        """
        place = self.place(key)
        try:
            return _opened_at(place, flags) or self._behind_link(key, place, flags)
        except OSError as error:
            raise self.translated(error, key) from None

    def place(self, key: str) -> bytes:
        """The path at which the key's file must really be. Raises ObjectGone where it is no key of ours."""
        if self.single:
            if key != self.name:
                raise ObjectGone(f"{self.root_uri()} is a single file, and not {key!r}")
            return self.real
        for name in key.split("/"):
            if left_out(name):
                raise ObjectGone(f"{key!r} is a name that is left out")
        path = to_bytes(key)
        if path is None:
            raise ObjectGone(f"{key!r} is no name of a file")
        return self._base + path

    def _behind_link(self, key: str, place: bytes, flags: int) -> Opened:
        """The file that a symbolic link at `place` leads to, if it is inside the root."""
        folder = os.path.dirname(place)
        if os.path.realpath(folder) != folder:
            raise ObjectGone(f"{self.uri(key)} is behind a link to a folder")
        mode = os.lstat(place).st_mode
        if stat.S_ISREG(mode):
            raise self._moved(key)
        if not stat.S_ISLNK(mode):
            raise self._no_file(key)
        target = os.path.realpath(place)
        if not target.startswith(self._base):
            raise ObjectGone(f"{self.uri(key)} is a link that leads out of the source")
        opened = _opened_at(target, flags)
        if opened is None:
            raise ObjectGone(f"{self.uri(key)} is a link to no regular file")
        return opened

    # --- errors --------------------------------------------------------------------------------------------

    def translated(self, error: OSError, key: str) -> LabelfeedError:
        """What an error of the system about this object means to us."""
        if error.errno in ABSENT:
            return self._absent(key)
        if error.errno in FORBIDDEN:
            if not self.single and not os.access(self.root, os.X_OK):
                return self.root_error(error)
            message = f"{self.uri(key)} may not be read: {error.strerror}"
            return ObjectFailed("permission", message, hint=_PERMISSION_HINT)
        if error.errno in _NO_FILE:
            return self._no_file(key)
        if error.errno in _EXCHANGED:
            return self._moved(key)
        return UnavailableError(f"{self.uri(key)} cannot be read now: {error.strerror}")

    def root_error(self, error: OSError) -> UnavailableError:
        """The error of a root that cannot be read, which says nothing of its files."""
        code = "permission" if error.errno in FORBIDDEN else "unavailable"
        return UnavailableError(f"{self.root_uri()} cannot be read: {error.strerror}", code=code)

    def _moved(self, key: str) -> ObjectUnsettled:
        return ObjectUnsettled(f"{self.uri(key)} was moved while it was opened")

    def _no_file(self, key: str) -> ObjectFailed:
        return ObjectFailed("not_a_file", f"{self.uri(key)} is no regular file", hint="only regular files are read")

    def _absent(self, key: str) -> LabelfeedError:
        """The object is gone; but if the whole root is, nothing is known of the object."""
        was = (self.single, self.real)
        try:
            self.look()
            os.stat(self.root)
        except OSError as error:
            return self.root_error(error)
        if was != (self.single, self.real):
            return UnavailableError(f"{self.root_uri()} has become another place", retry_after=0.0)
        return ObjectGone(f"{self.uri(key)} does not exist")


def _opened_at(place: bytes, flags: int) -> Opened | None:
    """Open the regular file at `place`; None if something else is there, or a link led to it."""
    try:
        handle = os.open(place, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        status = os.fstat(handle)
        if status.st_mode & TYPE_MASK == stat.S_IFREG and os.readlink(b"/proc/self/fd/%d" % handle) == place:
            return handle, status
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
