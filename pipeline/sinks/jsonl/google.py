"""Files in a bucket of Google Cloud Storage, with the credentials that Google's own libraries find.

An object appears with its last byte, whole, and replaces the one of its name at once: no other name is needed first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import google.auth
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, InvalidOperation, RefreshError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from pipeline.errors import UnavailableError, UsageError

EMULATOR = "STORAGE_EMULATOR_HOST"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
"""What a token may be used for at most, as for sources; what it really may do, IAM's roles say."""
CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 300.0
"""A store that asks for a longer wait is asked again after this."""
GRANT = "it needs storage.objects.create, delete, get and list, as in deploy/iam/gcp-deliver-jsonl.yaml"

_CONTENT_TYPE = "application/octet-stream"
_NO_BUCKET = "bucket does not exist"
"""The JSON interface says in no other way that it isn't an object that is missing."""
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class GoogleBucket:
    """`pipeline.sinks.jsonl.places.Place` in a bucket, under a prefix."""

    def __init__(self, name: str, prefix: str, endpoint: str | None, timeout: float) -> None:
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        # A last attempt may begin when the time for attempts ends, so that each is given half of it.
        half = timeout / 2
        self._timeout = (min(half, CONNECT_SECONDS), half)
        self._retry = DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0).with_timeout(half)
        emulator = os.environ.get(EMULATOR, "") if endpoint is None else ""
        if emulator:
            endpoint = emulator if "://" in emulator else f"http://{emulator}"
        # No token goes over plain HTTP, nor to an emulator.
        plain = bool(emulator) or (endpoint or "").startswith("http:")
        credentials = AnonymousCredentials() if plain else _found(name)  # type: ignore[no-untyped-call]
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        self._session.hooks["response"].append(_read_errors)
        place = {"api_endpoint": endpoint.rstrip("/")} if endpoint else None
        # A project matters to requests about buckets only, which we don't make.
        self._client = Client("none", credentials, _http=self._session, client_options=place)
        # For its traces it would ask for the bucket's description, which takes a permission that nothing else needs.
        self._client._bucket_metadata_cache = None  # noqa: SLF001
        self._bucket = self._client.bucket(name)

    def write(self, name: str, content: bytes) -> None:
        """As `Place.write`: under its own name, as nobody sees an object before it is whole."""
        with self._converted():
            self._bucket.blob(self._prefix + name).upload_from_string(
                content, _CONTENT_TYPE, timeout=self._timeout, retry=self._retry
            )

    def read(self, name: str) -> bytes | None:
        """As `Place.read`."""
        with self._converted():
            try:
                content: bytes = self._bucket.blob(self._prefix + name).download_as_bytes(
                    raw_download=True, timeout=self._timeout, retry=self._retry
                )
            except NotFound as error:
                if _NO_BUCKET in str(error):
                    raise
                return None
        return content

    def ping(self) -> str:
        """As `Place.ping`."""
        with self._converted():
            listing = self._client.list_blobs(
                self._bucket, prefix=self._prefix or None, page_size=1, fields="items(name)",
                timeout=self._timeout, retry=self._retry,
            )  # fmt: skip
            next(listing.pages, None)
        return f"bucket {self._name}, under {self._prefix or 'no prefix'}"

    def close(self) -> None:
        """As `Place.close`."""
        self._session.close()  # type: ignore[no-untyped-call]

    @contextmanager
    def _converted(self) -> Iterator[None]:
        """The errors of Google's libraries as ours, without their texts, which may quote what is secret."""
        where = f"gs://{self._name}"
        try:
            yield
        except (GoogleAPICallError, InvalidResponse, RetryError, DataCorruption, OSError) as error:
            cause = error.cause if isinstance(error, RetryError) else error
            if isinstance(cause, GoogleAPICallError):
                raise _answered(where, int(cause.code or 0), cause.response) from None
            if isinstance(cause, InvalidResponse):
                # What an upload was answered, where trying again did not help.
                raise _answered(where, int(cause.response.status_code), cause.response) from None
            raise UnavailableError(f"{where}: Google does not answer ({type(cause).__name__})") from None
        except GoogleAuthError as error:
            raise _of_credentials(where, error) from None


def _read_errors(response: Any, **_: Any) -> None:
    """Read what an error says at once: Google's downloads leave it, and with it a connection that nobody closes."""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        _ = response.content


def _found(bucket: str) -> Credentials:
    try:
        found, _ = google.auth.default(scopes=SCOPES)
    except (GoogleAuthError, OSError, ValueError) as error:
        raise UsageError(
            f"gs://{bucket}: no Google credentials can be had from GOOGLE_APPLICATION_CREDENTIALS, gcloud or the"
            f" machine ({type(error).__name__})"
        ) from None
    return found


def _of_credentials(where: str, error: GoogleAuthError) -> UnavailableError:
    if isinstance(error, InvalidOperation):
        return UnavailableError(f"{where}: Google asks for a token; none goes over plain HTTP", code="permission")
    if isinstance(error, RefreshError):
        return UnavailableError(f"{where}: Google gives us no token", code="permission")
    return UnavailableError(f"{where}: Google's token server does not answer ({type(error).__name__})")


def _answered(where: str, status: int, response: Any) -> UnavailableError:
    if status in _BUSY:
        said = str((getattr(response, "headers", None) or {}).get("Retry-After", ""))
        wait = min(float(said), LONGEST_WAIT_SECONDS) if said.isdecimal() else None
        return UnavailableError(f"{where}: Google asks us to slow down ({status})", retry_after=wait)
    if status == HTTPStatus.NOT_FOUND:
        return UnavailableError(f"{where}: there is no such bucket")
    if status == HTTPStatus.UNAUTHORIZED:
        return UnavailableError(f"{where}: Google refuses our token", code="permission")
    if status == HTTPStatus.FORBIDDEN:
        return UnavailableError(f"{where}: Google denies us access; {GRANT}", code="permission")
    return UnavailableError(f"{where}: Google answers {status or 'what cannot be understood'}")
