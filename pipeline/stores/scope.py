"""Which objects of a store a source takes, and by which rule it leaves out the others.

In a glob `*` stands for anything within one segment of the key, `**` for anything across segments (`**/` also
for nothing), `?` for one character, `[abc]` `[a-z]` `[!a]` for one of a set, `{a,b}` for either. Upper and
lower case differ. A glob speaks of the whole key: `*.json` covers none in folders, `**/*.json` all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from pipeline.config import Source
from pipeline.errors import UsageError
from pipeline.events import ObjectEvent
from pipeline.stores import Entry

Rule = Literal[
    "placeholder", "prefixes", "recursive", "match", "regex", "exclude", "routes",
    "min_size", "max_size", "newer_than", "older_than",
]  # fmt: skip
"""Why an object is left out: a folder's placeholder, or the key of the configuration that says so."""
RULES: tuple[Rule, ...] = get_args(Rule)
OF_AGE: frozenset[Rule] = frozenset({"newer_than", "older_than"})
"""Rules of which time alone changes the answer."""
PLACEHOLDERS = ("/", "_$folder$")
"""What the keys of objects end with that only stand for a folder."""
LAST = "\U0010ffff"
"""No key that begins like another one comes after that one and this."""

_EVERYTHING = frozenset({"**", "**/*"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What sizes (bytes) and ages a source takes. An age is in seconds, or a moment since which."""

    min_size: int = 0
    max_size: int | None = None
    newer_than: float | datetime | None = None
    older_than: float | datetime | None = None

    def left_out(self, size: int | None, modified: float | None) -> Rule | None:
        """The rule that leaves out an object of this size and time (seconds since 1970), as far as these are known."""
        if size is not None:
            if size < self.min_size:
                return "min_size"
            if self.max_size is not None and size > self.max_size:
                return "max_size"
        if modified is not None:
            if self.newer_than is not None and modified < _moment(self.newer_than):
                return "newer_than"
            if self.older_than is not None and modified > _moment(self.older_than):
                return "older_than"
        return None


def _moment(limit: float | datetime) -> float:
    return limit.timestamp() if isinstance(limit, datetime) else time.time() - limit


class Scope:
    """The objects that a source takes. Immutable, thread-safe.

    `everything` says that none but folders' placeholders is left out by its key, `bounds` what sizes and ages are
    taken, None for all. Raises UsageError for a glob or a regular expression that cannot be read.
    """

    __slots__ = ("_rules", "bounds", "everything", "prefixes", "recursive")

    def __init__(self, match: Sequence[str] = ("**/*",), exclude: Sequence[str] = ()) -> None:
        self._rules: list[tuple[Rule, Callable[[str], bool]]] = []
        self.bounds: Bounds | None = None
        self.prefixes: tuple[str, ...] = ()
        self.recursive = True
        if not _EVERYTHING.intersection(match):
            self._add("match", _either(match), wanted=True)
        if exclude:
            self._add("exclude", _either(exclude), wanted=False)
        self.everything = not self._rules

    @classmethod
    def of(cls, source: Source) -> Scope:
        """What a source's part of the configuration says."""
        scope = cls(source.match)
        scope.prefixes = _folded(source.prefixes, folders=source.recursive)
        scope.recursive = source.recursive
        if not source.recursive:
            scope._rules.insert(0, ("recursive", scope._flat))
        if scope.prefixes:
            scope._rules.insert(0, ("prefixes", lambda key: not key.startswith(scope.prefixes)))
        if source.regex is not None:
            scope._add("regex", _searched(source.regex), wanted=True)
        if source.exclude:
            scope._add("exclude", _either(source.exclude), wanted=False)
        if source.routes:
            routes = [(_either(route.match), route.project) for route in source.routes]
            mine = source.project
            scope._rules.append(("routes", lambda key: _routed(routes, key) != mine))
        scope.everything = not scope._rules
        bounds = Bounds(source.min_size, source.max_size, source.newer_than, source.older_than)
        scope.bounds = None if bounds == Bounds() else bounds
        return scope

    def covers(self, key: str) -> bool:
        """Whether the source takes an object of this key, if its size and age suit."""
        return self.left_out(key) is None

    def left_out(self, key: str) -> Rule | None:
        """The rule that leaves out a key, None if none does."""
        if key.endswith(PLACEHOLDERS):
            return "placeholder"
        for rule, leaves_out in self._rules:
            if leaves_out(key):
                return rule
        return None

    def refuses(self, entry: Entry) -> Rule | None:
        """The rule that leaves out an object as it is now."""
        rule = self.left_out(entry.key)
        if rule is None and self.bounds is not None:
            return self.bounds.left_out(entry.size, entry.modified)
        return rule

    def of_event(self, event: ObjectEvent) -> Rule | None:
        """The rule that leaves out what an event tells of, as far as it tells; a deletion has neither size nor age."""
        rule = self.left_out(event.key)
        if rule is None and self.bounds is not None and event.kind != "deleted":
            return self.bounds.left_out(event.size, event.modified)
        return rule

    def beyond(self, key: str | None) -> bool:
        """Whether all keys that are covered come before this one, in byte order."""
        if not self.prefixes or key is None:
            return False
        return key.encode() > self.prefixes[-1].encode() and not key.startswith(self.prefixes[-1])

    def skip(self, after: str | None) -> str | None:
        """From where a listing in byte order may go on without passing over a key that is covered: `after`, or a
        place beyond it."""
        if self.prefixes:
            after = self._next_prefix(after)
        if self.recursive or after is None:
            return after
        starts = [_folder(prefix) for prefix in self.prefixes if after.startswith(prefix)]
        slash = after.find("/", max(starts, default=0)) if starts or not self.prefixes else -1
        return after if slash < 0 else after[: slash + 1] + LAST

    def _next_prefix(self, after: str | None) -> str | None:
        here = (after or "").encode()
        for prefix in self.prefixes:
            if after is not None and after.startswith(prefix):
                return after
            if prefix.encode() > here:
                return _before(prefix)
        return after

    def _add(self, rule: Rule, found: Callable[[str], re.Match[str] | None], *, wanted: bool) -> None:
        self._rules.append((rule, lambda key: (found(key) is None) is wanted))

    def _flat(self, key: str) -> bool:
        """Whether a key is in a folder below the source's own, or below those that its prefixes name."""
        starts = [_folder(prefix) for prefix in self.prefixes if key.startswith(prefix)] or [0]
        return "/" in key[max(starts) :]


def _folded(prefixes: Sequence[str], *, folders: bool) -> tuple[str, ...]:
    """Prefixes in byte order, without those that another one covers if folders below are taken."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes), key=str.encode):
        if not (folders and kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return tuple(kept)


def _folder(prefix: str) -> int:
    return prefix.rfind("/") + 1


def _before(prefix: str) -> str | None:
    """A place before all keys with a prefix, and as good as next to it."""
    last = ord(prefix[-1])
    if last <= 1:
        return prefix[:-1] or None
    # Between the two ranges there is nothing that UTF-8 can hold.
    before = 0xD7FF if last == 0xE000 else last - 1  # noqa: PLR2004 - the first character after the surrogates
    return prefix[:-1] + chr(before) + LAST


def _routed(routes: Sequence[tuple[Callable[[str], re.Match[str] | None], str]], key: str) -> str | None:
    return next((project for found, project in routes if found(key) is not None), None)


def _searched(expression: str) -> Callable[[str], re.Match[str] | None]:
    try:
        return re.compile(expression).search
    except re.error as error:
        raise UsageError(f"the regular expression {expression!r} cannot be read: {error}") from None


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
