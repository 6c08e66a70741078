"""Which keys obstore can name: it takes keys for paths, and some are none."""

from __future__ import annotations

import re

_DOTTED = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_UNNAMEABLE = re.compile(rf"[\x00-\x1f\x7f]|//|^/|/$|{_DOTTED.pattern}")
AFTER_SLASH = chr(ord("/") + 1)
"""What comes after all keys that begin with a slash."""


def nameable(key: str) -> bool:
    """Whether obstore can name a key: one without empty, dotted or unprintable segments."""
    return _UNNAMEABLE.search(key) is None


def dotted(key: str) -> bool:
    """Whether a segment of a key is `.` or `..`, which some clients take for folders."""
    return _DOTTED.search(key) is not None
