"""How to get into a storage account: one login for both libraries, and how it signs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, UserDelegationKey, generate_blob_sas

from pipeline.errors import UnavailableError, UsageError
from pipeline.stores.azure.options import ACCOUNT_VARIABLE, AzureOptions, connection

if TYPE_CHECKING:
    from obstore.store import AzureCredential

AUTO = ("connection_string", "key", "sas", "default")
"""What is tried, in this order, where a source doesn't say."""
SCOPE = "https://storage.azure.com/.default"
DELEGATION_SECONDS = 6 * 86400.0
"""How long a key to sign with is asked for; Azure gives none for longer than seven days."""
SKEW = timedelta(minutes=15)
"""Signatures are valid from so long ago, for clocks that are behind ours."""

# Azure's libraries warn of every login that isn't there and of every answer without a body; our errors tell it once.
logging.getLogger("azure").setLevel(logging.ERROR)


class Credentials:
    """What one source logs in with. Thread-safe. Raises UsageError where what the options ask for is not there."""

    def __init__(self, options: AzureOptions) -> None:
        self._options = options
        self._key: str | None = None
        self._sas: str | None = None
        self._token: TokenCredential | None = None
        self._find()

    # --- what there is -----------------------------------------------------------------------------------------

    def _find(self) -> None:
        ways: dict[str, Callable[[], bool]] = {
            "connection_string": self._by_connection_string,
            "key": self._by_key,
            "sas": self._by_sas,
            "default": self._by_default,
            "managed_identity": self._by_managed_identity,
            "service_principal": self._by_service_principal,
            "anonymous": lambda: True,
        }
        login = self._options.credential
        if any(ways[name]() for name in (AUTO if login == "auto" else (login,))):
            return
        variable = getattr(self._options, f"{login}_variable")
        raise UsageError(f"{self._options.canonical}: {variable} holds no {login} of account {self._options.account}")

    def _by_connection_string(self) -> bool:
        words = connection(self._options.connection_string_variable)
        if words.get("accountname") != self._options.account:
            return False
        self._key, self._sas = words.get("accountkey"), words.get("sharedaccesssignature")
        return bool(self._key or self._sas)

    def _by_key(self) -> bool:
        self._key = self._variable(self._options.key_variable)
        return self._key is not None

    def _by_sas(self) -> bool:
        self._sas = self._variable(self._options.sas_variable)
        return self._sas is not None

    def _variable(self, name: str) -> str | None:
        """A secret from its variable, unless the environment says that it is another account's."""
        other = os.environ.get(ACCOUNT_VARIABLE, self._options.account) != self._options.account
        if other and name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
            return None
        return os.environ.get(name, "").strip().removeprefix("?") or None

    def _by_default(self) -> bool:
        from pipeline.stores.azure import identities  # noqa: PLC0415 - loaded when it is logged in with

        self._token = identities.default(self._options.client_id)
        return True

    def _by_managed_identity(self) -> bool:
        from pipeline.stores.azure import identities  # noqa: PLC0415 - loaded when it is logged in with

        self._token = identities.managed(self._options.client_id)
        return True

    def _by_service_principal(self) -> bool:
        if not os.environ.get("AZURE_CLIENT_ID") or not os.environ.get("AZURE_TENANT_ID"):
            raise UsageError(
                f"{self._options.canonical}: AZURE_TENANT_ID and AZURE_CLIENT_ID name no service principal"
            )
        from pipeline.stores.azure import identities  # noqa: PLC0415 - loaded when it is logged in with

        self._token = identities.principal()
        return True

    # --- for the libraries -------------------------------------------------------------------------------------

    @property
    def sdk(self) -> AzureNamedKeyCredential | AzureSasCredential | TokenCredential | None:
        """For Azure's own clients."""
        if self._key is not None:
            return AzureNamedKeyCredential(self._options.account, self._key)
        if self._sas is not None:
            return AzureSasCredential(self._sas)
        return self._token

    @property
    def provider(self) -> Callable[[], AzureCredential] | None:
        """For obstore, which asks again before they end; None without any."""
        if self._key is None and self._sas is None and self._token is None:
            return None
        return self._provide

    def _provide(self) -> AzureCredential:
        if self._key is not None:
            return {"access_key": self._key, "expires_at": None}
        if self._sas is not None:
            return {"sas_token": self._sas, "expires_at": None}
        assert self._token is not None
        token = self._token.get_token(SCOPE)
        return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, UTC)}

    def signer(self, service: BlobServiceClient) -> Signer:
        """What signs URLs with this login."""
        return Signer(self._options, service, self._key, delegated=self._token is not None)

    def close(self) -> None:
        """Let go of connections."""
        close: Callable[[], Any] | None = getattr(self._token, "close", None)
        if close is not None:
            close()


class Signer:
    """Signs URLs: with the account's key, or with one that a token is given for some days. Thread-safe."""

    def __init__(self, options: AzureOptions, service: BlobServiceClient, key: str | None, *, delegated: bool) -> None:
        self._options = options
        self._service = service
        self._key = key
        self._delegated = delegated
        self._lock = threading.Lock()
        self._delegation: tuple[UserDelegationKey, datetime] | None = None

    def query(self, key: str, ttl: float) -> str:
        """The signature's parameters for a whole key, good for `ttl` seconds. Raises UsageError where none can be."""
        now = datetime.now(UTC)
        end = now + timedelta(seconds=ttl)
        how: dict[str, Any]
        if self._key is not None:
            how = {"account_key": self._key}
        elif self._delegated:
            how = {"user_delegation_key": self._delegation_until(now, end)}
        else:
            raise UsageError(
                f"{self._options.canonical}: links: signed needs the account's key or an identity; "
                "a shared access signature or no login at all can't sign"
            )
        return generate_blob_sas(
            self._options.account, self._options.container, key,
            permission=BlobSasPermissions(read=True), start=now - SKEW, expiry=end, **how,
        )  # fmt: skip

    def _delegation_until(self, now: datetime, end: datetime) -> UserDelegationKey:
        if end - now > timedelta(seconds=DELEGATION_SECONDS):
            raise UsageError(f"{self._options.canonical}: an identity signs for six days at most; shorten ttl")
        with self._lock:
            if self._delegation is None or self._delegation[1] < end:
                until = now + timedelta(seconds=DELEGATION_SECONDS)
                found = self._service.get_user_delegation_key(now - SKEW, until)
                if found.value is None:
                    raise UnavailableError(f"{self._options.canonical}: the store gives no key to sign with")
                self._delegation = (found, until)
            return self._delegation[0]
