"""How bytes go over the wire: to checked addresses only, and in bounded time."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import httpcore
import httpx

from pipeline.errors import ObjectFailed
from pipeline.stores.http.addresses import Guard
from pipeline.stores.http.bounds import CONNECTIONS_LIMIT, Bounds

IDLE_SECONDS = 30.0
"""An unused connection is kept for so long."""

_HEAD_END = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d")


class Wire(httpcore.NetworkStream):
    """A connection whose answers must come in time: each head within `head_seconds`, each body no slower than
    `slowest_rate`, however its bytes are dripped.
    """

    def __init__(self, inner: httpcore.NetworkStream, bounds: Bounds) -> None:
        self._inner = inner
        self._bounds = bounds
        self._waited = 0.0
        self._head: bytes | None = b""
        self._body = 0

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; an answer is awaited from then on."""
        if buffer:
            self._waited, self._head, self._body = 0.0, b"", 0
        self._inner.write(buffer, timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive. Raises httpcore.ReadTimeout once the answer has taken too long as a whole."""
        left = self._left()
        if left <= 0:
            raise httpcore.ReadTimeout("it sends too slowly")
        began = time.monotonic()
        data = self._inner.read(max_bytes, left if timeout is None else min(left, timeout))
        self._waited += time.monotonic() - began
        self._count(data)
        return data

    def _left(self) -> float:
        if self._head is not None:
            return self._bounds.head_seconds - self._waited
        return self._bounds.grace_seconds + self._body / self._bounds.slowest_rate - self._waited

    def _count(self, data: bytes) -> None:
        if self._head is None:
            self._body += len(data)
            return
        self._head += data
        while (end := _HEAD_END.search(self._head)) is not None:
            rest = self._head[end.end() :]
            if _INTERIM.match(self._head) is None:
                self._head, self._body, self._waited = None, len(rest), 0.0
                return
            self._head = rest

    def surplus(self, length: int) -> bool:
        """Whether more than a body of `length` has come, or waits to be read."""
        return self._body > length or self._waiting()

    def _waiting(self) -> bool:
        plain = self._inner.get_extra_info("socket")
        if isinstance(plain, ssl.SSLSocket):
            return plain.pending() > 0
        # Each read sets a timeout of its own.
        plain.settimeout(0)
        try:
            return bool(plain.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Wire:
        """The same connection, encrypted."""
        return Wire(self._inner.start_tls(ssl_context, server_hostname, timeout), self._bounds)

    def get_extra_info(self, info: str) -> Any:
        """As the connection itself has it."""
        return self._inner.get_extra_info(info)


class Network(httpcore.NetworkBackend):
    """Resolves a name once, and connects to an address that the guard has seen."""

    def __init__(self, guard: Guard, bounds: Bounds) -> None:
        self._guard = guard
        self._bounds = bounds
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> Wire:
        """A connection to one of the host's allowed addresses. Raises ObjectFailed (`private_address`) if none is."""
        failure: Exception = httpcore.ConnectError("it has no address")
        for address in self._allowed(host, port):
            try:
                plain = self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return Wire(plain, self._bounds)
        raise failure

    def _allowed(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("its name cannot be resolved") from None
        addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
        allowed = [address for address in addresses if self._guard.allows(address)]
        if addresses and not allowed:
            raise ObjectFailed(
                "private_address",
                f"{host} is at a private address, where nothing is asked for",
                hint="if it is meant: allow_private: true on the source, or --allow-private",
            )
        return allowed


_tls = cache(httpx.create_ssl_context)
"""Reads the certificates of authorities once."""


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class Transport(httpx.BaseTransport):
    """httpx over a pool of such connections. Its errors are httpcore's."""

    def __init__(self, guard: Guard, bounds: Bounds) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=CONNECTIONS_LIMIT,
            max_keepalive_connections=CONNECTIONS_LIMIT,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=Network(guard, bounds),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request, one answer."""
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = self._pool.handle_request(asked)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
