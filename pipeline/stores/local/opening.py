"""A source's `url` as a local store: a path (relative to the configuration's folder), or file:///path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config import Source
from pipeline.errors import UsageError
from pipeline.stores.local.store import LocalStore


def open_source(source: Source, folder: Path) -> LocalStore:
    """The store of a source whose url is a path or begins with file:. Raises UsageError if it names another machine."""
    return LocalStore(folder / Path(local_path(source.url)).expanduser(), source.settle)


def local_path(url: str) -> str:
    """The path that a url means; a path is one already."""
    if not url.lower().startswith("file:"):
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url!r} names another machine; write file:///path")
    return unquote(parts.path)
