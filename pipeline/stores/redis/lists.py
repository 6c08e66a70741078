"""`ListStore`: a list as a queue. Items are moved, some at a time and at once, to a list of their own, which is one
object until it is imported.

Beside the list `tasks` there are `tasks:labelfeed`, the set of batches in work, and `tasks:labelfeed:ID`, the items of
each. A batch's id is never used twice, and its items never change: a crash at any moment leaves each item in the list
or in one batch, which is found again under its id.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ObjectGone, UsageError
from pipeline.stores import Entry, Page
from pipeline.stores.redis.access import asking, asking_all, checking_type, client
from pipeline.stores.redis.batches import NAME, BatchReading, Sizes
from pipeline.stores.redis.options import ListOptions

SUFFIX = ":labelfeed"
WAITING = "waiting"
"""The key under which what is still in the list is shown to whoever only looks."""
LOOK_SECONDS = 0.1
"""How often a list is looked at while there is nothing in it."""
SAMPLE = 20
"""Items of which it is told how large the others may be."""


class ListStore:
    """`pipeline.stores.Queue` over a list; items are taken from its left, where LPOP would take them."""

    ordered = False
    positioned = False
    concurrency = 2

    def __init__(self, options: ListOptions) -> None:
        self.options = options
        self._client = client(options)
        # A batch that was moved by a request whose answer was lost must be found, not moved again.
        self._mover = client(options, retries=0)
        self._key = options.key
        self._index = options.key + SUFFIX
        self._canonical = f"{options.canonical}/{options.key}"
        self._sizes = Sizes(options.batch)

    def identity(self) -> str:
        """As `Store.identity`."""
        return f"redis+list {self.options.address} {self.options.db} {self._key}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"{self._canonical}/{key}"

    def name_of(self, key: str) -> str:
        """What tells how a batch is read."""
        del key
        return NAME

    def ping(self) -> str:
        """As `Store.ping`."""
        with self._asking():
            waiting: Any = self._client.llen(self._key)
            working: Any = self._client.scard(self._index)
            self._client.exists(self._batch("ping"))
        return f"list {self._key}, {waiting} items, {working} batches in work"

    # --- the queue -----------------------------------------------------------------------------------------------

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`: the batches in work, in the order in which they were made."""
        with self._asking():
            members: Any = self._client.smembers(self._index)
        keys = sorted(member.decode() for member in members)
        rest = [key for key in keys if after is None or key > after]
        return Page([_entry(key) for key in rest[:limit]], complete=len(rest) <= limit)

    def take(self, after: str | None, limit: int) -> Page:
        """As `Queue.take`: moves what waits into batches."""
        del after
        found: list[Entry] = []
        with self._asking():
            while len(found) < limit:
                waiting: Any = self._client.llen(self._key)
                if not waiting:
                    return Page(found, complete=True)
                entry = self._move(min(waiting, self._sizes.count()))
                if entry is not None:
                    found.append(entry)
        return Page(found, complete=False)

    def _move(self, count: int) -> Entry | None:
        """Move so many items, or as many as there are, to a batch of their own, all at once."""
        key = f"{int(time.time() * 1000):014}-{uuid.uuid4().hex[:12]}"
        batch = self._batch(key)
        pipeline = self._mover.pipeline(transaction=True)
        pipeline.sadd(self._index, key)
        for _ in range(count):
            pipeline.lmove(self._key, batch, "LEFT", "RIGHT")
        _, *answers = pipeline.execute()
        items: Any = [item for item in answers if item is not None]
        if not items:
            self._client.srem(self._index, key)
            return None
        size = sum(map(len, items))
        self._sizes.learn(len(items), size)
        return _entry(key, size)

    def preview(self, after: str | None, limit: int) -> Page:
        """As `Queue.preview`: the batches in work, and what waits, under keys of its own."""
        page = self.list(after, limit)
        if not page.complete:
            return page
        with self._asking():
            waiting: Any = self._client.llen(self._key)
            sample: Any = self._client.lrange(self._key, 0, SAMPLE - 1)
        mean = sum(map(len, sample)) / len(sample) if sample else 0.0
        batch = self.options.batch
        others = [
            Entry(f"{WAITING}-{start}", "", int(mean * min(batch, waiting - start)), 0.0)
            for start in range(0, waiting, batch)
        ]
        return Page(page.entries + others, complete=True)

    def wait(self, after: str | None, seconds: float) -> bool:
        """As `Queue.wait`."""
        del after
        deadline = time.monotonic() + seconds
        while True:
            with self._asking():
                waiting: Any = self._client.llen(self._key)
            left = deadline - time.monotonic()
            if waiting or left <= 0:
                return bool(waiting)
            time.sleep(min(LOOK_SECONDS, left))

    def place(self, key: str) -> tuple[int, ...]:
        """As `Queue.place`."""
        first = key.partition("-")[0]
        return (int(first) if first.isdecimal() else 0,)

    def settle(self, done: Sequence[tuple[str, str | None]], left: str | None, after: str | None) -> None:
        """As `Queue.settle`: delete the batches that are done."""
        del left, after
        if not done:
            return
        with self._asking():
            pipeline = self._client.pipeline(transaction=True)
            for key, _ in done:
                pipeline.delete(self._batch(key))
                pipeline.srem(self._index, key)
            pipeline.execute()

    def holds(self, after: str | None, keys: Sequence[str]) -> tuple[int, int]:
        """As `Queue.holds`: there is no position."""
        del after, keys
        return 0, 0

    # --- one batch -----------------------------------------------------------------------------------------------

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        items = self._items(key)
        return _entry(key, sum(map(len, items))) if items else None

    @contextmanager
    def open(self, key: str) -> Iterator[BatchReading]:
        """As `Store.open`."""
        items = self._items(key)
        if not items:
            raise ObjectGone("the batch is no longer there: it was deleted or flushed")
        yield BatchReading(_entry(key, sum(map(len, items))), items)

    def _items(self, key: str) -> Sequence[bytes]:
        with asking(self.uri(key)), checking_type(self._canonical, "list"):
            if key.startswith(f"{WAITING}-"):
                start = int(key.rpartition("-")[2])
                found: Any = self._client.lrange(self._key, start, start + self.options.batch - 1)
            else:
                found = self._client.lrange(self._batch(key), 0, -1)
        items: Sequence[bytes] = found
        return items

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`: there is no such thing."""
        del ttl
        raise UsageError(f"{self.uri(key)}: Redis knows no signed URLs; use links: uri")

    def close(self) -> None:
        """As `Store.close`."""
        self._client.close()
        self._mover.close()

    def _batch(self, key: str) -> str:
        return f"{self._index}:{key}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with asking_all(self._canonical), checking_type(self._canonical, "list"):
            yield


def _entry(key: str, size: int = 0) -> Entry:
    return Entry(key, key, size, int(key.partition("-")[0]) / 1000 if key[:1].isdecimal() else 0.0)
