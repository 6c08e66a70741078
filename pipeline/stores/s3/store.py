"""`S3Store`: obstore for plain listing and bytes, boto3 for what obstore doesn't do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from pipeline.errors import ObjectFailed, ObjectGone, UnavailableError, UsageError
from pipeline.notifications import version_name
from pipeline.stores import Entry, Page
from pipeline.stores.paths import nameable
from pipeline.stores.ranged import RangedReading
from pipeline.stores.s3.access import Full, Meta, Plain, session
from pipeline.stores.s3.failures import LISTS, converted
from pipeline.stores.s3.listing import Listings
from pipeline.stores.s3.options import S3Options

PAGE_LIMIT = 1000
"""S3 gives no more keys in one answer."""
AHEAD_THREADS = 8
"""Ranges of large objects that are fetched at once, over all objects."""


class S3Store:
    """`pipeline.stores.Store` over a bucket. `concurrency` is how many requests the importer may have under way."""

    def __init__(self, options: S3Options) -> None:
        credentials = session(options)
        self._options = options
        self._folder = options.folder
        self._plain = Plain(options, credentials)
        self._full = Full(options, credentials)
        self._ahead = ThreadPoolExecutor(AHEAD_THREADS, thread_name_prefix="s3-ahead")
        self._versioned = options.versions
        self.concurrency = options.concurrency
        self._listings = Listings(options, self._plain, self._full, self._entry, lambda: self.versioned)

    @property
    def ordered(self) -> bool:
        """As `Store.ordered`; the server is asked once."""
        with self._listing():
            return self._listings.ordered

    @property
    def jumps(self) -> bool:
        """Whether a listing may begin after any key, such as before a prefix; the server is asked once."""
        with self._listing():
            return self._listings.jumps

    @property
    def versioned(self) -> bool:
        """Whether the bucket names contents by version ids. Asked until it has answered once."""
        # No cached_property: before Python 3.12 all stores wait there for one whose bucket does not answer.
        if self._versioned is None:
            with converted(self._options.canonical):
                self._versioned = self._full.versioned()
        return self._versioned

    def identity(self) -> str:
        """As `Store.identity`."""
        endpoint = (self._options.endpoint or "aws").rstrip("/")
        return f"s3 {endpoint} {self._options.bucket} {self._folder}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"s3://{self._options.bucket}/{self._folder}{key}"

    def concerns(self, bucket: str, key: str) -> str | None:
        """The key of ours that a whole key of a bucket is, or None if it is none of ours."""
        if bucket != self._options.bucket or not key.startswith(self._folder) or key.endswith("/"):
            return None
        return key[len(self._folder) :] or None

    def ping(self) -> str:
        """As `Store.ping`."""
        page = self.list(None, 1)
        what = "with versioning" if self.versioned else "without versioning"
        return f"bucket {self._options.bucket} {what}, {'not empty' if page.entries else 'empty'}"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`. A page is short where keys were left out, and never empty unless it is the last."""
        with self._listing():
            return self._listings.page(after, min(limit, PAGE_LIMIT))

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            with converted(self._options.canonical):
                yield
        except ObjectFailed as error:
            # It denies us a list, not an object: that ends when a person mends the bucket's policy.
            raise UnavailableError(f"{error.message}; {LISTS}", code=error.code) from None

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        whole = self._folder + key
        try:
            with self._asking(key):
                way = self._way(whole)
                # Only the answer to a GET has a body, which says what it is that is missing.
                return self._entry(way.head(whole) or way.first(whole)[0])
        except ObjectGone:
            return None

    def open(self, key: str) -> RangedReading:
        """As `Store.open`: one request for a small object; a large one is read in conditional ranges."""
        whole = self._folder + key
        with self._asking(key):
            meta, content = self._way(whole).first(whole)
            entry = self._entry(meta)
        part = partial(self._part, key, meta.etag or "*")
        return RangedReading(entry, content, part, self._ahead)

    def _part(self, key: str, etag: str, start: int, end: int) -> bytes:
        whole = self._folder + key
        with self._asking(key):
            return self._way(whole).part(whole, etag, start, end)

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        try:
            with converted(self.uri(key)):
                yield
        except UsageError as error:
            # The whole bucket is away: no fault of this object, which waits until a person has seen to it.
            raise UnavailableError(str(error)) from None

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`."""
        with converted(self.uri(key)):
            return self._full.sign(self._folder + key, ttl)

    def close(self) -> None:
        """As `Store.close`."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._full.close()

    def _way(self, whole: str) -> Plain | Full:
        return self._plain if nameable(whole) else self._full

    def _entry(self, meta: Meta) -> Entry:
        version = version_name(meta.etag, meta.version_id if self.versioned else None)
        # Listings say milliseconds in some stores, answers to GET and HEAD whole seconds in all.
        return Entry(meta.key[len(self._folder) :], version or "", meta.size, float(int(meta.modified.timestamp())))
