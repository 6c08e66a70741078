"""Google Cloud Storage: a bucket, or a prefix in one, as a store.

**Keys** are relative to the URL's prefix, which is a folder: `gs://bucket/inbox` covers `inbox/…`, not `inbox2`.
**Version**: the generation. Ranges of one object are read on the condition that it still has the generation.
**Left out**: keys that end with a slash, which consoles make to show folders.
**Read as stored**: an object with `Content-Encoding: gzip` is not unpacked by its store; its key's `.gz` says so.
"""

from pathlib import Path

from pipeline.config import Source
from pipeline.stores.gcs.options import parse
from pipeline.stores.gcs.store import GcsStore

__all__ = ["GcsStore", "open_store"]


def open_store(source: Source, folder: Path) -> GcsStore:
    """The store of a source whose `url` is gs://bucket/prefix. Raises UsageError where its words can't be followed."""
    return GcsStore(parse(source.url, source.endpoint, folder))
