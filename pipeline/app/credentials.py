"""Tokens of the configuration that say themselves when they expire: JSON Web Tokens, as Label Studio's are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import BaseModel, SecretStr

from pipeline.config import Config

PARTS = 3
"""A JSON Web Token is a header, claims and a signature."""
LATEST_SECONDS = 253_000_000_000
"""What says that it ends after the year 9987 does not mean seconds."""


def expiries(config: Config) -> dict[str, float]:
    """Where in the configuration a token stands that expires, and when, in seconds since 1970."""
    found = {path: _expiry(secret.get_secret_value()) for path, secret in _secrets(config, "")}
    return {path: at for path, at in found.items() if at is not None}


def _secrets(value: Any, path: str) -> Iterator[tuple[str, SecretStr]]:
    if isinstance(value, SecretStr):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), f"{path}.{name}".lstrip("."))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _secrets(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _secrets(item, f"{path}.{number}")


def _expiry(token: str) -> float | None:
    parts = token.split(".")
    if len(parts) != PARTS:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    at = claims.get("exp") if isinstance(claims, dict) else None
    return float(at) if isinstance(at, int | float) and 0 < at < LATEST_SECONDS else None
