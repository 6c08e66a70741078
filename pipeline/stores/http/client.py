"""Requests: redirects followed by hand, credentials to their own hosts only, answers as our errors."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from pipeline.errors import (
    LabelfeedError,
    ObjectFailed,
    ObjectGone,
    ObjectUnsettled,
    RetriableError,
    UnavailableError,
    UsageError,
)
from pipeline.stores.http.addresses import Guard
from pipeline.stores.http.bounds import Bounds
from pipeline.stores.http.transport import Transport, Wire
from pipeline.stores.http.urls import canonical, parsed, same_origin, without_user

REDIRECTS = frozenset({301, 302, 303, 307, 308})
GONE = frozenset({404, 410})
DENIED = frozenset({401, 403, 407, 451})
LATER = frozenset({408, 425, 429})
NOT_MODIFIED = 304
CHANGED = 412
SERVER_ERROR = 500
RETRY_AFTER_LIMIT = 3600.0
MESSAGE_CHARACTERS = 200
"""How much of what the HTTP library says is repeated."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is sent to the source's own host, and to the other `hosts` that are named; to nobody else."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: httpx.URL | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()

    def headers_for(self, url: httpx.URL) -> Mapping[str, str]:
        """The headers that go with a request; a URL's own user and password count for that URL."""
        if url.userinfo:
            return {"Authorization": basic(url.username, url.password)}
        return self.headers if self.covers(url) else {}

    def covers(self, url: httpx.URL) -> bool:
        """Whether this URL is asked for with credentials."""
        ours = self.url is not None and same_origin(url, self.url)
        return bool(self.headers) and (ours or url.host in self.hosts or url.netloc.decode() in self.hosts)


def basic(user: str, password: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Client:
    """Asks HTTP servers. Thread-safe. No error of it names more of a URL than its canonical form."""

    def __init__(self, guard: Guard, credentials: Credentials, bounds: Bounds) -> None:
        self.bounds = bounds
        self._credentials = credentials
        timeout = httpx.Timeout(bounds.head_seconds + bounds.grace_seconds, connect=bounds.connect_seconds)
        self._client = httpx.Client(
            transport=Transport(guard, bounds),
            timeout=timeout,
            trust_env=False,
            headers={"User-Agent": "labelfeed", "Accept": "*/*", "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    @contextmanager
    def answer(
        self, method: str, url: httpx.URL, headers: Mapping[str, str] | None = None, also: frozenset[int] = frozenset()
    ) -> Iterator[httpx.Response]:
        """The answer after redirects, its body not yet read; closed at the end of the block.

        `also` are statuses that are given like success, which is any of 200 to 299. Raises ObjectGone,
        ObjectFailed, ObjectUnsettled (where a condition does not hold) and UnavailableError.
        """
        uri = canonical(url)
        with converted(uri):
            response = self._followed(method, url, headers or {})
            try:
                if not (response.is_success or response.status_code in also):
                    raise _of_status(uri, response)
                yield response
            finally:
                response.close()

    def _followed(self, method: str, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        first = url
        for _ in range(self.bounds.redirects + 1):
            response = self._sent(method, url, headers)
            if response.status_code not in REDIRECTS or "location" not in response.headers:
                return response
            location = response.headers["location"]
            response.close()
            url = _target(first, url, location)
        raise ObjectFailed("bad_redirect", f"{canonical(first)} redirects more than {self.bounds.redirects} times")

    def _sent(self, method: str, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        all_headers = {**headers, **self._credentials.headers_for(url)}
        request = self._client.build_request(method, without_user(url), headers=all_headers)
        try:
            return self._client.send(request, stream=True)
        except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
            # A kept connection may have been closed just now: once more, by another one.
            return self._client.send(request, stream=True)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _target(first: httpx.URL, url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = parsed(str(url.join(location)))
    except (ValueError, httpx.InvalidURL):
        raise ObjectFailed("bad_redirect", f"{canonical(first)} redirects to what is no http(s) URL") from None
    if url.scheme == "https" and target.scheme == "http":
        raise ObjectFailed("bad_redirect", f"{canonical(first)} redirects from https to http")
    return without_user(target)


@contextmanager
def converted(uri: str) -> Iterator[None]:
    """Turn the errors of the HTTP library into ours."""
    try:
        yield
    except LabelfeedError:
        raise
    except httpcore.TimeoutException as error:
        why = str(error) or "it does not answer in time"
        raise UnavailableError(f"{uri}: {why[:MESSAGE_CHARACTERS]}") from None
    except httpcore.RemoteProtocolError as error:
        raise UnavailableError(f"{uri}: the server breaks off or breaks the rules: {_said(error)}") from None
    except (httpcore.NetworkError, httpcore.UnsupportedProtocol, OSError) as error:
        raise UnavailableError(f"{uri}: no connection: {_said(error)}") from None
    except (httpcore.LocalProtocolError, httpx.InvalidURL, UnicodeError):
        # Its text may quote a header's value.
        raise UsageError(f"{uri}: the request cannot be written; is there a line break in a header?") from None
    except (httpx.HTTPError, httpx.StreamError, httpcore.ProtocolError) as error:
        raise UnavailableError(f"{uri}: {type(error).__name__}") from None


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:MESSAGE_CHARACTERS]


def _of_status(uri: str, response: httpx.Response) -> LabelfeedError:
    status = response.status_code
    if status in GONE:
        return ObjectGone(f"{uri} is not there: the server answers {status}")
    if status in DENIED:
        return ObjectFailed(
            "permission", f"{uri}: the server answers {status}", hint="check the credentials: http: on the source"
        )
    if status == CHANGED:
        return ObjectUnsettled(f"{uri} changed while it was read")
    if status == SERVER_ERROR:
        # Of this file, not of the server: it is not tried for hours.
        return RetriableError(f"{uri}: the server answers {status}", code=UnavailableError.code)
    if status in LATER or status > SERVER_ERROR:
        return UnavailableError(f"{uri}: the server answers {status}", retry_after=_retry_after(response))
    return ObjectFailed("http_status", f"{uri}: the server answers {status}")


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)


def surplus(response: httpx.Response, length: int) -> bool:
    """Whether more came after a body of the announced length; then its connection is of no further use."""
    wire = response.extensions.get("network_stream")
    if isinstance(wire, Wire) and wire.surplus(length):
        wire.close()
        return True
    return False
