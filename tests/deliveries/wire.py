"""A proxy before a Label Studio that writes down every import, and can spoil answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import NamedTuple

import httpx

from tests.serving import Handler, serving

HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host"}


class Import(NamedTuple):
    """One import that came in whole: from its first byte to the last of its answer, by one clock."""

    begun: float
    ended: float
    tasks: int
    bytes: int
    status: int


class Answer(NamedTuple):
    """An answer; one of status 0 is none: the connection is closed instead."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, status: int, value: object, **headers: str) -> Answer:
        """One of JSON."""
        told = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, {"Content-Type": "application/json", **told}, json.dumps(value).encode())


Spoil = Callable[[Callable[[], Answer]], Answer]
"""What a client gets for an import, instead of what calling the argument (which lets it through) gives."""


@dataclass
class Wire:
    """What came by. `spoils` are used up, one an import."""

    target: str
    url: str = ""
    imports: list[Import] = field(default_factory=list)
    halves: int = 0
    spoils: list[Spoil] = field(default_factory=list)
    others: dict[str, Answer] = field(default_factory=dict)
    looked: threading.Event = field(default_factory=threading.Event)
    """Somebody has asked which tasks are there, and was answered."""

    def closest(self) -> float:
        """The shortest time between the end of one import and the beginning of the next, in seconds."""
        rows = sorted(self.imports)
        return min((after.begun - before.ended for before, after in pairwise(rows)), default=1e9)

    def spoilt(self, through: Callable[[], Answer]) -> Answer:
        """What a client gets for an import."""
        return self.spoils.pop(0)(through) if self.spoils else through()

    def other(self, path: str) -> Answer | None:
        """What a client gets for another question, if that is spoilt."""
        return next((one for part, one in self.others.items() if part in path), None)


def _kept(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in HOP}


def _answer(found: httpx.Response) -> Answer:
    return Answer(found.status_code, _kept(found.headers.items()), found.content)


def tell(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    """Answer a request."""
    if not answer.status:
        handler.close_connection = True
        return
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body)


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A proxy for as long as the block runs."""
    recorded = Wire(target)
    lock = threading.Lock()

    class Passing(Handler):
        def _through(self, body: bytes) -> Callable[[], Answer]:
            # What came is kept: by the time that it is let through the connection may bring something else.
            asked = client.build_request(self.command, self.path, content=body, headers=_kept(self.headers.items()))
            return lambda: _answer(client.send(asked))

        def answered(self) -> None:
            begun = time.monotonic()
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                recorded.halves += 1
                self.close_connection = True
                return
            if self.command == "POST" and "/import?" in self.path:
                self._import(begun, body)
            else:
                tell(self, recorded.other(self.path) or self._through(body)())
            if self.command == "GET" and self.path.startswith("/api/tasks?"):
                recorded.looked.set()

        def _import(self, begun: float, body: bytes) -> None:
            answer = recorded.spoilt(self._through(body))
            try:
                tell(self, answer)
            finally:  # whoever asked may be gone
                with lock:
                    made = Import(begun, time.monotonic(), len(json.loads(body)), len(body), answer.status)
                    recorded.imports.append(made)

    with httpx.Client(base_url=target, timeout=120, trust_env=False) as client, serving(Passing) as recorded.url:
        yield recorded
