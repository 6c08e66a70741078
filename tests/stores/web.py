"""A real HTTP server on loopback whose answers a test decides, down to lies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

Answering = Callable[["Handler"], None]


class Asked(NamedTuple):
    """A request that the server got: method, path with query, headers by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]


class File(NamedTuple):
    """A file that is served, with the headers that tell its version."""

    content: bytes
    headers: Mapping[str, str] = {}


@dataclass
class Site:
    """What a server serves: files by path (not percent-encoded), or answers of a test's own making."""

    host: str = "127.0.0.1"
    port: int = 0
    files: dict[str, File | Answering] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    validators: str = "etag"
    token: str | None = None

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def put(self, path: str, content: bytes | str, **headers: str) -> None:
        """Serve a file, with an ETag or what else `validators` says."""
        body = content.encode() if isinstance(content, str) else content
        made: dict[str, str] = {}
        if self.validators == "etag":
            made["ETag"] = f'"{sha256(body).hexdigest()[:16]}"'
        elif self.validators == "modified":
            # A clock of its own: each file that is put is a minute younger, and all of them are old.
            made["Last-Modified"] = formatdate(1_700_000_000 + 60 * len(self.asked) + 60 * len(self.files), usegmt=True)
        self.files[path] = File(body, made | {name.replace("_", "-"): value for name, value in headers.items()})

    def answer(self, path: str, answering: Answering) -> None:
        """Let a test answer."""
        self.files[path] = answering

    def paths(self, method: str) -> list[str]:
        """The paths that were asked for by a method."""
        return [one.path for one in self.asked if one.method == method]


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Answer a request."""
        site = self.server.site
        site.asked.append(Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        found = site.files.get(self.path) or site.files.get(unquote(self.path.partition("?")[0]))
        if site.token is not None and self.headers.get("Authorization") != site.token:
            self.reply(401)
        elif found is None:
            self.reply(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        elif isinstance(found, File):
            self._file(found)
        else:
            found(self)

    def do_HEAD(self) -> None:
        """Answer a request without a body."""
        self.do_GET()

    def _file(self, file: File) -> None:
        tag = file.headers.get("ETag")
        if (tag is not None and self.headers.get("If-None-Match") == tag) or (
            tag is None
            and "Last-Modified" in file.headers
            and self.headers.get("If-Modified-Since") == file.headers["Last-Modified"]
        ):
            self.reply(304, b"", file.headers)
        elif self.headers.get("If-Match", tag) != tag:
            self.reply(412)
        else:
            self.reply(200, file.content, {"Content-Type": "application/octet-stream"} | dict(file.headers))

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole, honest answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)

    def raw(self, *pieces: bytes) -> None:
        """Bytes as they are; the connection ends after them."""
        for piece in pieces:
            self.wfile.write(piece)
        self.close_connection = True

    def redirect(self, location: str) -> None:
        """Lead elsewhere."""
        self.reply(302, b"", {"Location": location})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """One site's server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ended = threading.Event()
        super().__init__((site.host, site.port), Handler)
        site.port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The site, served."""
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
