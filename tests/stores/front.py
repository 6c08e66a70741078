"""A real HTTP server before another one, which passes requests on and answers some of them itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.serving import Handler, serving

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

    class Fronting(Handler):
        def answered(self) -> None:
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

    with serving(Fronting) as url:
        made = Front(upstream, url + urlsplit(upstream).path)
        yield made
