"""Local files as a store: a folder, or a single file.

**Version**: `size-mtime_ns-inode`. **Settled**: see `settling`. **Keys** of names that are not UTF-8: see `names`.

**Left out**: names that begin with a dot, those that end as in `names.UNFINISHED`, all in folders of such
names, and whatever is no regular file. **Symbolic links** to a file inside the root are that file under
another key; those to a folder, or to anything outside, are nothing. See `files`.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config import Source
from pipeline.stores.local.store import LocalStore

__all__ = ["LocalStore", "open_store"]


def open_store(source: Source, folder: Path) -> LocalStore:
    """The store of a source whose `url` is a path (relative to `folder`) or a file:// URL."""
    path = unquote(urlsplit(source.url).path) if source.url.startswith("file:") else source.url
    return LocalStore(folder / Path(path).expanduser(), source.settle)
