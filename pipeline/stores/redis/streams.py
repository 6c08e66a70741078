"""`StreamStore`: a stream as a queue. A range of its entries, `first..last`, is one object.

What `list` gives is what is there behind a range, cut into the next ones: they are fixed by being recorded. An entry's
document is its field `task`, or else its fields as the data of a task. A version is the last entry's id and how many
entries there are: those of a range never change, but somebody may delete or trim them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from redis.exceptions import ResponseError

from pipeline.errors import ObjectGone, UnavailableError, UsageError
from pipeline.stores import Entry, Page
from pipeline.stores.redis.access import asking, asking_all, checking_type, client
from pipeline.stores.redis.batches import BATCH_BYTES, NAME, BatchReading, Sizes
from pipeline.stores.redis.ids import START, EntryId, Range
from pipeline.stores.redis.options import StreamOptions

TASK = b"task"
MILLISECONDS = 1000
COUNTED = 1000
"""Entries that are counted in one request."""


class StreamStore:
    """`pipeline.stores.Queue` over a stream."""

    ordered = False
    positioned = True
    concurrency = 2

    def __init__(self, options: StreamOptions) -> None:
        self.options = options
        self._client = client(options)
        self._key = options.key
        self._canonical = f"{options.canonical}/{options.key}"
        self._sizes = Sizes(options.batch)
        self._settled: EntryId | None = None
        self._read: int | None = None

    def identity(self) -> str:
        """As `Store.identity`."""
        return f"redis+stream {self.options.address} {self.options.db} {self._key}"

    def uri(self, key: str) -> str:
        """As `Store.uri`."""
        return f"{self._canonical}/{key}"

    def name_of(self, key: str) -> str:
        """What tells how a range is read."""
        del key
        return NAME

    def ping(self) -> str:
        """As `Store.ping`."""
        with self._asking():
            info = self._info()
            self._client.xrange(self._key, count=1)
        if info is None:
            return f"stream {self._key}, which is not there yet"
        return f"stream {self._key}, {info['length']} entries, the newest {_text(info['last-generated-id'])}"

    # --- the queue -----------------------------------------------------------------------------------------------

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`: at most `limit` ranges of what is behind the range `after`, in the stream's order.

        Raises UnavailableError where the stream is not the one that `after` was in.
        """
        place = self._end(after)
        found: list[Entry] = []
        with self._asking():
            while len(found) < limit:
                count = self._sizes.count()
                rows: Any = self._client.xrange(self._key, f"({place}", "+", count)
                if not rows:
                    break
                entry, used = _cut(rows)
                self._sizes.learn(used, entry.size)
                place = EntryId.parse(rows[used - 1][0])
                found.append(entry)
                if used == len(rows) < count:
                    return Page(found, complete=True)
            if not found:
                self._check(place)
        return Page(found, complete=len(found) < limit)

    def take(self, after: str | None, limit: int) -> Page:
        """As `Queue.take`: nothing moves by it but the ledger's position."""
        return self.list(after, limit)

    def preview(self, after: str | None, limit: int) -> Page:
        """As `Queue.preview`."""
        return self.list(after, limit)

    def wait(self, after: str | None, seconds: float) -> bool:
        """As `Queue.wait`."""
        with self._asking():
            block = max(1, int(seconds * MILLISECONDS))
            return bool(self._client.xread({self._key: str(self._end(after))}, count=1, block=block))

    def place(self, key: str) -> tuple[int, ...]:
        """As `Queue.place`."""
        found = Range.parse(key)
        return found.first if found is not None else START

    def settle(self, done: Sequence[tuple[str, str | None]], left: str | None, after: str | None) -> None:
        """As `Queue.settle`: move the group to what is imported, and trim the stream behind it."""
        pending = Range.parse(left) if left is not None else None
        upto = pending.first.before if pending is not None else self._end(after)
        if upto == self._settled:
            return
        with self._asking():
            if self._info() is None:
                return
            if self.options.group is not None:
                self._move(self.options.group, upto, sum(_count(version) for _, version in done))
            if self.options.trim and upto > START:
                self._client.xtrim(self._key, minid=str(upto.following), approximate=False)
        self._settled = upto

    def holds(self, after: str | None, keys: Sequence[str]) -> tuple[int, int]:
        """As `Queue.holds`."""
        with self._asking():
            upto = self._number(START.following, self._end(after)) if after is not None else 0
            spans = [span for key in keys if (span := Range.parse(key)) is not None]
            return upto, sum(self._number(span.first, span.last) for span in spans)

    # --- one range -----------------------------------------------------------------------------------------------

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        rows = self._rows(key)
        return _entry(key, rows) if rows else None

    @contextmanager
    def open(self, key: str) -> Iterator[BatchReading]:
        """As `Store.open`."""
        rows = self._rows(key)
        if not rows:
            raise ObjectGone("the stream no longer has these entries: they were deleted, trimmed or flushed")
        yield BatchReading(_entry(key, rows), [_document(fields) for _, fields in rows])

    def sign(self, key: str, ttl: float) -> str:
        """As `Store.sign`: there is no such thing."""
        del ttl
        raise UsageError(f"{self.uri(key)}: Redis knows no signed URLs; use links: uri")

    def close(self) -> None:
        """As `Store.close`."""
        self._client.close()

    # --- asking ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with asking_all(self._canonical), checking_type(self._canonical, "stream"):
            yield

    def _rows(self, key: str) -> Any:
        span = Range.parse(key)
        if span is None:
            return []
        with asking(self.uri(key)), checking_type(self._canonical, "stream"):
            return self._client.xrange(self._key, str(span.first), str(span.last))

    def _number(self, first: EntryId, last: EntryId) -> int:
        """How many entries there are from one to another."""
        found = 0
        while True:
            rows: Any = self._client.xrange(self._key, str(first), str(last), COUNTED)
            found += len(rows)
            if len(rows) < COUNTED:
                return found
            first = EntryId.parse(rows[-1][0]).following

    def _info(self) -> dict[str, Any] | None:
        try:
            found: Any = self._client.xinfo_stream(self._key)
        except ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        return dict(found)

    def _check(self, place: EntryId) -> None:
        """Raise UnavailableError if the stream's ids begin anew before what was taken: they would be passed over."""
        info = self._info()
        if info is not None and EntryId.parse(info["last-generated-id"]) < place:
            raise UnavailableError(
                f"{self._canonical}: the newest id is {_text(info['last-generated-id'])}, and entries up to {place}"
                " were taken: it is another stream, or a copy that is behind. Under another name the source begins anew"
            )

    def _end(self, key: str | None) -> EntryId:
        span = Range.parse(key) if key is not None else None
        return span.last if span is not None else START

    def _move(self, group: str, upto: EntryId, entries: int) -> None:
        """Let the group stand at an id, and tell the server how many entries are read, where that is known."""
        self._read = _read_before(upto, self._info() or {}, None if self._read is None else self._read + entries)
        try:
            self._client.xgroup_setid(self._key, group, str(upto), self._read)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._client.xgroup_create(self._key, group, str(upto), entries_read=self._read)


def _cut(rows: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> tuple[Entry, int]:
    """The range that begins with the first of these entries, and how many of them are in it."""
    size = used = 0
    while used < len(rows) and size < BATCH_BYTES:
        size += sum(map(len, rows[used][1].values()))
        used += 1
    span = Range(EntryId.parse(rows[0][0]), EntryId.parse(rows[used - 1][0]))
    return _entry(span.key, rows[:used], size), used


def _entry(key: str, rows: Sequence[tuple[bytes, dict[bytes, bytes]]], size: int | None = None) -> Entry:
    last = EntryId.parse(rows[-1][0])
    if size is None:
        size = sum(sum(map(len, fields.values())) for _, fields in rows)
    return Entry(key, f"{last}/{len(rows)}", size, last.time / MILLISECONDS)


def _read_before(upto: EntryId, info: Mapping[str, Any], counted: int | None) -> int | None:
    """How many entries were ever added up to an id, where that can be told: `counted`, or by the stream's own counts
    (which servers before 7 do not keep)."""
    added, first = info.get("entries-added"), info.get("first-entry")
    if added is None or EntryId.parse(info["last-generated-id"]) <= upto:
        return added
    if first is None or EntryId.parse(first[0]) > upto:
        return int(added) - int(info["length"])
    return counted


def _count(version: str | None) -> int:
    """How many entries a range of this version has."""
    number = (version or "").rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _document(fields: dict[bytes, bytes]) -> bytes:
    task = fields.get(TASK)
    if task is not None:
        return task
    try:
        data = {name.decode(): value.decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        # No JSON, nor any text: the parser says where.
        return b" ".join(part for pair in fields.items() for part in pair)
    return b'{"data":%b}' % orjson.dumps(data)


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
