"""Two ways to a container, with one face: `Plain` by obstore, which is quick, and `Full` by Azure's own client, which
knows all of it: blobs that obstore can't name, why something was refused, signing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
from azure.core import MatchConditions
from azure.storage.blob import BlobServiceClient, ExponentialRetry
from obstore.store import AzureStore as ObstoreAzure

from pipeline.stores import SMALL_BYTES
from pipeline.stores.azure.credentials import Credentials
from pipeline.stores.azure.options import AzureOptions

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CONNECT_SECONDS = 5
REQUEST_SECONDS = 60
ATTEMPTS = 4
FULL_ATTEMPTS = 3
"""Azure's client waits two and four seconds between them, also where there is no token."""
FOLDER_MARK = "hdi_isfolder"
"""The metadata of an empty blob that stands for a folder, in hierarchical accounts and from older tools."""


class Meta(NamedTuple):
    """What Azure says of one blob; `key` is whole, `etag` as it came, `mark` that it only shows a folder."""

    key: str
    etag: str | None
    size: int
    modified: datetime
    mark: bool = False


class Plain:
    """A container by obstore. Thread-safe."""

    def __init__(self, options: AzureOptions, credentials: Credentials) -> None:
        client: ClientConfig = {
            "allow_http": options.endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        }
        settings: dict[str, Any] = {"use_emulator": False, "skip_signature": credentials.provider is None}
        self._store = ObstoreAzure(
            options.container,
            account_name=options.account,
            endpoint=options.endpoint,
            credential_provider=credentials.provider,
            client_options=client,
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
            **settings,
        )

    def pages(self, prefix: str, after: str | None, limit: int) -> Iterator[tuple[list[Meta], bool]]:
        """Pages of `limit` blobs, each with whether it is the last. Raises InvalidPathError at what it can't name.

        A store that doesn't know how to begin after a name begins at the first. A key that ends with a slash
        comes without it.
        """
        for chunk in obstore.list(self._store, prefix.rstrip("/") or None, offset=after, chunk_size=limit):
            found = [_meta(meta) for meta in chunk]
            yield found, len(found) < limit
            if len(found) < limit:
                return
        yield [], True

    def head(self, key: str) -> Meta | None:
        """What is there now; None for a 404, which does not say whether it is the blob or the container."""
        try:
            return _meta(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        result = obstore.get(self._store, key)
        meta = _meta(result.meta)
        return meta, bytes(result.bytes()) if meta.size <= SMALL_BYTES else None

    def part(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of the blob if it still has this ETag."""
        result = obstore.get(self._store, key, options={"range": (start, end), "if_match": etag})
        return bytes(result.bytes())


def _meta(found: Any) -> Meta:
    return Meta(found["path"], found["e_tag"], found["size"], found["last_modified"])


class Full:
    """A container by Azure's client. Thread-safe."""

    def __init__(self, options: AzureOptions, credentials: Credentials) -> None:
        self._service = BlobServiceClient(
            options.endpoint,
            credentials.sdk,
            retry_policy=ExponentialRetry(0, 2, FULL_ATTEMPTS - 1, random_jitter_range=1),
            connection_timeout=CONNECT_SECONDS,
            read_timeout=REQUEST_SECONDS,
            # An answer to a first question is no longer than what is read at once.
            max_single_get_size=SMALL_BYTES,
        )
        self._container = self._service.get_container_client(options.container)
        self.signer = credentials.signer(self._service)

    def pages(self, prefix: str, after: str | None, limit: int) -> Iterator[tuple[list[Meta], bool]]:
        """Pages of at most `limit` blobs, each with whether it is the last; from `after` on, or from the first."""
        pages = self._container.list_blobs(
            prefix or None, include=["metadata"], results_per_page=limit, start_from=after
        ).by_page()
        for page in pages:
            last = not pages.continuation_token  # type: ignore[attr-defined]
            yield [_listed(blob) for blob in page], last
            if last:
                return
        yield [], True

    def head(self, key: str) -> Meta:
        """What is there now."""
        return _of_properties(key, self._container.get_blob_client(key).get_blob_properties())

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        answer = self._container.get_blob_client(key).download_blob(decompress=False)
        meta = _of_properties(key, answer.properties)
        return meta, answer.readall() if meta.size <= SMALL_BYTES else None

    def part(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of the blob if it still has this ETag."""
        answer = self._container.get_blob_client(key).download_blob(
            start, end - start, etag=etag, match_condition=MatchConditions.IfNotModified, decompress=False
        )
        return answer.readall()

    def hierarchical(self) -> bool:
        """Whether the account has folders, which it lists one by one."""
        return bool(self._service.get_account_information().get("is_hns_enabled"))

    def sign(self, key: str, ttl: float) -> str:
        """The blob's URL with a signature. Raises UsageError where this login can't."""
        return f"{self._container.get_blob_client(key).url.partition('?')[0]}?{self.signer.query(key, ttl)}"

    def close(self) -> None:
        """Let go of connections."""
        self._service.close()


def _listed(blob: Any) -> Meta:
    mark = blob.name.endswith("/") or _is_mark(blob)
    return Meta(blob.name, blob.etag, blob.size, blob.last_modified, mark)


def _of_properties(key: str, found: Any) -> Meta:
    return Meta(key, found.etag, found.size, found.last_modified, _is_mark(found))


def _is_mark(found: Any) -> bool:
    metadata = {name.lower(): value for name, value in (found.metadata or {}).items()}
    return str(metadata.get(FOLDER_MARK)).lower() == "true"
