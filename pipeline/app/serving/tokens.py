"""Durable links: what they name, and how they are signed.

A token is the base64url of `source NUL key`, and of an HMAC-SHA256 over it. Nobody without the key can make one, so
that a link leads to the very object that a task was made of, and to nothing else. Keys that are no longer configured
revoke the links that they signed.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from pipeline.config.models import Links as LinksConfig
from pipeline.events import KEY_LIMIT_BYTES, ObjectRef

PATH = "/o/"
DIGEST_BYTES = 32
TOKEN_CHARACTERS = 2048
"""No token is longer: a source's name, a key and a digest in base64."""

_PURPOSE = b"labelfeed link 1\x00"
"""Signed with each token, so that the key signs nothing else by mistake."""


class Links:
    """Makes links, and reads them. Immutable, thread-safe."""

    def __init__(self, config: LinksConfig) -> None:
        self._base = config.base_url.rstrip("/") + PATH
        self._keys = [each.get_secret_value().encode() for each in (config.key, *config.previous)]

    def url(self, source: str, key: str) -> str:
        """The durable URL of an object."""
        return self._base + self.token(source, key)

    def token(self, source: str, key: str) -> str:
        """What names an object in a URL."""
        named = f"{source}\0{key}".encode()
        return urlsafe_b64encode(_digest(self._keys[0], named) + named).rstrip(b"=").decode()

    def read(self, token: str) -> ObjectRef | None:
        """The object that a token names; None if no key of ours made it."""
        if len(token) > TOKEN_CHARACTERS or not token.isascii():
            return None
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        if urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
            # One object has one token: base64 may be written in several ways.
            return None
        digest, named = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
        # All keys are tried, so that the time tells nothing of which one it is.
        good = sum(hmac.compare_digest(digest, _digest(key, named)) for key in self._keys)
        if not good or len(named) > KEY_LIMIT_BYTES + 64:
            return None
        source, _, key = named.decode().partition("\0")
        return ObjectRef(source, key)


def _digest(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + named, "sha256")
