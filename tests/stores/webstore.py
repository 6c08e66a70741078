"""HTTP stores of a test, with bounds that are soon reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import Source
from pipeline.stores.http import HttpStore, open_list, open_store
from pipeline.stores.http.bounds import Bounds

SECRET = "planted-5ecret"
TIGHT = Bounds(
    body_bytes=3_000_000,
    untold_bytes=2_500_000,
    inflate_ratio=20,
    inflate_free_bytes=100_000,
    list_bytes=100_000,
    list_lines=100,
)
QUICK = replace(TIGHT, head_seconds=0.5, grace_seconds=0.5, slowest_rate=10**9)
"""For servers that would be waited for otherwise."""
OPENED: list[HttpStore] = []
"""What the test under way has opened; it is closed for it."""


def opened(url: str, bounds: Bounds | None = None, folder: Path = Path(), **options: Any) -> HttpStore:
    """The store of a source; loopback is allowed, as the configuration may say."""
    values = {"name": "s", "project": "p", "url": url, "allow_private": True} | options
    source = Source.model_validate(values)
    OPENED.append((open_list if source.as_ == "urls" else open_store)(source, folder, bounds))
    return OPENED[-1]
