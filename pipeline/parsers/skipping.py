"""Finding where a JSON value ends without reading it: for items too large or too deep to be read."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\\n]')


class Skipper:
    """Follows one object or list through pieces of text, in constant memory.

    It counts brackets outside strings and checks nothing else. A line's end within a string, which JSON does
    not allow, ends it too: the value is broken there.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.deepest = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str, start: int = 0) -> int | None:
        """Where the value ends in this piece, or None if it goes on."""
        at = start
        if self._escaped:
            at, self._escaped = at + 1, False
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                return None
            at = found.end()
            sign = found[0]
            if sign == "\\":
                at += 1
                self._escaped = at > len(text)
            elif sign == "\n":
                return at - 1
            elif sign == '"':
                self._in_string = not self._in_string
                if self.depth == 0 and not self._in_string:
                    return at
            elif self._bracket(sign):
                return at

    def _bracket(self, sign: str) -> bool:
        if sign in "{[":
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            return False
        self.depth -= 1
        return self.depth <= 0


def depth_of(text: str) -> int:
    """How deep the value at the start of the text is."""
    skipper = Skipper()
    skipper.feed(text)
    return skipper.deepest
