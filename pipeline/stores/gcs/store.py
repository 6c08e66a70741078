"""`GcsStore`: obstore for bytes, google-cloud-storage for what obstore doesn't do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from google.auth.exceptions import TransportError

from pipeline.errors import ObjectFailed, ObjectGone, UnavailableError, UsageError
from pipeline.stores import Entry, Page
from pipeline.stores.gcs.access import Full, Meta, Plain
from pipeline.stores.gcs.credentials import credentials
from pipeline.stores.gcs.errors import converted
from pipeline.stores.gcs.options import GcsOptions
from pipeline.stores.paths import nameable
from pipeline.stores.ranged import RangedReading

PAGE_LIMIT = 1000
"""Google gives no more keys in one answer."""
AHEAD_THREADS = 8
"""Ranges of large objects that are fetched at once, over all objects."""
SIGNED_SECONDS = 7 * 86400
"""No signed URL lives longer."""
SCHEME = "gs://"
"""Notifications name a bucket with it, so that one of the same name in another cloud is not meant."""


class GcsStore:
    """`pipeline.stores.Store` over a bucket. `concurrency` is how many requests the importer may have under way."""

    ordered = True

    def __init__(self, options: GcsOptions) -> None:
        self.options = options
        self.credentials = credentials(options)
        self._folder = options.folder
        self._plain = Plain(options, self.credentials)
        self._full = Full(options, self.credentials)
        self._ahead = ThreadPoolExecutor(AHEAD_THREADS, thread_name_prefix="gcs-ahead")
        self.concurrency = options.concurrency

    def identity(self) -> str:
        """As `Store.identity`."""
        endpoint = (self.options.endpoint or "google").rstrip("/")
        return f"gcs {endpoint} {self.options.bucket} {self._folder}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"{SCHEME}{self.options.bucket}/{self._folder}{key}"

    def concerns(self, bucket: str, key: str) -> str | None:
        """The key of ours that a whole key of a bucket (`gs://name`) is, or None if it is none of ours."""
        if bucket != SCHEME + self.options.bucket or not key.startswith(self._folder) or key.endswith("/"):
            return None
        return key[len(self._folder) :] or None

    def ping(self) -> str:
        """As `Store.ping`."""
        page = self.list(None, 1)
        return f"bucket {self.options.bucket}, {'not empty' if page.entries else 'empty'}"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`. A page is short where keys were left out, and never empty unless it is the last."""
        start = None if after is None else self._folder + after
        asked = min(limit + 1, PAGE_LIMIT)
        while True:
            with self._listing():
                found, last = self._full.page(self._folder, start, asked)
            # A listing starts with the key that it is told, not behind it; and text sorts as its UTF-8 does.
            fresh = [meta for meta in found if start is None or meta.key > start]
            entries = [self._entry(meta) for meta in fresh if not meta.key.endswith("/")]
            if entries or last:
                return Page(entries[:limit], complete=last and len(entries) <= limit)
            if not fresh:
                raise UnavailableError(f"{self.options.canonical}: the listing stands still")
            start = fresh[-1].key

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            with converted(self.options.canonical):
                yield
        except ObjectGone:
            raise UsageError(f"{self.options.canonical}: there is no bucket of this name") from None
        except ObjectFailed as error:
            # It denies us a list, not an object: that ends when a person mends the bucket's policy.
            message = f"{error.message}; {error.hint}" if error.hint else error.message
            raise UnavailableError(message, code=error.code) from None

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        whole = self._folder + key
        try:
            with converted(self.uri(key)):
                # Only the other client's answer has a body, which says what it is that is missing.
                return self._entry(self._way(whole).head(whole) or self._full.head(whole))
        except ObjectGone:
            return None

    def open(self, key: str) -> RangedReading:
        """As `Store.open`: one request for a small object; a large one in ranges on condition of its generation."""
        whole = self._folder + key
        with converted(self.uri(key)):
            meta, content = self._way(whole).first(whole)
        part = partial(self._part, key, meta.generation)
        return RangedReading(self._entry(meta), content, part, self._ahead)

    def _part(self, key: str, generation: str, start: int, end: int) -> bytes:
        with converted(self.uri(key)):
            return self._full.part(self._folder + key, generation, start, end)

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`. Raises UsageError for more than seven days, too."""
        if ttl > SIGNED_SECONDS:
            raise UsageError(f"{self.uri(key)}: a signed URL of Google lives for seven days at most; shorten ttl")
        with converted(self.uri(key)):
            try:
                return self._full.sign(self._folder + key, ttl)
            except TransportError:
                raise UnavailableError(
                    f"{self.uri(key)}: IAM does not sign for us; grant roles/iam.serviceAccountTokenCreator",
                    code="permission",
                ) from None

    def close(self) -> None:
        """As `Store.close`."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._full.close()

    def _way(self, whole: str) -> Plain | Full:
        return self._plain if nameable(whole) else self._full

    def _entry(self, meta: Meta) -> Entry:
        # Answers to GET and HEAD say whole seconds, listings microseconds.
        return Entry(meta.key[len(self._folder) :], meta.generation, meta.size, float(int(meta.modified.timestamp())))
