"""The HTTP server: what it tells, to whom."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import orjson
import pytest

from pipeline.errors import UsageError
from pipeline.metrics import Metrics
from pipeline.server import Server, address


@contextmanager
def serving(
    ready: Callable[[], Mapping[str, str | None]] = dict, token: str | None = None
) -> Iterator[tuple[Metrics, Callable[..., tuple[int, bytes]]]]:
    """A server on a free port, and how to ask it."""
    metrics = Metrics()
    server = Server("127.0.0.1:0", metrics, ready, token)

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    try:
        yield metrics, ask
    finally:
        server.close()


def test_metrics() -> None:
    """/metrics gives the process's own metrics in Prometheus's text."""
    with serving() as (metrics, ask):
        metrics.add("written_tasks_total", 3, source="inbox")
        status, body = ask("/metrics")

    assert status == 200
    assert b'labelfeed_written_tasks_total{source="inbox"} 3.0' in body


def test_ready() -> None:
    """/readyz is 503 with the reason while a role waits, and 200 again after."""
    roles: dict[str, str | None] = {"work": "the database does not answer", "watch": None}
    with serving(lambda: roles) as (_, ask):
        waiting = ask("/readyz")
        roles["work"] = None
        working = ask("/readyz")

    assert (waiting[0], orjson.loads(waiting[1])["work"]) == (503, "the database does not answer")
    assert working[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/else"])
def test_token(path: str) -> None:
    """With a token, everything but /healthz needs it."""
    with serving(token="hush") as (_, ask):
        assert ask("/healthz")[0] == 200
        assert ask(path)[0] == 401
        assert ask(path, Authorization="Bearer wrong")[0] == 401
        assert ask(path, Authorization="hush")[0] == 401
        assert ask(path, Authorization="Bearer hush")[0] != 401


def test_else() -> None:
    """Other paths are not found, HEAD has no body, other methods are refused."""
    with serving() as (_, ask):
        assert ask("/")[0] == 404
        assert ask("/healthz", "HEAD") == (200, b"")
        assert ask("/metrics", "POST")[0] == 501


def test_address_in_use() -> None:
    """An address that is taken, or is none, is an error of use, not a traceback."""
    server = Server("127.0.0.1:0", Metrics(), dict)
    try:
        with pytest.raises(UsageError, match="cannot listen"):
            Server(f"127.0.0.1:{server.port}", Metrics(), dict)
    finally:
        server.close()
    assert address("[::1]:80") == ("::1", 80)
    for wrong in ("localhost", "host:port", "host:99999", ""):
        with pytest.raises(UsageError):
            address(wrong)
