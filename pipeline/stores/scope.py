"""Which keys of a store a source takes: globs, compiled once.

`*` stands for anything within one segment of the key, `**` for anything across segments (`**/` also for
nothing), `?` for one character, `[abc]` `[a-z]` `[!a]` for one of a set, `{a,b}` for either. Upper and
lower case differ. A glob speaks of the whole key: `*.json` covers none in folders, `**/*.json` all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.errors import UsageError

_EVERYTHING = frozenset({"**", "**/*"})


class Scope:
    """The keys that `match` covers and `exclude` does not. Immutable, thread-safe.

    `everything` says that no key is left out, so that callers need not ask. Raises UsageError for a glob
    that cannot be read.
    """

    __slots__ = ("_excluded", "_matched", "everything")

    def __init__(self, match: Sequence[str] = ("**/*",), exclude: Sequence[str] = ()) -> None:
        self._matched = None if _EVERYTHING.intersection(match) else _either(match)
        self._excluded = _either(exclude) if exclude else None
        self.everything = self._matched is None and self._excluded is None

    def covers(self, key: str) -> bool:
        """Whether the source takes an object of this key."""
        if self._matched is not None and self._matched(key) is None:
            return False
        return self._excluded is None or self._excluded(key) is None


def _either(globs: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(f"(?:{_regex(glob)})" for glob in globs), re.DOTALL).fullmatch


def _regex(glob: str) -> str:
    written: list[str] = []
    at = depth = 0
    while at < len(glob):
        piece, at = _piece(glob, at, depth)
        depth += {"(?:": 1, ")": -1}.get(piece, 0)
        written.append(piece)
    if depth:
        raise UsageError(f"the glob {glob!r} has a {{ without its }}; a literal one is written [{{]")
    return "".join(written)


def _piece(glob: str, at: int, depth: int) -> tuple[str, int]:
    """The regular expression of what stands at `at`, and where the next piece begins."""
    char = glob[at]
    starts_segment = at == 0 or glob[at - 1] in "/{,"
    if starts_segment and glob.startswith("**/", at):
        return "(?:.*/)?", at + 3
    if glob.startswith("**", at):
        return ".*", at + 2
    if char == "[":
        return _set(glob, at)
    if char == "," and depth:
        return "|", at + 1
    if char == "}" and not depth:
        return r"\}", at + 1
    return {"*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")"}.get(char, re.escape(char)), at + 1


def _set(glob: str, at: int) -> tuple[str, int]:
    negated = glob[at + 1 : at + 2] in ("!", "^")
    start = at + 1 + negated
    end = glob.find("]", start + 1)
    if end < 0:
        raise UsageError(f"the glob {glob!r} has a [ without its ]; a literal one is written [[]")
    members = re.sub(r"([\\\[\]^&|~])", r"\\\1", glob[start:end])
    expression = f"(?!/)[{'^' if negated else ''}{members}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise UsageError(f"the glob {glob!r} has a set that cannot be read: {error}") from None
    return expression, end + 1
