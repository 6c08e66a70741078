"""What both libraries raise, and S3's codes in it, as errors of ours, without texts, which may quote secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, PreconditionError

from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores.answers import code_in

LISTS = "it takes s3:ListBucket, and s3:ListBucketVersions where the bucket keeps versions"
READS = "it takes s3:GetObject, and kms:Decrypt where a key of your own encrypts it"

DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem"})
_ARCHIVED = frozenset({"InvalidObjectState"})
_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})
NOT_FOUND = frozenset({"404", "NotFound"})
"""A 404 without a word of S3's on what is missing: of a HEAD, which has no body, or of whoever stands before it."""
_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed"})
_CHANGED = frozenset({"PreconditionFailed", "412"})
_THROTTLED = frozenset(
    {"SlowDown", "TooManyRequests", "RequestLimitExceeded", "ThrottlingException", "Throttling", "429"}
)
_CREDENTIALS = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "TokenRefreshRequired", "UnrecognizedClientException",
})  # fmt: skip
_LOCKED = frozenset({"InvalidArgument", "InvalidRequest"})
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_ROLE = re.compile(r"\((\w+)\) when calling the AssumeRole")


@contextmanager
def converted(uri: str) -> Iterator[None]:
    """Turn the errors of both libraries into ours, without their texts, which may quote what is secret."""
    try:
        yield
    except PreconditionError:
        raise ObjectUnsettled(f"{uri} changed while it was read") from None
    except ClientError as error:
        if refused := refused_role(error):
            raise _no_role(uri, refused) from None
        raise _of_code(uri, code_of(error)) from None
    except (BaseError, PermissionError, FileNotFoundError) as error:
        if refused := refused_role(error):
            raise _no_role(uri, refused) from None
        if code := code_in(error):
            raise _of_code(uri, code) from None
        raise _silent(uri, error) from None
    except (BotoCoreError, OSError) as error:
        raise _silent(uri, error) from None


def refused_role(error: Exception) -> str | None:
    """The code with which the role was refused to us, where it was that which failed."""
    found = _ROLE.search(str(error))
    return found[1] if found else None


def code_of(error: ClientError) -> str:
    """S3's code in an error of boto3, else the HTTP status."""
    answer = error.response
    return str(answer.get("Error", {}).get("Code") or answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def _silent(uri: str, error: Exception) -> UnavailableError:
    return UnavailableError(f"{uri}: the store does not answer ({type(error).__name__})")


def _no_role(uri: str, code: str) -> UnavailableError:
    return UnavailableError(
        f"{uri}: the role is not given to us ({code})",
        code="permission" if code in DENIED | _CREDENTIALS else "unavailable",
    )


def _of_code(uri: str, code: str) -> Exception:
    for codes, made in _KINDS:
        if code in codes:
            return made(uri, code)
    return UnavailableError(f"{uri}: the store answers {code}")


_KINDS: tuple[tuple[frozenset[str], Callable[[str, str], Exception]], ...] = (
    (_GONE, lambda uri, _: ObjectGone(f"{uri} is not there")),
    (
        NOT_FOUND,
        lambda uri, _: UnavailableError(
            f"{uri}: a 404 came that is not S3's word that the object is gone: a wrong endpoint, or a proxy's?"
        ),
    ),
    (_CHANGED, lambda uri, _: ObjectUnsettled(f"{uri} changed while it was read")),
    (
        _ARCHIVED,
        lambda uri, _: ObjectSkipped(
            "archived", f"{uri} is archived", hint="restore it in the store, then `labelfeed retry` it"
        ),
    ),
    (
        DENIED,
        lambda uri, _: ObjectFailed(
            "permission",
            f"{uri}: the store denies us access",
            hint=f"{READS}; the right key in sse_c_key_variable, where there is one",
        ),
    ),
    (
        _LOCKED,
        lambda uri, code: ObjectFailed(
            "permission",
            f"{uri}: the store does not give it to us in this way ({code})",
            hint="an object under a key of its owner's own is read with sse_c_key_variable, any other without",
        ),
    ),
    (_NO_BUCKET, lambda uri, code: UsageError(f"{uri}: {code}: the bucket is not there, or in another region")),
    (
        _THROTTLED,
        lambda uri, code: UnavailableError(f"{uri}: the store asks us to slow down ({code})"),
    ),
    (
        _CREDENTIALS,
        lambda uri, code: UnavailableError(
            f"{uri}: the store does not take our credentials ({code})", code="permission"
        ),
    ),
    (
        _CLOCK,
        lambda uri, _: UnavailableError(f"{uri}: this machine's clock and the store's differ by more than 15 minutes"),
    ),
)
"""What each of S3's codes means to us; any other is an outage."""
