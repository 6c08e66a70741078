"""The errors of Google's library, of obstore and of the credentials as ours, without their texts, which may quote
what is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import GoogleAuthError, RefreshError
from google.cloud.storage.exceptions import DataCorruption
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from pipeline.errors import LabelfeedError, ObjectFailed, ObjectGone, ObjectUnsettled, UnavailableError

LONGEST_WAIT_SECONDS = 300.0
"""A store that asks for a longer wait is asked again after this."""

READER = "grant roles/storage.objectViewer (storage.objects.get and storage.objects.list) on the bucket"

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_OF_CLASS: tuple[tuple[type[Exception], int], ...] = (
    (FileNotFoundError, HTTPStatus.NOT_FOUND),
    (PermissionError, HTTPStatus.FORBIDDEN),
    (PermissionDeniedError, HTTPStatus.FORBIDDEN),
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
)
_WORD = re.compile(r"[A-Za-z_]{3,40}")
_NO_BUCKET_CODE = "NoSuchBucket"
_NO_BUCKET_TEXT = "bucket does not exist"
"""The JSON interface says it in no other way; keys stand in its messages with their spaces encoded."""
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_SLOW = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "SlowDown", "TooManyRequests"})
_PAYER = frozenset({"userProjectMissing", "UserProjectMissing", "required"})
_FOREIGN_KEY = frozenset({
    "resourceIsEncryptedWithCustomerEncryptionKey", "ResourceIsEncryptedWithCustomerEncryptionKey",
    "customerEncryptionKeyIsIncorrect",
})  # fmt: skip


@contextmanager
def converted(uri: str) -> Iterator[None]:
    """Turn what both libraries raise in the block into our errors, which speak of `uri`."""
    try:
        yield
    except LabelfeedError:
        raise
    except PreconditionError:
        raise ObjectUnsettled(f"{uri} changed while it was read") from None
    except (GoogleAPICallError, RetryError) as error:
        raise _of_api(uri, error) from None
    except GoogleAuthError as error:
        raise _of_credentials(uri, error) from None
    except (FileNotFoundError, BaseError, PermissionError) as error:
        raise _of_obstore(uri, error) from None
    except DataCorruption:
        raise UnavailableError(f"{uri}: what came is not what Google sent") from None
    except OSError as error:
        raise UnavailableError(f"{uri}: Google does not answer ({type(error).__name__})") from None


def _of_api(uri: str, error: GoogleAPICallError | RetryError) -> LabelfeedError:
    if isinstance(error, RetryError):
        cause = error.cause
        if isinstance(cause, GoogleAPICallError):
            return _of_api(uri, cause)
        return UnavailableError(f"{uri}: Google does not answer ({type(cause).__name__})")
    reasons = {str(row.get("reason")) for row in error.errors if isinstance(row, dict)}
    found = _CODE.search(str(error))
    reasons |= {found[1]} if found else set()
    no_bucket = _NO_BUCKET_CODE in reasons or _NO_BUCKET_TEXT in str(error)
    wait = _wait(getattr(error.response, "headers", None) or {})
    return _of_status(uri, int(error.code or 0), reasons, no_bucket=no_bucket, wait=wait)


def _of_obstore(uri: str, error: Exception) -> LabelfeedError:
    text = str(error)
    # The text names the key, which may look like a status itself: it is asked only where the class says nothing.
    number = next((status for kind, status in _OF_CLASS if isinstance(error, kind)), 0)
    if not number:
        found = _STATUS.search(text)
        number = int(found[1]) if found else 0
    code = _CODE.search(text)
    reasons = {code[1]} if code else set()
    return _of_status(uri, number, reasons, no_bucket=_NO_BUCKET_CODE in reasons)


def _of_status(
    uri: str, status: int, reasons: set[str], *, no_bucket: bool = False, wait: float | None = None
) -> LabelfeedError:
    if status == HTTPStatus.PRECONDITION_FAILED:
        return ObjectUnsettled(f"{uri} changed while it was read")
    if status == HTTPStatus.NOT_FOUND and not no_bucket:
        return ObjectGone(f"{uri} is not there")
    if status in _BUSY or reasons & _SLOW:
        return UnavailableError(f"{uri}: Google asks us to slow down ({status})", retry_after=wait)
    refused = _refused(uri, status, reasons)
    if refused is not None:
        return refused
    said = "that the bucket is not there" if no_bucket else status or "what cannot be understood"
    return UnavailableError(f"{uri}: Google answers {said}")


def _refused(uri: str, status: int, reasons: set[str]) -> LabelfeedError | None:
    if status == HTTPStatus.UNAUTHORIZED:
        why = "it has expired, or the account or its key was disabled"
        return UnavailableError(f"{uri}: Google refuses our token: {why}", code="permission")
    if status == HTTPStatus.BAD_REQUEST and reasons & _PAYER:
        return ObjectFailed("permission", f"{uri}: the bucket's requester pays", hint="name a project: user_project=")
    if status == HTTPStatus.BAD_REQUEST and reasons & _FOREIGN_KEY:
        hint = "keys that customers supply with each request are not kept here; use one of Cloud KMS"
        return ObjectFailed("permission", f"{uri} is encrypted with a key that we do not have", hint=hint)
    if status == HTTPStatus.FORBIDDEN:
        return ObjectFailed("permission", f"{uri}: Google denies us access", hint=READER)
    return None


def _of_credentials(uri: str, error: GoogleAuthError) -> UnavailableError:
    if not isinstance(error, RefreshError):
        return UnavailableError(f"{uri}: Google's token server does not answer ({type(error).__name__})")
    word = _word(error)
    advice = ": the key was deleted, or this machine's clock is wrong" if word == "invalid_grant" else ""
    return UnavailableError(f"{uri}: Google gives us no token ({word}){advice}", code="permission")


def _word(error: RefreshError) -> str:
    """The bounded code of the token server's answer: its text may quote the assertion."""
    for argument in error.args:
        if isinstance(argument, Mapping) and _WORD.fullmatch(str(argument.get("error"))):
            return str(argument["error"])
        head = str(argument).partition(":")[0]
        if _WORD.fullmatch(head) and "_" in head:
            return head
    return type(error).__name__


def _wait(headers: Mapping[str, Any]) -> float | None:
    """The seconds that the answer asks us to wait, where it says a number of them."""
    said = str(headers.get("Retry-After", ""))
    return min(float(said), LONGEST_WAIT_SECONDS) if said.isdecimal() else None
