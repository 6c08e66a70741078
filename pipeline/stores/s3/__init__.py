"""S3 and whatever speaks like it: a bucket, or a prefix in one, as a store.

**Keys** are relative to the URL's prefix, which is a folder: `s3://bucket/inbox` covers `inbox/…`, not `inbox2`.
**Version**: the version id where the bucket has versioning, else the ETag, without quotes.
**Left out**: keys that end with a slash, which consoles make to show folders.
"""

from pathlib import Path

from pipeline.config import Source
from pipeline.stores.s3.options import parse
from pipeline.stores.s3.store import S3Store

__all__ = ["S3Store", "open_store"]


def open_store(source: Source, folder: Path) -> S3Store:
    """The store of a source whose `url` is s3://bucket/prefix. Raises UsageError where its words can't be followed."""
    del folder
    return S3Store(parse(source.url, source.endpoint))
