"""Lists of URLs and manifests: read again only when they changed, held in memory in the order of their keys."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx

from pipeline.errors import ObjectFailed, ObjectGone, ObjectUnsettled, RetriableError, UnavailableError
from pipeline.stores.http.bodies import chunks, is_html
from pipeline.stores.http.bounds import Bounds
from pipeline.stores.http.client import NOT_MODIFIED, Client
from pipeline.stores.http.urls import beneath, canonical, redacted, stays
from pipeline.stores.local import LocalStore

FRESH_SECONDS = 1.0
"""A list that was looked at within this time is not looked at again for a key that it lacks ..."""
STALE_SECONDS = 30.0
"""... nor within this time for one that it has: signatures in it may have been renewed."""
SETTLE_ROUNDS = 10
"""A list in a local file that is being written is waited for this many times `settle`."""
SETTLE_LOOKS = 5
COMMENT = "#"
TEXT = "the list"


class Target(NamedTuple):
    """What a key stands for: a URL, or why there is none."""

    url: str
    problem: str | None = None


def itself(key: str) -> str:
    """The URL of a key that is one."""
    return key


@dataclass(frozen=True, slots=True)
class Lines:
    """A list, read: its keys in byte order, and the targets of those for which `url_of` is not the answer."""

    keys: list[str] = field(default_factory=list)
    targets: dict[str, Target] = field(default_factory=dict)
    url_of: Callable[[str], str] = itself

    def page(self, after: str | None, limit: int) -> tuple[list[str], bool]:
        """At most `limit` keys after one, and whether they are the last."""
        start = 0 if after is None else bisect_right(self.keys, after)
        return self.keys[start : start + limit], start + limit >= len(self.keys)

    def target(self, key: str) -> Target | None:
        """What a key stands for; None where it is not in the list."""
        at = bisect_right(self.keys, key)
        if not at or self.keys[at - 1] != key:
            return None
        return self.targets.get(key) or Target(self.url_of(key))


Read = Callable[[Iterable[str]], Lines]


def lines_of(content: bytes, limit: int) -> Iterable[str]:
    """The lines of a list that say something, without comments. Raises UnavailableError if they are too many."""
    text = _text(content)
    found = [line for raw in text.replace("\r", "\n").split("\n") if (line := raw.strip(" \t"))]
    found = [line for line in found if not line.startswith(COMMENT)]
    if len(found) > limit:
        raise UnavailableError(f"{TEXT} has more than {limit} lines; split it", code="too_large")
    return found


def _text(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def urls(lines: Iterable[str]) -> Lines:
    """A list of URLs. A line that is none is an object, too, so that somebody is told of it.

    Raises UnavailableError if there are lines, and none of them is a URL.
    """
    targets: dict[str, Target] = {}
    keys: set[str] = set()
    good = False
    for line in lines:
        try:
            key = canonical(line)
        except ValueError as error:
            key = redacted(line)
            targets.setdefault(key, Target("", str(error)))
        else:
            good = True
            if key != line:
                targets.setdefault(key, Target(line))
        keys.add(key)
    if keys and not good:
        raise UnavailableError(f"{TEXT} has no line that is an http or https URL", code="bad_url")
    return Lines(sorted(keys), targets)


def manifest(folder: httpx.URL, own: str) -> Read:
    """Reads a manifest: names of files relative to a folder's URL, its `own` name not among them."""

    def read(lines: Iterable[str]) -> Lines:
        names = {line.removeprefix("./") for line in lines if not line.endswith("/")} - {own, ""}
        outside = {name: Target("", "the name does not stay in the folder") for name in names if not stays(name)}
        return Lines(sorted(names), outside, lambda name: str(beneath(folder, name)))

    return read


State = Mapping[str, str]
"""By what a source knows its list again: the headers of a conditional request, or a file's version."""
Source = Callable[[State], tuple[bytes, State] | None]
"""The bytes of a list and its new state; None where it is as the state says. Raises UnavailableError."""


def fetched(client: Client, url: httpx.URL) -> Source:
    """A list at a URL, asked for by conditional requests."""
    uri, bounds = canonical(url), client.bounds

    def read(state: State) -> tuple[bytes, State] | None:
        with client.answer("GET", url, state, frozenset({NOT_MODIFIED})) as answer:
            if answer.status_code == NOT_MODIFIED and state:
                return None
            content = b"".join(chunks(answer, uri, bounds, bounds.list_bytes))
            if is_html(answer) and content.lstrip()[:1] == b"<":
                raise ObjectFailed("html_page", f"{uri} is an HTML page, not {TEXT}")
            return content, _conditions(answer)

    return read


def _conditions(answer: httpx.Response) -> State:
    if "etag" in answer.headers:
        return {"If-None-Match": answer.headers["etag"]}
    if "last-modified" in answer.headers:
        return {"If-Modified-Since": answer.headers["last-modified"]}
    return {}


def on_disk(path: Path, settle: float, bounds: Bounds) -> Source:
    """A list in a local file, read when it has changed and settled (`settle` in seconds)."""
    store, name = LocalStore(path, settle), path.name

    def read(state: State) -> tuple[bytes, State] | None:
        entry = store.head(name)
        if entry is None:
            raise UnavailableError(f"there is no {store.uri(name)}")
        if entry.version == state.get("version"):
            return None
        if entry.size > bounds.list_bytes:
            raise ObjectFailed("too_large", f"{TEXT} is larger than {bounds.list_bytes} bytes; split it")
        with store.open(name) as reading, reading.stream() as stream:
            return stream.read(), {"version": reading.entry.version}

    def settled(state: State) -> tuple[bytes, State] | None:
        deadline = time.monotonic() + SETTLE_ROUNDS * settle
        while True:
            try:
                return read(state)
            except ObjectUnsettled:
                if time.monotonic() >= deadline:
                    raise
                threading.Event().wait(settle / SETTLE_LOOKS)

    return settled


class Held:
    """The newest reading of a list. Thread-safe; what is asked for by many is read by one."""

    def __init__(self, source: Source, read: Read, uri: str, limit: int) -> None:
        self._source = source
        self._read = read
        self._uri = uri
        self._limit = limit
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self._state: State = {}
        self._looked = 0.0
        self._failed = float("-inf")

    def lines(self, seconds: float = 0.0) -> Lines:
        """The list as it was within `seconds`, or now. Raises UnavailableError."""
        asked = time.monotonic()
        with self._lock:
            if self._lines is None or self._looked < asked - seconds:
                began = time.monotonic()
                self._lines = self._look()
                self._looked = began
            return self._lines

    def _look(self) -> Lines:
        try:
            found = self._source(self._state if self._lines is not None else {})
            if found is None and self._lines is not None:
                return self._lines
            content, state = found or (b"", {})
            lines = self._read(lines_of(content, self._limit))
        except ObjectUnsettled:
            raise
        except (ObjectFailed, ObjectGone, RetriableError) as error:
            # Of a list, not of an object: it ends when somebody puts it right.
            told = str(error) if self._uri in str(error) else f"{self._uri}: {error}"
            after = error.retry_after if isinstance(error, RetriableError) else None
            raise UnavailableError(told, code=error.code, retry_after=after) from None
        self._state = state
        return lines

    def page(self, after: str | None, limit: int) -> tuple[list[str], bool]:
        """As `Lines.page`; the first page is of the list as it is now."""
        return self.lines(0.0 if after is None else float("inf")).page(after, limit)

    def target(self, key: str) -> Target | None:
        """As `Lines.target`, of a list that is not stale."""
        found = self._lately().target(key)
        return found if found is not None else self.lines(FRESH_SECONDS).target(key)

    def _lately(self) -> Lines:
        """The list as it was not long ago, or the newest that there is while it can't be read."""
        if self._lines is not None and time.monotonic() - self._failed < STALE_SECONDS:
            return self._lines
        try:
            return self.lines(STALE_SECONDS)
        except UnavailableError:
            if self._lines is None:
                raise
            self._failed = time.monotonic()
            return self._lines
