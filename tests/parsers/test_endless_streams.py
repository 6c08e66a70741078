"""How much memory hostile streams take: a small multiple of the limit on one item, never the stream's size."""

from __future__ import annotations

import bz2
import gzip
import io
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import BinaryIO, cast

import pytest

from pipeline.errors import ObjectFailed, ObjectSkipped
from pipeline.parsers import Body, Limits, Rules, select
from tests.parsers.reading import rules

LIMIT = 16 * 1024
SHORT, LONG = 256 * 1024, 1024 * 1024
"""Bytes of a stream and of a longer one, which must not take more memory; what is kept of it would be four times."""
NOISE = 32 * 1024
BOMB = 8 * 1024 * 1024
BOMB_ALLOWED = 1024 * 1024
"""What is needed of a bomb that would be eight times as large."""


class Endless(io.RawIOBase):
    """A stream that is made while it is read: a beginning, and one part again and again."""

    def __init__(self, head: bytes, part: bytes, size: int) -> None:
        some = part * (1 + 4096 // len(part))
        self._parts: Iterator[bytes] = chain((head,), repeat(some, 1 + size // len(some)))
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as many as are asked for as long as there are some."""
        while len(self._held) < size:
            part = next(self._parts, b"")
            if not part:
                break
            self._held += part
        given, self._held = self._held[:size], self._held[size:]
        return given


STREAMS = {
    "a text without end": ("a.json", b'{"a": "', b"x"),
    "a text without end in a list": ("a.json", b'[{"a": 1}, {"a": "', b"x"),
    "a number without end": ("a.json", b'{"a": 1', b"1"),
    "lists without end": ("a.json", b'{"a": ', b"["),
    "objects without end": ("a.json", b"", b'{"a":'),
    "keys without end": ("a.json", b"{", b'"a": 1, '),
    "items without end": ("a.json", b"[", b'{"a": 1},'),
    "white space without end": ("a.json", b"[", b" "),
    "lines that never close": ("a.jsonl", b"", b'{"a": [\n'),
    "bad lines": ("a.jsonl", b"", b"{" + b"]" * 500 + b"\n"),
    "unfinished records": ("a.json", b"", b"\x1e{" + b" " * 500),
    "a line without end in a table": ("a.csv", b"a,b\n", b"x"),
    "separators without end": ("a.csv", b"a,b\n", b","),
    "a header without end": ("a.csv", b"", b"a,"),
    "a quote that never closes": ("a.csv", b'a,b\n"', b"x\n"),
    "quotes without end": ("a.csv", b"a,b\n", b'"'),
    "rows that are too long": ("a.csv", b"a,b\n", b"1,2," + b"3" * 500 + b"\n"),
    "blank rows": ("a.csv", b"a,b\n", b"\n"),
    "a line without end": ("a.txt", b"", b"x"),
    "blank lines": ("a.txt", b"", b"\n"),
    "NUL without end": ("a.txt", b"", b"\0"),
    "carriage returns": ("a.txt", b"", b"\r"),
    "a page without end": ("a.html", b"", b"<p>"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_hostile_streams_take_no_more_memory_the_longer_they_are(name: str) -> None:
    """Whatever never ends is read in memory that depends on the limit on one item, and not on the stream."""
    key, head, part = STREAMS[name]
    short, long = (
        _peak(key, lambda size=size: cast("BinaryIO", Endless(head, part, size)))  # type: ignore[misc]
        for size in (SHORT, LONG)
    )
    assert long <= 1.1 * short + NOISE


@pytest.mark.parametrize("name", ["a.json.gz", "a.csv.gz", "a.txt.gz", "a.html.gz", "a.csv.bz2"])
def test_bombs_take_no_more_than_the_limits(name: str) -> None:
    """A small file that grows a thousand times is never whole in memory."""
    packed = (gzip.compress if name.endswith("gz") else bz2.compress)(b'a,b\n"' + b"x" * BOMB)
    assert _peak(name, lambda: io.BytesIO(packed)) < BOMB_ALLOWED


def _peak(key: str, opened: Callable[[], BinaryIO]) -> int:
    given = rules(limits=Limits(item_bytes=LIMIT))
    body = Body(key, f"s3://bucket/{key}", None, None, opened)
    tracemalloc.start()
    try:
        _read(key, body, given)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _read(key: str, body: Body, given: Rules) -> None:
    try:
        for piece in select(key, given).parse(body, given):
            assert len(piece.tasks) + len(piece.rejected) <= 1000
    except (ObjectFailed, ObjectSkipped):
        pass
