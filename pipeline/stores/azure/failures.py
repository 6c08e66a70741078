"""What both libraries raise, and Azure's codes in it, as errors of ours, without texts, which may quote secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from obstore.exceptions import BaseError, PreconditionError, UnauthenticatedError

from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores.answers import code_in

ROLES = "the role Storage Blob Data Reader on the container, or a signature with read and list"
BUSY_SECONDS = 5.0
"""How long a store that says it is busy is left alone, at least."""


@contextmanager
def converted(uri: str) -> Iterator[None]:
    """Turn the errors of both libraries into ours."""
    try:
        yield
    except PreconditionError:
        raise ObjectUnsettled(f"{uri} changed while it was read") from None
    except ClientAuthenticationError as error:
        raise _no_token(uri) if error.status_code is None else of_code(uri, code_of(error)) from None
    except HttpResponseError as error:
        raise of_code(uri, code_of(error)) from None
    except UnauthenticatedError as error:
        code = code_in(error)
        raise of_code(uri, code) if code else _no_token(uri) from None
    except (BaseError, PermissionError, FileNotFoundError) as error:
        code = code_in(error)
        raise of_code(uri, code) if code else _silent(uri, error) from None
    except (AzureError, OSError) as error:
        raise _silent(uri, error) from None


def of_code(uri: str, code: str) -> Exception:
    """The error of ours for one of Azure's codes, or an HTTP status where there was none."""
    for codes, made in _ERRORS:
        if code in codes:
            return made(uri, code)
    return UnavailableError(f"{uri}: the store answers {code}")


def _gone(uri: str, _code: str) -> Exception:
    return ObjectGone(f"{uri} is not there")


def _no_container(uri: str, code: str) -> Exception:
    return UsageError(f"{uri}: {code}: there is no such container in the account, or it is not public")


def _not_found(uri: str, _code: str) -> Exception:
    return UnavailableError(f"{uri}: a 404 came that is not Azure's word that the blob is gone: a proxy's?")


def _changed(uri: str, _code: str) -> Exception:
    return ObjectUnsettled(f"{uri} changed while it was read")


def _archived(uri: str, _code: str) -> Exception:
    hint = "rehydrate it to Hot or Cool; then `labelfeed retry --state skipped --code archived`"
    return ObjectSkipped("archived", f"{uri} is in the archive tier", hint=hint)


def _denied(uri: str, code: str) -> Exception:
    return ObjectFailed("permission", f"{uri}: the store denies us access ({code})", hint=ROLES)


def _shut_out(uri: str, code: str) -> Exception:
    why = "a wrong or ended key or signature, this machine's clock, or the account's firewall"
    return UnavailableError(f"{uri}: the store does not let us in ({code}): {why}", code="permission")


def _busy(uri: str, code: str) -> Exception:
    return UnavailableError(f"{uri}: the store is busy ({code})", retry_after=BUSY_SECONDS)


_ERRORS: tuple[tuple[frozenset[str], Callable[[str, str], Exception]], ...] = (
    (frozenset({"BlobNotFound"}), _gone),
    (frozenset({"404"}), _not_found),
    (
        frozenset({
            "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "InvalidResourceName",
            "ResourceNotFound",
        }),
        _no_container,
    ),
    (frozenset({"ConditionNotMet", "TargetConditionNotMet", "InvalidRange", "412", "416"}), _changed),
    (frozenset({"BlobArchived", "BlobBeingRehydrated"}), _archived),
    (
        frozenset({
            "AuthorizationPermissionMismatch", "AuthorizationResourceTypeMismatch",
            "AuthorizationServiceMismatch", "403",
        }),
        _denied,
    ),
    (
        frozenset({
            "AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "401",
            "AuthorizationFailure", "AuthorizationSourceIPMismatch", "AuthorizationProtocolMismatch",
            "InsufficientAccountPermissions", "KeyBasedAuthenticationNotPermitted", "PublicAccessNotPermitted",
        }),
        _shut_out,
    ),
    (frozenset({"ServerBusy", "TooManyRequests", "OperationTimedOut", "429", "503"}), _busy),
)  # fmt: skip


def code_of(error: HttpResponseError) -> str:
    """Azure's code in an error of its clients, else the HTTP status."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or error.status_code)


def _silent(uri: str, error: Exception) -> Exception:
    return UnavailableError(f"{uri}: the store does not answer ({type(error).__name__})")


def _no_token(uri: str) -> Exception:
    why = "no identity gives us a token; see `credential` and AZURE_… in the environment"
    return UnavailableError(f"{uri}: {why}", code="permission")
