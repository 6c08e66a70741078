"""`RedisStore`: strings and hashes under a prefix, listed by SCAN."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from redis.exceptions import ResponseError

from pipeline.errors import ObjectGone, UsageError
from pipeline.stores import Entry, Page
from pipeline.stores.local.names import to_bytes, to_text
from pipeline.stores.redis import notifying
from pipeline.stores.redis.access import asking, asking_all, client
from pipeline.stores.redis.options import ValuesOptions
from pipeline.stores.redis.values import ValueReading, looked_at, opened

SCAN_KEYS = 1000
"""Keys that the server looks at in one step of a SCAN."""
SCANS_LIMIT = 4
"""Listings under way that are remembered, to go on with."""
_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}\Z")


class RedisStore:
    """`pipeline.stores.Store` over keys of one database. `concurrency` is how many values may be read at once."""

    ordered = False

    def __init__(self, options: ValuesOptions, form: str | None = None, *, watch: bool = True) -> None:
        self.options = options
        self.concurrency = options.concurrency
        self._client = client(options)
        self._form = form
        self._watch = watch
        self._prefix = options.prefix.encode()
        self._lock = threading.Lock()
        self._scans: dict[str, _Scan] = {}

    def identity(self) -> str:
        """As `Store.identity`."""
        return f"redis {self.options.address} {self.options.db} {self.options.prefix}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"{self.options.canonical}/{self.options.prefix}{key}"

    def name_of(self, key: str) -> str:
        """What tells how a value is read: its key if it ends like a file's name, else it is JSON."""
        return key if _FILE.search(key) else key + ".json"

    def key_of(self, raw: bytes) -> str | None:
        """The key of ours that a whole key of the server is, or None if it is none of ours."""
        if not raw.startswith(self._prefix) or len(raw) == len(self._prefix):
            return None
        return to_text(raw[len(self._prefix) :])

    def ping(self) -> str:
        """As `Store.ping`."""
        with asking_all(self.options.canonical):
            self._client.scan(0, match=notifying.escaped(self._prefix) + b"*", count=1)
            version = "Redis"
            with suppress(ResponseError):
                server: Any = self._client.info("server")
                version = f"Redis {server['redis_version']}"
            found = f"{version}, {self._client.dbsize()} keys in database {self.options.db}"
            return f"{found}; {self._told()}" if self._watch else found

    def _told(self) -> str:
        """What is to be said of notifications."""
        on = notifying.flags(self._client)
        if on is None:
            return "whether it notifies of changes we may not ask"
        if not notifying.missing(on):
            return "it notifies of changes"
        return f"it does not notify of all changes, so that passes find them: {notifying.advice(on)}"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`, in no order. After a key that no listing of ours ended with it begins anew."""
        with self._lock:
            scan = self._scans.pop(after, None) if after else None
        scan = scan or _Scan(self)
        with asking_all(self.options.canonical):
            page = scan.page(limit)
        if not page.complete:
            with self._lock:
                self._scans[page.entries[-1].key] = scan
                while len(self._scans) > SCANS_LIMIT:
                    del self._scans[next(iter(self._scans))]
        return page

    def scanned(self, cursor: int) -> tuple[int, Sequence[Entry]]:
        """One step of a SCAN: where to go on, 0 at the end, and what was found. Raises what the client raises."""
        pattern = notifying.escaped(self._prefix) + b"*"
        answer: Any = self._client.scan(cursor, match=pattern, count=SCAN_KEYS)
        following, raws = answer
        keys = [(raw, key) for raw in raws if (key := self.key_of(raw)) is not None]
        values = looked_at(self._client, [raw for raw, _ in keys])
        return following, [
            Entry(key, value.version or "", value.size, 0.0, settled=value.version is not None)
            for (_, key), value in zip(keys, values, strict=True)
            if value is not None
        ]

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        raw = to_bytes(key)
        if raw is None:
            return None
        with asking(self.uri(key)):
            (value,) = looked_at(self._client, [self._prefix + raw])
        if value is None:
            return None
        return Entry(key, value.version or "", value.size, 0.0, settled=value.version is not None)

    @contextmanager
    def open(self, key: str) -> Iterator[ValueReading]:
        """As `Store.open`: one request for a small string. Also raises ObjectSkipped, for other types of values."""
        raw = to_bytes(key)
        if raw is None:
            raise ObjectGone(f"{self.uri(key)} is not there")
        json = self._form == "json" or (self._form is None and self.name_of(key).lower().endswith(".json"))
        with ExitStack() as stack:
            with asking(self.uri(key)):
                reading = stack.enter_context(opened(self._client, self._prefix + raw, key, json=json))
            yield reading

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`: there is no such thing."""
        del ttl
        raise UsageError(f"{self.uri(key)}: Redis knows no signed URLs; use links: uri")

    def close(self) -> None:
        """As `Store.close`."""
        self._client.close()


class _Scan:
    """One listing under way: where the server's SCAN has come to, and what was found and not given yet."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._cursor: int | None = 0
        self._found: deque[Entry] = deque()

    def page(self, limit: int) -> Page:
        while len(self._found) < limit and self._cursor is not None:
            following, entries = self._store.scanned(self._cursor)
            self._cursor = following or None
            self._found += entries
        entries = [self._found.popleft() for _ in range(min(limit, len(self._found)))]
        return Page(entries, complete=self._cursor is None and not self._found)
