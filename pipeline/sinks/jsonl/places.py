"""Where files can be written: a folder, a bucket of S3 or Google Cloud Storage, a container of Azure Blob."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline.config.projects import JsonLines
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

    def close(self) -> None:
        """Let go of connections."""


def open_place(options: JsonLines, folder: Path) -> Place:
    """The place of a URL. Raises UsageError where there is none for it."""
    scheme = urlsplit(options.url).scheme
    if scheme in _CLOUDS:
        extra, opened = _CLOUDS[scheme]
        try:
            return opened(options)
        except ModuleNotFoundError as error:
            raise UsageError(f'jsonl: {options.url} needs {error.name}: pip install "labelfeed[{extra}]"') from error
    if scheme not in ("", "file"):
        known = ", ".join(f"{name}://" for name in _CLOUDS)
        raise UsageError(f"jsonl: nothing can be written to {scheme}:// yet; there are folders, {known}")
    path = unquote(urlsplit(options.url).path) if scheme == "file" else options.url
    return Folder(folder / Path(path).expanduser())


def _s3(options: JsonLines) -> Place:
    from pipeline.sinks.jsonl.buckets import Bucket  # noqa: PLC0415 - loaded when it is named

    parts = urlsplit(options.url)
    return Bucket(parts.netloc, parts.path.strip("/"), options.endpoint, options.timeout)


def _google(options: JsonLines) -> Place:
    from pipeline.sinks.jsonl.google import GoogleBucket  # noqa: PLC0415 - loaded when it is named

    return GoogleBucket(*_named(options), options.endpoint, options.timeout)


def _azure(options: JsonLines) -> Place:
    from pipeline.sinks.jsonl.azure import Container  # noqa: PLC0415 - loaded when it is named

    return Container(*_named(options), options.endpoint, options.timeout)


_CLOUDS: Mapping[str, tuple[str, Callable[[JsonLines], Place]]] = {
    "s3": ("s3", _s3),
    "gs": ("gcs", _google),
    "az": ("azure", _azure),
}
"""A URL's scheme → the extra that its library is installed with, and what opens the place."""


def _named(options: JsonLines) -> tuple[str, str]:
    """The bucket or container and the prefix of a URL."""
    parts = urlsplit(options.url, allow_fragments=False)
    if not parts.netloc:
        raise UsageError(f"jsonl: {options.url}: it names no bucket or container")
    return parts.netloc, unquote(parts.path).strip("/")


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

    def close(self) -> None:
        """As `Place.close`: there are none."""


def _sync(folder: Path) -> None:
    """Make a name in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
