"""Small questions to a server, to learn whether it is the one that we think and whether it works yet."""

from __future__ import annotations

import socket
from http.client import HTTPConnection, HTTPException

from deploy.services.model import HOST

PROBE_SECONDS = 2.0


def http(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET; (0, "") if nothing that speaks HTTP answers."""
    connection = HTTPConnection(HOST, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()


def exchange(port: int, request: bytes, at_least: int = 1) -> bytes:
    """What a server answers to some bytes, b"" if nothing comes; waits for `at_least` bytes."""
    answer = b""
    try:
        with socket.create_connection((HOST, port), PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(request)
            while len(answer) < at_least:
                part = connection.recv(4096)
                if not part:
                    break
                answer += part
    except OSError:
        return b""
    return answer
