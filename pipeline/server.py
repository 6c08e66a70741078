"""The HTTP server of a continuous process: /metrics, /healthz, /readyz. Loopback unless told otherwise."""

from __future__ import annotations

import errno
import hmac
import http.client
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import orjson
from prometheus_client.exposition import choose_encoder

from pipeline.errors import UsageError
from pipeline.logs import NOT_LISTENING, REQUEST_FAILED
from pipeline.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""A client that sends nothing for so long is let go."""
STOP_SECONDS = 5.0
LOOK_SECONDS = 2.0
"""How long `check` waits for who listens where we want to."""
NAME = "labelfeed"
"""What the server calls itself."""

Ready = Callable[[], Mapping[str, str | None]]
"""Role → None while it works, or why it waits."""
Concerns = Callable[[], Sequence[str]]
"""What works but should be mended, a sentence each."""


class Server:
    """Serves a process's metrics and health from its own threads until it is closed."""

    def __init__(
        self, listen: str, metrics: Metrics, ready: Ready, token: str | None = None, concerns: Concerns = tuple
    ) -> None:
        """Listen at `host:port` (port 0: any free one); raises UsageError where that cannot be.

        With a token every request but /healthz must bear it.
        """
        try:
            self._server = _HTTPServer(address(listen), _Told(metrics, ready, token, concerns))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            log.error(NOT_LISTENING, extra={"listen": listen, "error": why})  # noqa: TRY400 - a person needs no traceback
            raise UsageError(f"cannot listen on {listen}: {why}") from error
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_SECONDS)


def address(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:9108`, `:9108` (every address) or `[::1]:9108`. Raises UsageError."""
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port there is
        raise UsageError(f"server.listen {listen!r} is no address; write it like 127.0.0.1:9108")
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the server tells, and to whom."""

    metrics: Metrics
    ready: Ready
    token: str | None
    concerns: Concerns


def look(listen: str) -> str:
    """One sentence on whether this process could listen there. Raises UsageError if another program does."""
    host, port = address(listen)
    if not port:
        return "any free port"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}") from error
        else:
            return f"{listen} is free"
    if not _is_ours(host or "localhost", port):
        raise UsageError(f"{listen} is taken by another program; set server.listen or --listen")
    return f"a Labelfeed process listens on {listen}"


def _is_ours(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=LOOK_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().headers.get("Server", "").startswith(NAME)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, where: tuple[str, int], told: _Told) -> None:
        self.told = told
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        super().__init__(where, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's
        log.debug(REQUEST_FAILED, exc_info=True)  # noqa: LOG014 - called while the error is handled


class _Handler(BaseHTTPRequestHandler):
    server: _HTTPServer
    timeout = REQUEST_SECONDS
    server_version = NAME
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(200, b"ok\n")
        elif not self._allowed():
            self._answer(401, b"a bearer token is needed\n", {"WWW-Authenticate": "Bearer"})
        elif path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.told.metrics.registry), {"Content-Type": kind})
        elif path == "/readyz":
            self._answer_ready()
        else:
            self._answer(404, b"/metrics, /healthz, /readyz\n")

    def do_HEAD(self) -> None:
        """Answer one request, without a body."""
        self.do_GET()

    def _answer_ready(self) -> None:
        told: dict[str, object] = dict(self.server.told.ready())
        waits = any(why is not None for why in told.values())
        if concerns := list(self.server.told.concerns()):
            told["concerns"] = concerns
        self._answer(503 if waits else 200, orjson.dumps(told) + b"\n", {"Content-Type": "application/json"})

    def _allowed(self) -> bool:
        token = self.server.told.token
        if token is None:
            return True
        sent = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(sent, f"Bearer {token}".encode())

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "text/plain; charset=utf-8"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing of each request."""
