"""Arrow's compressed record batches: none is decoded that would take more than it may."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ObjectFailed
from pipeline.parsers import Limits
from pipeline.parsers.arrowlengths import File, Lengths
from tests.parsers.reading import read, rules
from tests.parsers.test_any_bytes import EXAMPLES, read_or_fail

MIB = 1024 * 1024
POOLS: list[pa.MemoryPool] = []
"""Of tests that count memory; they must live as long as anything of theirs."""
SMALL = Limits(inflate_ratio=1, inflate_free_bytes=MIB, batch_bytes=MIB)
READING = """
import resource, sys
from pipeline.config import ParseOptions
from pipeline.errors import ObjectFailed
from pipeline.parsers import Body, Rules, select
content, code, rules = open(sys.argv[1], "rb").read(), "", Rules.of(ParseOptions())
parser = select("a.arrow", rules)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(parser.parse(Body("a.arrow", "s3://bucket/a.arrow", len(content), content), rules))
except ObjectFailed as error:
    code = error.code
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
"""Prints how a file ended and the KiB that its reading took."""


def packed(
    table: pa.Table, codec: str = "zstd", stream: bool = False, rows: int | None = None, **options: Any
) -> bytes:
    """The table as an Arrow file or stream with compressed buffers."""
    sink = io.BytesIO()
    written = pa.ipc.IpcWriteOptions(compression=codec, **options)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema, options=written) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


@contextmanager
def counting() -> Iterator[pa.MemoryPool]:
    """All that pyarrow takes meanwhile comes out of this pool."""
    POOLS.append(pa.proxy_memory_pool(pa.default_memory_pool()))
    pa.set_memory_pool(POOLS[-1])
    try:
        yield POOLS[-1]
    finally:
        pa.set_memory_pool(pa.default_memory_pool())


def text() -> pa.Array:
    """Few rows of zeros, 256 MiB together."""
    return pa.array([bytes(MIB)] * 256, pa.binary())


BOMBS: dict[str, Callable[[], pa.Array]] = {
    "values": text,
    "values in lists": lambda: pa.ListArray.from_arrays([0, 256], text()),
    "a dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array([0]), text()),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_bomb_is_not_decoded(name: str, codec: str, stream: bool) -> None:
    """A small file whose batch or dictionary comes to far more is `compressed`, and no buffer of it is decoded."""
    content = packed(pa.table({"a": BOMBS[name]()}), codec, stream)
    assert len(content) < 2 * MIB
    given_rules = rules(limits=Limits(inflate_ratio=100))
    with counting() as pool:
        for sizes in (None, [100_000]):
            assert read_or_fail("a.arrow", content, given_rules, sizes) == ("ObjectFailed", "compressed")
    assert pool.max_memory() < 4 * MIB


def test_a_bomb_takes_no_memory(tmp_path: Any) -> None:
    """A process that reads a small file which comes to 256 MiB stays about as small as it was."""
    (tmp_path / "a.arrow").write_bytes(packed(pa.table({"a": pa.array([bytes(MIB)] * 256, pa.binary())})))
    done = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path / "a.arrow")], capture_output=True, text=True, check=True
    )
    code, taken = done.stdout.split()
    assert code == "compressed"
    assert int(taken) < 64 * 1024


def test_ordinary_files_come_back() -> None:
    """Compressed files and streams of any batches, dictionaries that grow and buffers left as they are, come back."""
    words = [f"word {n % 7}" for n in range(1000)]
    parts = [pa.array(words[:end]).dictionary_encode().slice(end - 500) for end in (500, 1000)]
    table = pa.table(
        {"n": range(1000), "t": words, "d": pa.chunked_array(parts), "l": [["x" * n] for n in range(1000)]}
    )
    for codec, stream, rows in itertools.product(("zstd", "lz4"), (False, True), (None, 77)):
        content = packed(table, codec, stream, rows, emit_dictionary_deltas=True)
        assert read("a.arrow", content).data == table.to_pylist()
        assert read("a.feather", content, sizes=[1000]).data == table.to_pylist()
        assert read("a.arrow", packed(table, codec, stream, use_legacy_format=True)).data == table.to_pylist()


def test_a_batch_has_its_limit() -> None:
    """A batch may come to so much with its dictionaries, and any number of such batches in turn."""
    table = pa.table(
        {"a": [f"{n:0100}" for n in range(1000)], "d": pa.array(["x" * 20_000] * 1000).dictionary_encode()}
    )
    given_rules = rules(limits=Limits(batch_bytes=60_000))
    for stream in (False, True):
        assert len(read("a.arrow", packed(table, stream=stream, rows=200), given_rules).tasks) == 1000
        with pytest.raises(ObjectFailed, match="more than 60000 bytes") as caught:
            read("a.arrow", packed(table, stream=stream, rows=500), given_rules)
        assert caught.value.code == "compressed"


def test_growth_is_that_of_all_batches() -> None:
    """Batches that are each within the limits are not together, where they grow too much."""
    table = pa.table({"a": ["x" * 1000] * 10_000})
    for stream in (False, True):
        content = packed(table, stream=stream, rows=500)
        found = read_or_fail("a.arrow", content, rules(limits=Limits(inflate_free_bytes=MIB, inflate_ratio=50)))
        assert found == ("ObjectFailed", "compressed")
        assert len(read("a.arrow", content).tasks) == 10_000


def counted(content: bytes) -> bool:
    """Whether each message of the bytes could be counted; all else is ValueError or ObjectFailed."""
    file: File = pa.BufferReader(content)
    lengths = Lengths(file, Limits())
    try:
        list(lengths.of_file())
        lengths.of_stream(0)
    except (ValueError, ObjectFailed):
        return False
    return True


def whole(large: bool, stream: bool) -> bytes:
    """A compressed table of few rows, or one that comes to 32 MiB."""
    words = pa.array(["x" * 16 * MIB if large else "x", None])
    return packed(pa.table({"a": words, "d": words.dictionary_encode()}), stream=stream)


WHOLE = {f"{large=} {stream=}": whole(large, stream) for large in (False, True) for stream in (False, True)}


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 8))
def test_any_bytes_are_counted_or_refused(content: bytes, words: int) -> None:
    """Any bytes, behind whatever looks like the head of a message, are counted or refused, and come to an end."""
    counted(content)
    counted(b"\xff\xff\xff\xff" + len(content).to_bytes(4, "little") + bytes(4 * words) + content + b"ARROW1")


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(st.data())
def test_flipped_bits_do_no_harm(name: str, data: st.DataObject) -> None:
    """A compressed file with flipped bits gives tasks, rejections, or fails, and never takes more than it may."""
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    counted(bytes(content))
    with counting() as pool:
        found = read_or_fail("a.arrow", bytes(content), rules(limits=SMALL))
    assert pool.max_memory() < 4 * MIB
    if isinstance(found, tuple):
        assert found in {("ObjectFailed", "compressed"), ("ObjectFailed", "encoding"), ("ObjectSkipped", "no_tasks")}
    else:
        assert found.tasks or found.rejected
