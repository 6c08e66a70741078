"""Two ways to a bucket: `Plain` by obstore, which is quick, and `Full` by google-cloud-storage, which lists with
generations, reads on the condition of one, names every key, and signs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
from google.auth.credentials import Credentials, Signing
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.exceptions import UnauthenticatedError
from obstore.store import GCSStore as ObstoreGCS
from requests.adapters import HTTPAdapter

from pipeline.stores import READING_THREADS_LIMIT, SMALL_BYTES
from pipeline.stores.gcs.credentials import Tokens, signer
from pipeline.stores.gcs.options import GcsOptions

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CONNECT_SECONDS = 5
REQUEST_SECONDS = 60
RETRY_SECONDS = 20
"""How long both libraries try again by themselves, after a 429 or a 503 for example, before the caller hears of it."""
ATTEMPTS = 4

RETRY = DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0).with_timeout(RETRY_SECONDS)

_TIMEOUT = (CONNECT_SECONDS, REQUEST_SECONDS)
_FIELDS = "items(name,generation,size,timeCreated),nextPageToken"


class Meta(NamedTuple):
    """What Google says of one object; `key` is whole."""

    key: str
    generation: str
    size: int
    modified: datetime


class Plain:
    """The bytes of objects, and a look at one, by obstore. Thread-safe."""

    def __init__(self, options: GcsOptions, credentials: Credentials) -> None:
        self._options = options
        self._tokens = None if options.unsigned else Tokens(credentials)
        self._store = self._opened()

    def _opened(self) -> ObstoreGCS:
        options = self._options
        # Without the header Google unpacks what is stored with `Content-Encoding: gzip`, and sends no length then.
        headers = {"accept-encoding": "gzip"}
        if options.user_project is not None:
            headers["x-goog-user-project"] = options.user_project
        client: ClientConfig = {
            "allow_http": (options.endpoint or "").startswith("http:"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "default_headers": headers,
        }
        settings: dict[str, Any] = {"skip_signature": True} if self._tokens is None else {}
        if self._tokens is not None:
            settings["credential_provider"] = self._tokens
        if options.endpoint is not None:
            settings["base_url"] = options.endpoint.rstrip("/")
        return ObstoreGCS(
            options.bucket,
            client_options=client,
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            **settings,
        )

    def head(self, key: str) -> Meta | None:
        """What is there now; None for a 404, which does not say whether it is the object or the bucket."""
        try:
            return _meta(self._asked(lambda store: obstore.head(store, key)))
        except FileNotFoundError:
            return None

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        result = self._asked(lambda store: obstore.get(store, key))
        meta = _meta(result.meta)
        return meta, bytes(result.bytes()) if meta.size <= SMALL_BYTES else None

    def _asked(self, ask: Any) -> Any:
        """An answer. A token that is refused before its end is thrown away, as obstore would keep it till then."""
        if self._tokens is None:
            return ask(self._store)
        self._tokens.renew()
        store, token = self._store, self._tokens.token()
        try:
            return ask(store)
        except UnauthenticatedError:
            self._tokens.renew(refused=token)
            self._store = self._opened()
            return ask(self._store)


def _meta(found: Any) -> Meta:
    return Meta(found["path"], found["version"] or "", found["size"], found["last_modified"])


class Full:
    """A bucket by google-cloud-storage. Thread-safe."""

    def __init__(self, options: GcsOptions, credentials: Credentials) -> None:
        self._options = options
        self._credentials = credentials
        self._signing: Signing | None = None
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=READING_THREADS_LIMIT))
        place = {"api_endpoint": options.endpoint.rstrip("/")} if options.endpoint else None
        # A project matters to requests about buckets only, which we don't make.
        self._client = Client("none", credentials, _http=self._session, client_options=place)
        # For its traces it would ask for the bucket's description, which takes a permission that nothing else needs.
        self._client._bucket_metadata_cache = None  # noqa: SLF001
        self._bucket = self._client.bucket(options.bucket, user_project=options.user_project)

    def page(self, prefix: str, start: str | None, limit: int) -> tuple[Sequence[Meta], bool]:
        """At most `limit` keys from `start` on, itself included, in byte order; and whether nothing follows."""
        listing = self._client.list_blobs(
            self._bucket, prefix=prefix or None, start_offset=start, page_size=limit, fields=_FIELDS,
            timeout=_TIMEOUT, retry=RETRY,
        )  # fmt: skip
        page = next(listing.pages, ())
        return [_of_blob(blob) for blob in page], listing.next_page_token is None

    def head(self, key: str) -> Meta:
        """What is there now."""
        blob = self._bucket.blob(key)
        blob.reload(timeout=_TIMEOUT, retry=RETRY)
        return _of_blob(blob)

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        meta = self.head(key)
        return meta, self.part(key, meta.generation) if meta.size <= SMALL_BYTES else None

    def part(self, key: str, generation: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes [start, end), or all, of the object if it still is of this generation."""
        content: bytes = self._bucket.blob(key).download_as_bytes(
            start=start, end=None if end is None else end - 1, raw_download=True,
            if_generation_match=int(generation), timeout=_TIMEOUT, retry=RETRY,
        )  # fmt: skip
        return content

    def _signer(self) -> Signing:
        # No cached_property: before Python 3.12 all buckets wait there for one whose login does not answer.
        if self._signing is None:
            self._signing = signer(self._options, self._credentials)
        return self._signing

    def sign(self, key: str, ttl: float) -> str:
        """A signed URL, by V4. Raises UsageError where these credentials can't sign."""
        place = {"api_access_endpoint": self._options.endpoint.rstrip("/")} if self._options.endpoint else {}
        paying = {"userProject": self._options.user_project} if self._options.user_project else None
        signed: str = self._bucket.blob(key).generate_signed_url(
            version="v4", expiration=timedelta(seconds=int(ttl)), method="GET", query_parameters=paying,
            credentials=self._signer(), **place,
        )  # fmt: skip
        return signed

    def close(self) -> None:
        """Let go of connections."""
        self._session.close()  # type: ignore[no-untyped-call]


def _of_blob(blob: Any) -> Meta:
    return Meta(blob.name, str(blob.generation), int(blob.size), blob.time_created)
