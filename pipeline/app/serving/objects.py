"""`GET /o/<token>`: leads to a freshly signed URL where the store gives one, and else to the object's bytes.

The token is all that a client needs, and all that it is told: an answer names no path, no bucket and no error's text.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from mimetypes import MimeTypes
from typing import BinaryIO
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pipeline import logs
from pipeline.app.parts import Feed
from pipeline.app.serving.ranges import Span, asked, tag_of, unchanged
from pipeline.app.serving.tokens import Links
from pipeline.errors import LabelfeedError, ObjectFailed, ObjectGone, ObjectSkipped, RetriableError, UsageError
from pipeline.metrics import Metrics
from pipeline.stores import Entry, Reading

CHUNK_BYTES = 256 * 1024
RETRY_SECONDS = 5
"""What a client is told to wait where the storage doesn't say."""
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Range, If-Range, If-None-Match",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
    "Access-Control-Max-Age": "86400",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Whoever has a link may use it from any page: it is the link that gives the right."""
SAFE = {
    # What lies in storage is anybody's: nothing of it may run as a page of ours.
    "Content-Security-Policy": "default-src 'none'; sandbox; style-src 'unsafe-inline'; img-src data:; media-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}

_TYPES = MimeTypes()
for _type, _suffix in (
    ("audio/flac", ".flac"), ("audio/mp4", ".m4a"), ("audio/ogg", ".ogg"), ("image/webp", ".webp"),
    ("video/webm", ".webm"), ("application/jsonl", ".jsonl"),
):  # fmt: skip
    _TYPES.add_type(_type, _suffix)

_log = logging.getLogger(__name__)


class Objects:
    """Answers links. Thread-safe. `feeds` opens a source by its name, and raises KeyError where there is none;
    `ttl` is how many seconds the signed URL lives that a link leads to."""

    def __init__(self, links: Links, feeds: Callable[[str], Feed], ttl: float, metrics: Metrics) -> None:
        self._links = links
        self._feeds = feeds
        self._ttl = ttl
        self._metrics = metrics

    def answer(self, request: Request) -> Response:
        """The answer to one request."""
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=CORS)
        ref = self._links.read(request.path_params["token"])
        try:
            feed = self._feeds(ref.source) if ref is not None else None
        except KeyError:
            feed = None
        if ref is None or feed is None:
            return _told(404, "there is no such link")
        try:
            response, outcome = self._found(request, feed, ref.key)
        except LabelfeedError as error:
            response, outcome = _failed(error)
            extra = {"source": ref.source, "code": error.code, "error": str(error)}
            _log.warning(logs.LINK_FAILED, extra=extra)
            self._metrics.add("errors_total", stage="link", code=error.code)
        self._metrics.add("links_total", source=ref.source, outcome=outcome)
        return response

    def _found(self, request: Request, feed: Feed, key: str) -> tuple[Response, str]:
        if request.method == "GET" or getattr(feed.store, "by_reference", False):
            try:
                url = feed.store.sign(key, self._ttl)
            except UsageError:
                """There is no URL for it but ours."""
            else:
                lives = {"Cache-Control": f"private, max-age={int(self._ttl / 2)}"}
                return RedirectResponse(url, 302, headers=CORS | lives), "redirected"
        return self._head(request, feed, key) if request.method == "HEAD" else self._body(request, feed, key)

    def _head(self, request: Request, feed: Feed, key: str) -> tuple[Response, str]:
        entry = feed.store.head(key)
        if entry is None:
            raise ObjectGone("the store no longer has it")
        if unchanged(request.headers, tag_of(entry.version)):
            return Response(status_code=304, headers=_headers(entry)), "unchanged"
        return Response(headers=_headers(entry) | {"Content-Length": str(entry.size)}), "streamed"

    def _body(self, request: Request, feed: Feed, key: str) -> tuple[Response, str]:
        with ExitStack() as stack:
            reading = stack.enter_context(feed.store.open(key))
            entry, headers = reading.entry, _headers(reading.entry)
            tag = headers["ETag"]
            if unchanged(request.headers, tag):
                return Response(status_code=304, headers=headers), "unchanged"
            size = entry.size if reading.content is None else len(reading.content)
            span = asked(request.headers, tag, size)
            if span is None:
                return _told(416, "there are no such bytes", {"Content-Range": f"bytes */{size}"}), "streamed"
            headers["Content-Length"] = str(span.end - span.start)
            if not span.whole:
                headers["Content-Range"] = span.header
            body = _bytes(reading, span)
            return Streamed(body, stack.pop_all(), 200 if span.whole else 206, headers), "streamed"


class Streamed(StreamingResponse):
    """An object's bytes; what was opened for them is closed however the answer ends."""

    def __init__(
        self, body: Generator[bytes, None, None], stack: ExitStack, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(body, status, dict(headers), headers["Content-Type"])
        self._body = body
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._close)

    def _close(self) -> None:
        self._body.close()
        try:
            self._stack.close()
        except LabelfeedError as error:
            _log.warning(logs.LINK_FAILED, extra={"code": error.code, "error": str(error)})


def _bytes(reading: Reading, span: Span) -> Generator[bytes, None, None]:
    if reading.content is not None:
        yield reading.content[span.start : span.end]
        return
    with reading.stream() as stream:
        _skip(stream, span.start)
        left = span.end - span.start
        while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def _skip(stream: BinaryIO, count: int) -> None:
    if stream.seekable():
        stream.seek(count)
        return
    while count and (chunk := stream.read(min(CHUNK_BYTES, count))):
        count -= len(chunk)


def _headers(entry: Entry) -> dict[str, str]:
    name = entry.key.partition("?")[0].rpartition("/")[2] or "object"
    kind, encoding = _TYPES.guess_type(name, strict=False)
    if kind is None or encoding is not None:
        kind = "application/octet-stream"
    about = {
        "Content-Type": kind,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
        "ETag": tag_of(entry.version),
    }
    return CORS | SAFE | about


def _failed(error: LabelfeedError) -> tuple[Response, str]:
    if isinstance(error, ObjectGone):
        return _told(404, "the object is no longer there"), "missing"
    if isinstance(error, RetriableError):
        wait = {"Retry-After": str(int(error.retry_after or RETRY_SECONDS) or 1)}
        return _told(503, "the storage does not answer; try again", wait), "failed"
    if isinstance(error, ObjectFailed | ObjectSkipped):
        return _told(403, "the object cannot be read"), "failed"
    return _told(500, "the object cannot be given"), "failed"


def _told(status: int, text: str, more: Mapping[str, str] | None = None) -> Response:
    headers = CORS | {"Cache-Control": "no-store"} | dict(more or {})
    return PlainTextResponse(text + "\n", status, headers=headers)


class Feeds:
    """Sources, each opened when it is first asked for. Thread-safe."""

    def __init__(self, names: frozenset[str], open_feed: Callable[[str], Feed]) -> None:
        self._names = names
        self._open = open_feed
        self._lock = threading.Lock()
        self._opened: dict[str, Feed] = {}

    def __call__(self, name: str) -> Feed:
        """The source of this name. Raises KeyError if there is none, and what opening its store raises."""
        if name not in self._names:
            raise KeyError(name)
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def close(self) -> None:
        """Let go of all stores."""
        with self._lock:
            for feed in self._opened.values():
                feed.store.close()
            self._opened.clear()
