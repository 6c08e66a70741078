"""How to get into a storage account: one login for both libraries, and how it signs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
from azure.identity import DefaultAzureCredential, EnvironmentCredential, ManagedIdentityCredential
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, UserDelegationKey, generate_blob_sas

from pipeline.errors import UnavailableError, UsageError
from pipeline.stores.azure.options import ACCOUNT_VARIABLE, AzureOptions, connection

if TYPE_CHECKING:
    from obstore.store import AzureCredential

SCOPE = "https://storage.azure.com/.default"
DELEGATION_SECONDS = 6 * 86400.0
"""How long a key to sign with is asked for; Azure gives none for longer than seven days."""
SKEW = timedelta(minutes=15)
"""Signatures are valid from so long ago, for clocks that are behind ours."""

# Every way that a default credential tries and that isn't there is a warning; our own error tells of it once.
logging.getLogger("azure.identity").setLevel(logging.ERROR)


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
        login = self._options.credential
        for name in _AUTO if login == "auto" else (login,):
            if _FINDERS[name](self):
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
        self._token = DefaultAzureCredential(managed_identity_client_id=self._options.client_id)
        return True

    def _by_managed_identity(self) -> bool:
        self._token = ManagedIdentityCredential(client_id=self._options.client_id)
        return True

    def _by_service_principal(self) -> bool:
        if not os.environ.get("AZURE_CLIENT_ID") or not os.environ.get("AZURE_TENANT_ID"):
            raise UsageError(
                f"{self._options.canonical}: AZURE_TENANT_ID and AZURE_CLIENT_ID name no service principal"
            )
        self._token = EnvironmentCredential()
        return True

    def _anonymous(self) -> bool:
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


_FINDERS: dict[str, Callable[[Credentials], bool]] = {
    "connection_string": Credentials._by_connection_string,  # noqa: SLF001 - a table of its own ways
    "key": Credentials._by_key,  # noqa: SLF001
    "sas": Credentials._by_sas,  # noqa: SLF001
    "default": Credentials._by_default,  # noqa: SLF001
    "managed_identity": Credentials._by_managed_identity,  # noqa: SLF001
    "service_principal": Credentials._by_service_principal,  # noqa: SLF001
    "anonymous": Credentials._anonymous,  # noqa: SLF001
}
_AUTO = ("connection_string", "key", "sas", "default")


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
