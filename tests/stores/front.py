"""A real HTTP server before another one, which passes requests on and answers some of them itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Answer(NamedTuple):
    """A status, a body, and headers."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()


class Asked(NamedTuple):
    """A request: `target` is path and query as they came, names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Front:
    """The server at work: `url` is where, `asked` the requests so far, each its method and target.

    `fault` and `guard` give what it answers itself, the latter by the whole request; `rewrite` changes a target
    before it is passed on, `edit` an answer on its way back.
    """

    def __init__(self, upstream: str, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], Answer | None] = lambda _method, _target: None
        self.guard: Callable[[Asked], Answer | None] = lambda _asked: None
        self.rewrite: Callable[[str], str] = lambda target: target
        self.edit: Callable[[Asked, Answer], Answer] = lambda _asked, answer: answer
        self._upstream = urlsplit(upstream)

    def answer(self, handler: BaseHTTPRequestHandler) -> Answer:
        """What to say to a request."""
        method, target = handler.command, handler.path
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.asked.append((method, target))
        headers = dict(handler.headers.items())
        whole = Asked(method, target, {name.lower(): value for name, value in headers.items()}, body)
        own = self.fault(method, target) or self.guard(whole)
        return own or self.edit(whole, self._passed_on(method, target, body, headers))

    def _passed_on(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=30)
        try:
            connection.request(method, self.rewrite(target), body, headers)
            got = connection.getresponse()
            return Answer(got.status, got.read(), got.getheaders())
        finally:
            connection.close()


@contextmanager
def front_of(upstream: str) -> Iterator[Front]:
    """A server before the one at `upstream`, with the same path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = made.answer(self)
            self.send_response_only(answer.status)
            lengths = [value for name, value in answer.headers if name.lower() == "content-length"]
            for name, value in answer.headers:
                if name.lower() not in _OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", lengths[0] if lengths else str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Front(upstream, f"http://127.0.0.1:{server.server_port}{urlsplit(upstream).path}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
