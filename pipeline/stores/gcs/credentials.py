"""Who we are to Google: found, loaded from a file, or acting as another; and who signs for us."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google.auth
from google.auth import aws, external_account, iam, identity_pool, impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials, Signing
from google.auth.exceptions import GoogleAuthError, MalformedError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from pipeline.errors import UsageError
from pipeline.stores.gcs.options import GcsOptions

if TYPE_CHECKING:
    from obstore.store import GCSCredential

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
"""What a token may be used for at most; what it really may do, IAM's roles say."""
RENEW_BEFORE = timedelta(minutes=6)
"""A token is renewed so long before its end: obstore asks for another one from five minutes before it on."""
OWN_LIFE = timedelta(hours=1)
"""How long a token whose end is not told is taken to live."""


def credentials(options: GcsOptions) -> Credentials:
    """The credentials that the options ask for. Raises UsageError where there are none."""
    if options.unsigned:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        if options.credentials_file is not None:
            found = _of_file(options.credentials_file)
        else:
            found, _ = google.auth.default(scopes=SCOPES)
    except (OSError, ValueError, MalformedError) as error:
        raise UsageError(f"{options.canonical}: the credentials cannot be read ({type(error).__name__})") from None
    except GoogleAuthError:
        raise UsageError(
            f"{options.canonical}: no Google credentials found in GOOGLE_APPLICATION_CREDENTIALS, gcloud or the machine"
            " (anonymous=true asks without)"
        ) from None
    return _acting(found, options.impersonate) if options.impersonate else found


def _of_file(path: Path) -> Credentials:
    info = json.loads(path.read_text())
    kind = str(info.get("type")) if isinstance(info, dict) else ""
    if kind not in _KINDS:
        raise UsageError(f"{path} is no credentials file of type {' or '.join(_KINDS)}")
    return _KINDS[kind](info)


def _service_account(info: Mapping[str, Any]) -> Credentials:
    found: Credentials = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)  # type: ignore[no-untyped-call]
    return found


def _federated(info: Mapping[str, Any]) -> Credentials:
    source = info.get("credential_source")
    of_aws = isinstance(source, dict) and str(source.get("environment_id", "")).startswith("aws")
    kind: Any = aws if of_aws else identity_pool
    found: external_account.Credentials = kind.Credentials.from_info(info, scopes=SCOPES)
    return found


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], Credentials]] = {
    "service_account": _service_account,
    "external_account": _federated,
}


def _acting(base: Credentials, chain: str) -> Credentials:
    *through, target = [name.strip() for name in chain.split(",")]
    delegates = [name if "/" in name else f"projects/-/serviceAccounts/{name}" for name in through]
    found: Credentials = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
        source_credentials=base, target_principal=target, delegates=delegates, target_scopes=list(SCOPES)
    )
    return found


_UNASKED = "default"
"""What a machine's service account is called before it was asked for."""


class Tokens:
    """Gives obstore its tokens. Thread-safe."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._request = Request()
        self._lock = threading.Lock()

    def __call__(self) -> GCSCredential:
        """A token and its end. Raises GoogleAuthError."""
        self.renew()
        return {"token": str(self._credentials.token), "expires_at": self._end()}

    def renew(self, refused: str | None = None) -> None:
        """Get another token where there is none, it ends soon, or it is the one that was refused.

        Raises GoogleAuthError: asked for beforehand, it comes out as it is, not through obstore's own errors.
        """
        if self._lives(refused):
            return
        with self._lock:
            if not self._lives(refused):
                self._credentials.refresh(self._request)  # type: ignore[no-untyped-call]

    def token(self) -> str | None:
        """The present token."""
        token: str | None = self._credentials.token
        return token

    def _lives(self, refused: str | None) -> bool:
        token = self._credentials.token
        return token is not None and token != refused and self._end() - datetime.now(UTC) > RENEW_BEFORE

    def _end(self) -> datetime:
        expiry: datetime | None = self._credentials.expiry
        return datetime.now(UTC) + OWN_LIFE if expiry is None else expiry.replace(tzinfo=UTC)


class RemoteSigner(Signing):
    """Signs in the name of a service account by IAM's signBlob: no private key is needed here."""

    def __init__(self, credentials: Credentials, email: str) -> None:
        self._signer = iam.Signer(Request(), credentials, email)  # type: ignore[no-untyped-call]
        self._email = email

    def sign_bytes(self, message: bytes) -> bytes:
        """The signature of some bytes. Raises GoogleAuthError."""
        signature: bytes = self._signer.sign(message)
        return signature

    @property
    def signer_email(self) -> str:
        """Whose signature it is."""
        return self._email

    @property
    def signer(self) -> iam.Signer:
        """What signs."""
        return self._signer


def signer(options: GcsOptions, found: Credentials) -> Signing:
    """What signs URLs: the credentials themselves where they can, else IAM.

    Raises UsageError where nobody can, GoogleAuthError where a machine does not say who it is.
    """
    if isinstance(found, Signing) and options.signer is None:
        return found
    email = options.signer or _email(found)
    if not email or options.unsigned:
        raise UsageError(
            f"{options.canonical}: these credentials cannot sign; name a service account that may by signer="
        )
    return RemoteSigner(found, email)


def _email(found: Credentials) -> str | None:
    """The service account that the credentials are of, if any; a machine's says its name with its first token."""
    if getattr(found, "service_account_email", None) == _UNASKED:
        found.refresh(Request())  # type: ignore[no-untyped-call]
    email: str | None = getattr(found, "service_account_email", None)
    return email
