"""Files in a container of Azure Blob, with the login that sources find by themselves: the connection string, a key, a
shared access signature, or an identity.

A blob appears with its last byte, whole, or with the list of its blocks, and replaces the one of its name at once: no
other name is needed first.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from pipeline.errors import UnavailableError, UsageError

ACCOUNT_VARIABLE = "AZURE_STORAGE_ACCOUNT"
CONNECTION_VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
KEY_VARIABLE = "AZURE_STORAGE_KEY"
SAS_VARIABLE = "AZURE_STORAGE_SAS_TOKEN"
CONNECT_SECONDS = 10.0
ATTEMPTS = 3
BUSY_SECONDS = 5.0
"""How long a store that says it is busy is left alone, at least."""
GRANT = "it needs to read and write blobs, as in deploy/iam/azure-deliver-jsonl.json"

_NO_BLOB = ("BlobNotFound", "ResourceNotFound", "404")
_NO_CONTAINER = ("ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "InvalidResourceName")
_BUSY = (429, 503)
_REFUSED = (401, 403)
_SECRET = re.compile(r"(?i)\b(?:accountkey|sharedaccesssignature|usedevelopmentstorage)=")
"""What a connection string logs in with; one without it says only where the account is."""
_NOBODY = "manifests/none.json"
"""The name of no batch."""

# Azure's libraries warn of every login that isn't there and of every answer without a body; our errors tell it once.
logging.getLogger("azure").setLevel(logging.ERROR)


class Container:
    """`pipeline.sinks.jsonl.places.Place` in a container, under a prefix."""

    def __init__(self, name: str, prefix: str, endpoint: str | None, timeout: float) -> None:
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        part = timeout / ATTEMPTS
        self._service, self._token = _opened(
            name,
            endpoint,
            retry_policy=ExponentialRetry(0, 2, ATTEMPTS - 1, random_jitter_range=1),
            connection_timeout=min(part, CONNECT_SECONDS),
            read_timeout=part,
        )
        self._container = self._service.get_container_client(name)

    def write(self, name: str, content: bytes) -> None:
        """As `Place.write`: under its own name, as nobody sees a blob before it is whole."""
        with self._converted():
            self._container.upload_blob(self._prefix + name, content, overwrite=True, validate_content=True)

    def read(self, name: str) -> bytes | None:
        """As `Place.read`."""
        with self._converted():
            try:
                return self._container.download_blob(self._prefix + name, decompress=False).readall()
            except ResourceNotFoundError as error:
                if _code(error) in _NO_BLOB:
                    return None
                raise

    def ping(self) -> str:
        """As `Place.ping`."""
        self.read(_NOBODY)
        return f"container {self._name} of account {self._service.account_name}, under {self._prefix or 'no prefix'}"

    def close(self) -> None:
        """As `Place.close`."""
        self._service.close()
        close = getattr(self._token, "close", None)
        if close is not None:
            close()

    @contextmanager
    def _converted(self) -> Iterator[None]:
        """The errors of Azure's libraries as ours, without their texts, which may quote what is secret."""
        where = f"az://{self._name}"
        try:
            yield
        except ClientAuthenticationError as error:
            if error.status_code is None:
                why = "no identity gives us a token; see AZURE_… in the environment"
                raise UnavailableError(f"{where}: {why}", code="permission") from None
            raise _answered(where, error) from None
        except HttpResponseError as error:
            raise _answered(where, error) from None
        except (AzureError, OSError) as error:
            raise UnavailableError(f"{where}: the store does not answer ({type(error).__name__})") from None


def _answered(where: str, error: HttpResponseError) -> UnavailableError:
    code, status = _code(error), error.status_code
    if status is None:
        return UnavailableError(f"{where}: the store does not answer ({type(error).__name__})")
    if code in _NO_CONTAINER:
        return UnavailableError(f"{where}: there is no such container in the account ({code})")
    if status in _BUSY:
        return UnavailableError(f"{where}: the store is busy ({code})", retry_after=BUSY_SECONDS)
    if status in _REFUSED:
        return UnavailableError(f"{where}: the store denies us access ({code}); {GRANT}", code="permission")
    return UnavailableError(f"{where}: the store answers {code}")


def _code(error: HttpResponseError) -> str:
    """Azure's code, else the HTTP status."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or error.status_code)


def _opened(container: str, endpoint: str | None, **how: Any) -> tuple[BlobServiceClient, TokenCredential | None]:
    """A client, and the identity that it asks for tokens, if any. Raises UsageError where no account is named."""
    account = os.environ.get(ACCOUNT_VARIABLE)
    string = os.environ.get(CONNECTION_VARIABLE, "").strip()
    if string:
        # Of two words of one name the last one counts.
        place = f";BlobEndpoint={endpoint.rstrip('/')}" if endpoint else ""
        try:
            service = BlobServiceClient.from_connection_string(string.rstrip(";") + place, **how)
        except ValueError:
            raise UsageError(f"az://{container}: {CONNECTION_VARIABLE} holds no connection string") from None
        if account in (None, "", service.account_name):
            if _SECRET.search(string):
                return service, None
            account, endpoint = service.account_name, service.url
        service.close()
    if not account:
        raise UsageError(f"az://{container}: no account: set {ACCOUNT_VARIABLE} or {CONNECTION_VARIABLE}")
    credential = _login(account)
    url = endpoint or f"https://{account}.blob.core.windows.net"
    token = None if isinstance(credential, AzureNamedKeyCredential | AzureSasCredential) else credential
    return BlobServiceClient(url, credential, **how), token


def _login(account: str) -> AzureNamedKeyCredential | AzureSasCredential | TokenCredential:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key:
        return AzureNamedKeyCredential(account, key)
    signature = os.environ.get(SAS_VARIABLE, "").strip().removeprefix("?")
    if signature:
        return AzureSasCredential(signature)
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - loads long; only where it is logged in with

    return DefaultAzureCredential()
