"""What part of an object a request asks for, and whether it has it already (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Span(NamedTuple):
    """The bytes [start, end) of an object of `size` bytes."""

    start: int
    end: int
    size: int

    @property
    def whole(self) -> bool:
        """Whether that is all of it."""
        return self.end - self.start == self.size

    @property
    def header(self) -> str:
        """The Content-Range."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def tag_of(version: str) -> str:
    """An object's ETag; its version itself may tell what is nobody's business, such as an inode."""
    return f'"{blake2b(version.encode(), digest_size=16).hexdigest()}"'


def unchanged(headers: Mapping[str, str], tag: str) -> bool:
    """Whether the client has this version."""
    known = headers.get("if-none-match")
    if known is None:
        return False
    return known.strip() == "*" or tag in [each.strip().removeprefix("W/") for each in known.split(",")]


def asked(headers: Mapping[str, str], tag: str, size: int) -> Span | None:
    """The span that a request asks for: all, where it asks for several or for a part of another version.

    None where the object has no such bytes.
    """
    whole = Span(0, size, size)
    found = _ONE_RANGE.fullmatch(headers.get("range", "").strip())
    if found is None or found[0] == "bytes=-" or headers.get("if-range", tag) != tag:
        return whole
    if not found[1]:
        length = min(int(found[2]), size)
        return Span(size - length, size, size) if length else None
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < start:
        return whole
    return Span(start, end, size) if start < size else None
