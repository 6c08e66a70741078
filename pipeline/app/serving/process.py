"""The process of `labelfeed serve`: an HTTP server for links, metrics and health, until it is told to stop."""

from __future__ import annotations

import hmac
import logging
import socket
import threading
from importlib.metadata import version
from threading import Event

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline import logs
from pipeline.app.parts import open_feed
from pipeline.app.serving.objects import Feeds, Objects
from pipeline.app.serving.tokens import PATH, Links
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.metrics import Metrics
from pipeline.server import address

ROLE = "serve"
REQUESTS_LIMIT = 500
"""Requests under way at once; more are told to come again."""
KEEP_SECONDS = 15
LOOK_SECONDS = 0.5
STOP_SECONDS = 5.0
"""How much longer than `shutdown_timeout` the server may take to end."""

_log = logging.getLogger(__name__)


def serve(config: Config, stop: Event) -> None:
    """Answer links until `stop` is set; what is being sent then is finished within `shutdown_timeout`.

    Raises UsageError where no links are configured, or nothing can listen at `server.listen`.
    """
    if config.links is None:
        raise UsageError("serve answers links of our own: set links: with base_url: and key:")
    metrics = Metrics()
    metrics.set("build_info", 1, version=version("labelfeed"))
    sources = {source.name: source for source in config.sources}
    metrics.begin({ROLE}, sources)
    feeds = Feeds(frozenset(sources), lambda name: open_feed(config, sources[name]))
    objects = Objects(Links(config.links), feeds, config.links.ttl, metrics)
    token = config.server.token
    told = _Told(metrics, token.get_secret_value() if token else None)
    listening = _listen(config.server.listen)
    try:
        _run(_app(objects, told), listening, metrics, stop, config.shutdown_timeout)
    finally:
        listening.close()
        feeds.close()
        _log.info(logs.STOPPED)


def _app(objects: Objects, told: _Told) -> Starlette:
    return Starlette(
        routes=[
            Route(f"{PATH}{{token}}", objects.answer, methods=["GET", "HEAD", "OPTIONS"]),
            Route("/healthz", told.health),
            Route("/readyz", told.ready),
            Route("/metrics", told.metrics),
        ]
    )


def _run(app: Starlette, listening: socket.socket, metrics: Metrics, stop: Event, timeout: float) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            # A line for each request would hold its token.
            access_log=False,
            server_header=False,
            limit_concurrency=REQUESTS_LIMIT,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=max(1, int(timeout)),
        )
    )
    thread = threading.Thread(target=server.run, args=([listening],), name="serve")
    thread.start()
    host, port = listening.getsockname()[:2]
    _log.info(logs.LISTENING, extra={"host": host, "port": port})
    metrics.set("up", 1, role=ROLE)
    _log.info(logs.STARTED, extra={"roles": ROLE})
    while not stop.wait(LOOK_SECONDS) and thread.is_alive():
        """It works."""
    _log.info(logs.STOPPING)
    server.should_exit = True
    thread.join(timeout + STOP_SECONDS)


def _listen(listen: str) -> socket.socket:
    host, port = address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=socket.SOMAXCONN)
    except OSError as error:
        raise UsageError(f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}") from None


class _Told:
    """What the process says of itself; with a token, only to those who bear it."""

    def __init__(self, metrics: Metrics, token: str | None) -> None:
        self._metrics = metrics
        self._expected = None if token is None else f"Bearer {token}".encode()

    def health(self, _request: Request) -> Response:
        """It is alive."""
        return PlainTextResponse("ok\n")

    def ready(self, request: Request) -> Response:
        """It works as long as it answers: servers are asked only when a link needs them."""
        return self._refused(request) or JSONResponse({ROLE: None})

    def metrics(self, request: Request) -> Response:
        """The process's metrics."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._metrics.registry), headers={"Content-Type": kind})

    def _refused(self, request: Request) -> Response | None:
        sent = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if self._expected is None or hmac.compare_digest(sent, self._expected):
            return None
        return PlainTextResponse("a bearer token is needed\n", 401, headers={"WWW-Authenticate": "Bearer"})
