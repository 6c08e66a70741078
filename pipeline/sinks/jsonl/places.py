"""Where files can be written: a folder, or a bucket that speaks S3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline.config.models import JsonLines
from pipeline.errors import UnavailableError, UsageError

UNFINISHED = ".part"
"""A file that is being written has this behind its name; nobody is to read it."""


class Place(Protocol):
    """A place for files, by names with slashes in them."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, durable before it bears its name. Raises UnavailableError."""

    def read(self, name: str) -> bytes | None:
        """A file's content, None if there is none. Raises UnavailableError."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if nothing can be written."""


def open_place(options: JsonLines, folder: Path) -> Place:
    """The place of a URL. Raises UsageError where there is none for it."""
    parts = urlsplit(options.url)
    if parts.scheme == "s3":
        try:
            from pipeline.sinks.jsonl.buckets import Bucket  # noqa: PLC0415 - loaded when it is named
        except ModuleNotFoundError as error:
            raise UsageError(f'jsonl: {options.url} needs {error.name}: pip install "labelfeed[s3]"') from error
        return Bucket(parts.netloc, parts.path.strip("/"), options.endpoint, options.timeout)
    if parts.scheme not in ("", "file"):
        raise UsageError(f"jsonl: nothing can be written to {parts.scheme}:// yet; there are folders and s3://")
    path = unquote(parts.path) if parts.scheme == "file" else options.url
    return Folder(folder / Path(path).expanduser())


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, content: bytes) -> None:
        """As `Place.write`."""
        path = self._root / name
        unfinished = path.with_name(path.name + UNFINISHED)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _sync(path.parent)
        except OSError as error:
            raise UnavailableError(f"{self._root}: {error.strerror}", code="disk") from error

    def read(self, name: str) -> bytes | None:
        """As `Place.read`."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{self._root}: {error.strerror}", code="disk") from error

    def ping(self) -> str:
        """As `Place.ping`."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"{self._root}: {error.strerror}", code="disk") from error
        if not os.access(self._root, os.W_OK):
            raise UnavailableError(f"{self._root} may not be written", code="disk")
        return f"folder {self._root}"


def _sync(folder: Path) -> None:
    """Make a name in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
