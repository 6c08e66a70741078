"""The plain objects of a claim: small files that hold one ordinary item each, read and parsed many at a time.

A file of one task costs Python more in its own steps than in reading and parsing. Here most of these are one call over
a whole chunk. What is not plain, for whatever reason, is left to the importer, which looks at it by itself and knows
what to do and to say: nothing is decided here but that all is well.

`chunks` reads a store that has no latency; `Sieve` takes the plain ones from what was read ahead from any other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from pipeline.consumers import Feed, outcomes
from pipeline.consumers.reading import CHUNK_BYTES, CHUNK_OBJECTS, Ahead
from pipeline.errors import LabelfeedError
from pipeline.faults import reached
from pipeline.ledger import Outcome, Work
from pipeline.parsers import Plain, Rules, select
from pipeline.stores import Content, Entry, name_of
from pipeline.tasks import Task

T = TypeVar("T")

REST_SECONDS = 5e-5
"""Between two chunks. SQLite's thread needs the interpreter's lock at each of its statements; a thread that calls the
system all the time has taken it back before another one has woken up, unless it rests for that long."""
LEAST_SHARE = 0.5
"""Once less of a chunk was plain, the rest of the claim is left to the importer: its files are of other kinds."""


class Found(NamedTuple):
    """A plain object: its work, what the store said of it, its one task."""

    work: Work
    entry: Entry
    task: Task


class Chunk(NamedTuple):
    """Plain objects, and those among them that were not."""

    plain: Sequence[Found]
    others: Sequence[Work]


def chunks(feed: Feed, work: Sequence[Work]) -> Iterator[Chunk]:
    """All objects of a claim. Raises nothing of a store or a parser."""
    contents = getattr(feed.store, "contents", None)
    parsers = [_plain(feed, item) for item in work] if contents is not None else [None] * len(work)
    parse = next(filter(None, parsers), None)
    plain = [item for item, own in zip(work, parsers, strict=True) if own is not None and own is parse]
    if parse is None or contents is None:
        yield Chunk((), work)
        return
    yield Chunk((), [item for item, own in zip(work, parsers, strict=True) if own is not parse])
    yield from _Reader(feed, parse, plain, contents([item.key for item in plain])).chunks()


def imported(feed: Feed, found: Sequence[Found], seconds: float) -> list[Outcome]:
    """The outcomes of plain objects that were read and parsed in `seconds` together."""
    shape, row_key, each = feed.shape, feed.source.row_key, seconds / (len(found) or 1)
    return [
        Outcome(
            item.id,
            "done",
            entry.version,
            tasks=(task,),
            task_count=1,
            size=entry.size,
            shape=shape,
            row_key=row_key,
            seconds=each,
        )
        for item, entry, task in found
    ]


def _plain(feed: Feed, item: Work) -> Plain | None:
    """What parses an object if it is plain."""
    try:
        return select(name_of(feed.store, item.key), feed.rules, None).plain
    except LabelfeedError:
        return None


class _Reader:
    """Reads the objects of one claim, a chunk at a time."""

    def __init__(self, feed: Feed, parse: Plain, work: Sequence[Work], contents: Iterator[Content]) -> None:
        self._feed = feed
        self._parse = parse
        self._work = work
        self._contents = contents

    def chunks(self) -> Iterator[Chunk]:
        """All of them."""
        rest = iter(self._work)
        while (chunk := self._chunk(rest)) is not None:
            yield chunk
            time.sleep(REST_SECONDS)
            if len(chunk.plain) < LEAST_SHARE * (len(chunk.plain) + len(chunk.others)):
                yield Chunk((), list(rest))
                return

    def _chunk(self, rest: Iterator[Work]) -> Chunk | None:
        read: list[tuple[Work, Entry, bytes]] = []
        others: list[Work] = []
        size, on_change = 0, self._feed.source.on_change
        for item, content in zip(rest, self._contents, strict=False):
            if content is None or outcomes.mode_of(item, content[0].version, on_change) != "new":
                others.append(item)
                continue
            reached("worker.parsing", item.key)
            read.append((item, *content))
            size += len(content[1])
            if len(read) == CHUNK_OBJECTS or size >= CHUNK_BYTES:
                break
        if not read and not others:
            return None
        found, odd = _parsed(self._parse, read, self._feed.rules)
        return Chunk([Found(*one) for one in found], [*others, *odd])


class Sieve:
    """Takes the plain ones from the objects of one claim that were read ahead."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._worth = True

    def sift(self, chunk: Sequence[Ahead]) -> tuple[list[Found], list[Ahead]]:
        """The plain objects of a chunk, and the others."""
        parse = next((one.parser.plain for one in chunk if one.parser and one.parser.plain), None)
        if parse is None or not self._worth:
            return [], list(chunk)
        read: list[tuple[Ahead, Entry, bytes]] = []
        others: list[Ahead] = []
        for one in chunk:
            reading = one.reading
            if reading is None or reading.content is None or not self._may_be(one, reading.entry, parse):
                others.append(one)
                continue
            reached("worker.parsing", one.work.key)
            read.append((one, reading.entry, reading.content))
        found, odd = _parsed(parse, read, self._feed.rules)
        self._worth = len(found) >= LEAST_SHARE * len(chunk)
        return [Found(one.work, entry, task) for one, entry, task in found], [*others, *odd]

    def _may_be(self, one: Ahead, entry: Entry, parse: Plain) -> bool:
        if one.parser is None or one.parser.plain is not parse:
            return False
        return outcomes.mode_of(one.work, entry.version, self._feed.source.on_change) == "new"


def _parsed(
    parse: Plain, read: Sequence[tuple[T, Entry, bytes]], rules: Rules
) -> tuple[list[tuple[T, Entry, Task]], list[T]]:
    """What is plain of that which was read, with its task, and what is not."""
    tasks = _tasks(parse, [content for _, _, content in read], rules)
    both = list(zip(read, tasks, strict=True))
    found = [(one, entry, task) for (one, entry, _), task in both if task is not None]
    return found, [one for (one, _, _), task in both if task is None]


def _tasks(parse: Plain, contents: list[bytes], rules: Rules) -> Sequence[Task | None]:
    """The task of each content, None where it is not plain."""
    tasks = parse(contents, rules) if contents else []
    if tasks is not None:
        return tasks
    if len(contents) == 1:
        return [None]
    middle = len(contents) // 2
    return [*_tasks(parse, contents[:middle], rules), *_tasks(parse, contents[middle:], rules)]
