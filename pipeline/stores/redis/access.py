"""The client of a Redis server, and its errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as Disconnected,
)
from redis.exceptions import (
    TimeoutError as TimedOut,
)
from redis.retry import Retry

from pipeline.errors import ObjectFailed, UnavailableError
from pipeline.stores.redis.options import Server

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
HEALTH_SECONDS = 15
RETRIES = 2
CLIENT_NAME = "labelfeed"
PERMISSION = "permission"
WRONG_TYPE = "WRONGTYPE"


def client(server: Server, *, retries: int = RETRIES) -> redis.Redis:
    """A client of a server; nothing is asked of it yet. With `retries` 0 a lost connection is always told."""
    options: dict[str, Any] = {}
    if server.tls:
        options = {
            "ssl": True,
            "ssl_cert_reqs": "required" if server.verify else "none",
            "ssl_check_hostname": server.verify,
            "ssl_ca_certs": _text(server.ca_file),
            "ssl_certfile": _text(server.cert_file),
            "ssl_keyfile": _text(server.key_file),
        }
    return redis.Redis(
        host=server.host,
        port=server.port,
        db=server.db,
        username=server.username,
        password=server.secret(),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        health_check_interval=HEALTH_SECONDS,
        client_name=CLIENT_NAME,
        retry=Retry(ExponentialBackoff(), retries) if retries else Retry(NoBackoff(), 0),
        **options,
    )


def _text(path: object) -> str | None:
    return None if path is None else str(path)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn the client's errors into ours; `what` is asked of, as it may be shown. No error's own text is told: it
    may quote what is secret.

    Raises:
        ObjectFailed: `permission`, where our user may not do this.
        UnavailableError: the server does not answer, or not as it should.
    """
    try:
        yield
    except (AuthenticationError, AuthorizationError):
        raise UnavailableError(f"{what}: the server refuses our user or password", code=PERMISSION) from None
    except NoPermissionError:
        raise ObjectFailed(PERMISSION, f"{what}: our user may not do this", hint="see to its ACL rules") from None
    except ResponseError as error:
        raise UnavailableError(f"{what}: the server answers {_word(error)}") from None
    except (Disconnected, TimedOut, RedisError, OSError) as error:
        raise UnavailableError(f"{what}: the server does not answer ({type(error).__name__})") from None


@contextmanager
def asking_all(what: str) -> Iterator[None]:
    """As `asking`, for what concerns the whole source: that it is denied us ends when a person sees to it."""
    try:
        with asking(what):
            yield
    except ObjectFailed as error:
        raise UnavailableError(f"{error.message}; {error.hint}", code=error.code) from None


def is_wrong_type(error: object) -> bool:
    """Whether an answer says that the key holds another type of value."""
    return isinstance(error, ResponseError) and str(error).startswith(WRONG_TYPE)


def _word(error: ResponseError) -> str:
    """The server's own code of an error."""
    first = str(error).partition(" ")[0]
    return first if first.isalpha() and first.isupper() else "an error"


@contextmanager
def checking_type(what: str, kind: str) -> Iterator[None]:
    """Raise UnavailableError where a queue's key holds something else: that ends when a person sees to it."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        raise UnavailableError(f"{what}: the key holds no {kind}", code="wrong_type") from None
