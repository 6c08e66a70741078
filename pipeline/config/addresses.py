"""Addresses that say more than their scheme: an https URL of a blob service is a place in a storage account."""

from __future__ import annotations

import re

_BLOBS = re.compile(
    r"https://(?P<account>[a-z0-9]{3,24})\.(?:blob|dfs)\.(?P<suffix>core\.[a-z0-9.-]+?)(?::443)?(?=[/?]|$)"
)


_SIGNED_BLOB = re.compile(r"\?(?=.*\bsig=)(?:.*&)?sr=b(?:&|$)")
"""One blob's own signature: such a URL is a link to a file, not a place in an account."""


def blob_account(url: str) -> tuple[str, str] | None:
    """The storage account that an https URL is in, and its cloud's suffix (`core.windows.net`); None if none."""
    found = _BLOBS.match(url)
    if found is None or _SIGNED_BLOB.search(url):
        return None
    return found["account"], found["suffix"]
