"""Questions to a Label Studio over HTTP: authorization, and what an answer means for who asked."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from pipeline.errors import BatchRefused, BatchUnsure, UnavailableError

CONNECT_SECONDS = 10.0
ASK_SECONDS = 60.0
"""How long a Label Studio may take with each step of a request: to take the next part of it in, and to answer. All of
them together are within `pipeline.sinks.CHANGE_SECONDS`."""
PART_BYTES = 64 * 1024
"""An import's body goes out in parts of this size; before each of them the sender makes sure that it may still send."""
ACCESS_SECONDS = 240.0
"""An access token lives for five minutes as a rule; a new one is asked for before, and where one is refused earlier."""
LONGEST_RETRY_SECONDS = 3600.0
"""A longer `Retry-After` is taken for this: a proxy's slip is not to stop a delivery for days."""
REASON_LIMIT = 2000
"""Characters of an answer that an error keeps."""

_OK, _UNAUTHORIZED, _FORBIDDEN, _MISSING, _TOO_MANY = 200, 401, 403, 404, 429
_MOVED, _SERVER = 300, 500
_REFUSALS = frozenset({400, 413, 422})
"""What a Label Studio, or a proxy that bounds bodies, answers of what was sent: it is bad or too large."""
_REFUSALS_OF_ONE = _REFUSALS | {406, 409, 410, 415, 423, 451}
"""What can only be about the one task that a request changes."""
_NOT_TAKEN = frozenset({401, 403, 404, 405, 407, 410, 411, 414, 415, 417, 421, 425, 426, 428, 429, 431, 451})
"""What is answered before a request is looked into: for want of a right, a header or a moment. All others (such as 408,
409 and 499) some proxies answer also of requests that they have let through."""
_REFUSING = {
    _UNAUTHORIZED: ("unauthorized", "refuses the token"),
    _FORBIDDEN: ("forbidden", "lets this user not do that"),
    _MISSING: ("no_project", "has no such project, or none that this user may see"),
}


class Client:
    """A Label Studio at a URL, with a token of either kind. Used by one thread at a time."""

    def __init__(self, url: str, token: str, timeout: float, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._refreshes = _is_personal(self._token)
        self._access = ""
        self._access_until = 0.0
        self._timeout = timeout
        self._http = httpx.Client(base_url=self.url, transport=transport, follow_redirects=False)

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def ask(self, path: str, *, missing: bool = False, **how: Any) -> Any:
        """The JSON of an answer to a question; with `missing`, None where it is a Label Studio's own 404, which is in
        JSON. Raises UnavailableError where there is no answer, or one that is none: of what was sent before, it says
        nothing."""
        try:
            return self._told(lambda: self._requested("GET", path, self._headers(), how), _REFUSALS, missing=missing)
        except BatchRefused as error:
            raise UnavailableError(f"{self.url} refuses a question: {error}", code="refused") from None

    def tell(
        self, method: str, path: str, ready: Callable[[], None], *, value: object = None, missing: bool = False
    ) -> Any:
        """The JSON of an answer to a request that changes one task, and may be made again; with `missing`, None
        as in `ask`. `ready` is called when all that comes before it is over, and before each part of it.

        Raises:
            UnavailableError: no answer, or one that says that it cannot be had now, or not by us.
            BatchRefused: it refuses what it was told.
        """
        body = b"" if value is None else orjson.dumps(value)

        def request() -> httpx.Response:
            headers = self._headers()
            ready()
            if not body:
                return self._requested(method, path, headers, {})
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
            return self._requested(method, path, headers, {"content": _guarded(_cut(body), ready)})

        return self._told(request, _REFUSALS_OF_ONE, missing=missing)

    def _told(self, request: Callable[[], httpx.Response], refusals: frozenset[int], *, missing: bool) -> Any:
        answer = request()
        if answer.status_code == _UNAUTHORIZED and self._refreshes:
            self._access_until = 0.0
            answer = request()
        if missing and answer.status_code == _MISSING and _document(answer):
            return None
        return self._read(answer, refusals)

    def _requested(self, method: str, path: str, headers: Mapping[str, str], how: Mapping[str, Any]) -> httpx.Response:
        try:
            return self._http.request(method, path, headers=headers, timeout=_times(ASK_SECONDS), **how)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{self.url} does not answer: {_named(error)}") from None

    def post(self, path: str, parts: Sequence[bytes], ready: Callable[[], None]) -> Any:
        """Post JSON in several parts; once, and where its access token is refused, so that nothing was taken, with a
        fresh one while there is time. Gives the answer's JSON.

        Raises:
            UnavailableError: it surely was not taken.
            BatchUnsure: it may have been.
            BatchRefused: it was refused.
        """
        answer = self._posted(path, parts, ready)
        if answer.status_code == _UNAUTHORIZED and self._refreshes:
            answer = self._posted(path, parts, ready)
        if not (_OK <= answer.status_code < _MOVED or answer.status_code in _REFUSALS | _NOT_TAKEN):
            # Some of its errors come after the import itself was committed, and a proxy knows nothing of it.
            raise BatchUnsure(
                f"{self.url} answered {answer.status_code} to an import: {_reason(answer)}",
                retry_after=_retry_after(answer),
                code="server_error",
            )
        try:
            return self._read(answer)
        except _NotJson as error:
            raise BatchUnsure(str(error), code="no_json") from None

    def _posted(self, path: str, parts: Sequence[bytes], ready: Callable[[], None]) -> httpx.Response:
        headers = self._headers()
        headers |= {"Content-Type": "application/json", "Content-Length": str(sum(map(len, parts)))}
        ready()
        try:
            answer = self._http.post(
                path, content=_guarded(parts, ready), headers=headers, timeout=_times(self._timeout)
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnavailableError(f"{self.url} does not answer: {_named(error)}") from None
        except httpx.HTTPError as error:
            raise BatchUnsure(f"{self.url} did not answer for an import: {_named(error)}", code="no_answer") from None
        if answer.status_code == _UNAUTHORIZED:
            self._access_until = 0.0
        return answer

    def _headers(self) -> dict[str, str]:
        if not self._refreshes:
            return {"Authorization": f"Token {self._token}"}
        if time.monotonic() >= self._access_until:
            self._refresh()
        return {"Authorization": f"Bearer {self._access}"}

    def _refresh(self) -> None:
        try:
            answer = self._http.post("/api/token/refresh/", json={"refresh": self._token}, timeout=_times(ASK_SECONDS))
        except httpx.HTTPError as error:
            raise UnavailableError(f"{self.url} does not answer: {_named(error)}") from None
        try:
            told = self._read(answer)
        except BatchRefused:
            raise UnavailableError(f"{self.url} gives no access for the token", code="unauthorized") from None
        if not isinstance(told, Mapping) or not isinstance(told.get("access"), str):
            raise UnavailableError(f"{self.url} gave no access token", code="unauthorized")
        self._access, self._access_until = told["access"], time.monotonic() + ACCESS_SECONDS

    def _read(self, answer: httpx.Response, refusals: frozenset[int] = _REFUSALS) -> Any:
        status = answer.status_code
        if status in _REFUSING:
            code, what = _REFUSING[status]
            raise UnavailableError(f"{self.url} {what} ({status})", retry_after=_retry_after(answer), code=code)
        if status == _TOO_MANY:
            raise UnavailableError(
                f"{self.url} takes no more for now (429)", retry_after=_retry_after(answer), code="too_many"
            )
        if status in refusals:
            raise BatchRefused(_reason(answer), _reasons(answer))
        if not _OK <= status < _MOVED:
            code = "refused" if _MOVED <= status < _SERVER else "server_error"
            raise UnavailableError(
                f"{self.url} answered {status}: {_reason(answer)}", retry_after=_retry_after(answer), code=code
            )
        try:
            found = orjson.loads(answer.content or b"{}")
        except orjson.JSONDecodeError:
            raise _NotJson(f"{self.url} answered {status} with something that is no JSON", code="no_json") from None
        return {} if found is None else found


class _NotJson(UnavailableError):
    """An answer that cannot be read: what answered may be no Label Studio at all."""


def _cut(body: bytes) -> Iterator[bytes]:
    return (body[first : first + PART_BYTES] for first in range(0, len(body), PART_BYTES))


def _guarded(parts: Iterable[bytes], ready: Callable[[], None]) -> Iterator[bytes]:
    """A body in parts, none of which begins after it is too late: what a stopped process had left to send then is
    never sent, and half a body is no import."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= PART_BYTES:
            for piece in _cut(b"".join(held)):
                ready()
                yield piece
            held, size = [], 0
    ready()
    yield b"".join(held)


def _times(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS), pool=CONNECT_SECONDS)


def _is_personal(token: str) -> bool:
    """Whether a token is a JSON Web Token, as personal access tokens are."""
    head, _, rest = token.partition(".")
    if rest.count(".") != 1:
        return False
    try:
        return b'"alg"' in base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except (binascii.Error, ValueError):
        return False


def _named(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait, by either of the header's forms, as far as that is obeyed."""
    text = answer.headers.get("Retry-After", "")
    try:
        digits = text.isascii() and text.isdigit()
        wait = float(text) if digits else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait), LONGEST_RETRY_SECONDS)


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _reason(answer: httpx.Response) -> str:
    """What an answer says is wrong, in its own words."""
    document = _document(answer)
    found = document.get("validation_errors") or document.get("detail") or document.get("error")
    if isinstance(found, Mapping):
        found = next(iter(found.values()), "")
    if isinstance(found, list):
        found = next((text for text in found if isinstance(text, str)), found)
    text = found if isinstance(found, str) else answer.reason_phrase if not found else str(found)
    return (text or f"status {answer.status_code}")[:REASON_LIMIT]


def _reasons(answer: httpx.Response) -> dict[int, str]:
    """The tasks that a refusal names, by their place: it lists as many as it has looked at, good ones empty."""
    errors = _document(answer).get("validation_errors")
    listed = errors.get("non_field_errors") if isinstance(errors, Mapping) else None
    if not isinstance(listed, list):
        return {}
    found = {}
    for text in listed:
        if isinstance(text, str) and " at item " in text:
            number, _, _ = text.partition(" at item ")[2].partition(":")
            if number.isdecimal():
                found[int(number)] = text[:REASON_LIMIT]
    return found
