"""Azure Blob Storage: a container, or a prefix in one, as a store.

**Keys** are relative to the URL's prefix, which is a folder: `az://container/inbox` covers `inbox/…`, not `inbox2`.
**Version**: the ETag, without quotes.
**Left out**: folders' marks, which are keys that end with a slash, and empty blobs with `hdi_isfolder` metadata.
"""

from pathlib import Path

from pipeline.config import Source
from pipeline.stores.azure.options import parse
from pipeline.stores.azure.store import AzureStore

__all__ = ["AzureStore", "open_store"]


def open_store(source: Source, folder: Path) -> AzureStore:
    """The store of a source whose `url` is az://container/prefix, or https:// of the container's own address.

    Raises UsageError where its words can't be followed.
    """
    del folder
    return AzureStore(parse(source.url, source.account, source.endpoint))
