"""What a server may cost us, whatever it sends."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT_SECONDS = 10.0
HEAD_SECONDS = 30.0
"""From the request to the end of the answer's head."""
GRACE_SECONDS = 30.0
"""A body may be waited for so long ..."""
SLOWEST_RATE = 4096
"""... and for as long again as it takes at this many bytes per second."""
REDIRECTS_LIMIT = 5
BODY_BYTES = 20 * 1024**3
"""The largest file, as it is sent and as it comes out of its content encoding."""
UNTOLD_BYTES = 256 * 1024**2
"""The largest file of which the server does not tell version or size: it is read whole to learn them."""
LIST_BYTES = 256 * 1024**2
"""The largest list of URLs or manifest."""
LIST_LINES = 2_000_000
INFLATE_RATIO = 200
"""A content encoding may not make a body more than this many times larger ..."""
INFLATE_FREE_BYTES = 64 * 1024**2
"""... once this much has come out of it."""
CONNECTIONS_LIMIT = 64
CONCURRENCY = 16
"""Requests of one source that are under way at once, in a listing as in reading ahead."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits above, for one store."""

    connect_seconds: float = CONNECT_SECONDS
    head_seconds: float = HEAD_SECONDS
    grace_seconds: float = GRACE_SECONDS
    slowest_rate: int = SLOWEST_RATE
    redirects: int = REDIRECTS_LIMIT
    body_bytes: int = BODY_BYTES
    untold_bytes: int = UNTOLD_BYTES
    list_bytes: int = LIST_BYTES
    list_lines: int = LIST_LINES
    inflate_ratio: int = INFLATE_RATIO
    inflate_free_bytes: int = INFLATE_FREE_BYTES
