"""`AzureStore`: obstore for plain listing and bytes, Azure's own client for what obstore doesn't do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

from pipeline.errors import ObjectFailed, ObjectGone, UnavailableError, UsageError
from pipeline.notifications import version_name
from pipeline.stores import Entry, Page
from pipeline.stores.azure.access import Full, Meta, Plain
from pipeline.stores.azure.credentials import Credentials
from pipeline.stores.azure.failures import converted
from pipeline.stores.azure.listing import Listings
from pipeline.stores.azure.options import AzureOptions
from pipeline.stores.paths import dotted, nameable
from pipeline.stores.ranged import RangedReading

PAGE_LIMIT = 5000
"""Azure gives no more blobs in one answer."""
AHEAD_THREADS = 8
"""Ranges of large blobs that are fetched at once, over all blobs."""


class AzureStore:
    """`pipeline.stores.Store` over a container. `concurrency` is how many requests the importer may have under way."""

    def __init__(self, options: AzureOptions) -> None:
        self.credentials = Credentials(options)
        self.options = options
        self._folder = options.folder
        self._plain = Plain(options, self.credentials)
        self._full = Full(options, self.credentials)
        self._ahead = ThreadPoolExecutor(AHEAD_THREADS, thread_name_prefix="azure-ahead")
        self.concurrency = options.concurrency
        self._listings = Listings(options, self._plain, self._full, self._entry)

    @property
    def ordered(self) -> bool:
        """As `Store.ordered`; the account is asked once whether it has folders."""
        return self._listings.ordered

    def identity(self) -> str:
        """As `Store.identity`."""
        return f"azure {self.options.endpoint} {self.options.container} {self._folder}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"{self.options.canonical}{key}"

    def concerns(self, bucket: str, key: str) -> str | None:
        """The key of ours that a whole key of an `account/container` is, or None if it is none of ours."""
        if bucket != self.options.bucket or not key.startswith(self._folder) or key.endswith("/"):
            return None
        return key[len(self._folder) :] or None

    def ping(self) -> str:
        """As `Store.ping`."""
        page = self.list(None, 1)
        what = "not empty" if page.entries else "empty"
        return f"container {self.options.container} of account {self.options.account}, {what}"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`. A page is short where keys were left out, and never empty unless it is the last."""
        try:
            with converted(self.options.canonical):
                return self._listings.page(after, min(limit, PAGE_LIMIT))
        except ObjectFailed as error:
            # It denies us a list, not an object: that ends when a person mends the roles.
            raise UnavailableError(f"{error.message} ({error.hint})", code=error.code) from None

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        whole = self._folder + key
        if dotted(key):
            return None
        try:
            # An answer to HEAD has no body that says why it is refused, and obstore doesn't show its headers.
            with suppress(ObjectFailed), self._asking(key):
                found = self._way(whole).head(whole)
                if found is not None:
                    return self._entry(found)
            with self._asking(key):
                return self._entry(self._full.head(whole))
        except ObjectGone:
            return None

    def open(self, key: str) -> RangedReading:
        """As `Store.open`: one request for a small blob; a large one is read in conditional ranges."""
        whole = self._folder + key
        with self._asking(key):
            meta, content = self._way(whole).first(whole)
        part = partial(self._part, key, meta.etag or "*")
        return RangedReading(self._entry(meta), content, part, self._ahead)

    def _part(self, key: str, etag: str, start: int, end: int) -> bytes:
        whole = self._folder + key
        with self._asking(key):
            return self._way(whole).part(whole, etag, start, end)

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        self._refuse(key)
        try:
            with converted(self.uri(key)):
                yield
        except UsageError as error:
            # The whole container is away: no fault of this object, which waits until a person has seen to it.
            raise UnavailableError(str(error)) from None

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`."""
        self._refuse(key)
        with converted(self.uri(key)):
            return self._full.sign(self._folder + key, ttl)

    def _refuse(self, key: str) -> None:
        """Azure's client takes `.` and `..` in a path for folders: it would ask for another blob, or container."""
        if dotted(key):
            raise ObjectFailed(
                "permission", f"{self.uri(key)}: Azure's client cannot ask for a name with . or .. in it",
                hint="copy it to another name",
            )  # fmt: skip

    def close(self) -> None:
        """As `Store.close`."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._full.close()
        self.credentials.close()

    def _way(self, whole: str) -> Plain | Full:
        return self._plain if nameable(whole) else self._full

    def _entry(self, meta: Meta) -> Entry:
        # Answers to GET and HEAD say whole seconds, listings of some servers more.
        seconds = float(int(meta.modified.timestamp()))
        return Entry(meta.key[len(self._folder) :], version_name(meta.etag, None) or "", meta.size, seconds)
