"""Keyspace notifications, as a server has them configured: which are on, which are missing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import ResponseError

SETTING = "notify-keyspace-events"
NEEDED = "K$hgxe"
"""Keyspace events (K) of strings, hashes, deletions and renamings, expiry and eviction."""
ALL = "g$lshzxetd"
"""What the server's A stands for."""
PATTERN_SIGNS = b"*?[]\\^"


def flags(client: redis.Redis) -> str | None:
    """What is on; None if we may not ask. Raises what the client raises."""
    with suppress(ResponseError):
        found: Any = client.config_get(SETTING)
        return str(found.get(SETTING, ""))
    return None


def missing(found: str) -> str:
    """Of what we need, what is not on."""
    on = found.replace("A", ALL)
    return "".join(sign for sign in NEEDED if sign not in on)


def advice(found: str) -> str:
    """What a person can do."""
    wanted = "".join(sorted(set(found) | set(missing(found))))
    return f"`CONFIG SET {SETTING} {wanted}` on the server switches them on, notify=set in the URL lets us do so"


def escaped(raw: bytes) -> bytes:
    """A pattern of the server that means just these bytes."""
    return b"".join(b"\\" + bytes([byte]) if byte in PATTERN_SIGNS else bytes([byte]) for byte in raw)
