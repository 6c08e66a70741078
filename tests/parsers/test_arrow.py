"""Parquet and Arrow: types that JSON has no word for, and files that are not what they say."""

from __future__ import annotations

import datetime as dt
import io
import struct
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ObjectSkipped
from pipeline.parsers import Body, Limits, select
from tests.parsers.reading import both, read, rules

LARGE, ROWS = 100_000, 1200
ALLOWED = LARGE * ROWS // 2
"""What reading may take of a table that would be twice as much, and more than that again as text."""
POOLS: dict[str, pa.MemoryPool] = {}
"""Of tests that count memory; they must live as long as anything of theirs."""


def parquet(table: pa.Table, **options: Any) -> bytes:
    """The table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(table: pa.Table, stream: bool = False) -> bytes:
    """The table as an Arrow file, or stream."""
    sink = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


CASES: list[tuple[Any, Any]] = [
    (pa.array([7], pa.uint64()), 7),
    (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    (pa.array([1.5], pa.float32()), 1.5),
    (pa.array([True]), True),
    (pa.array([None], pa.string()), None),
    (pa.array(["é"], pa.large_string()), "é"),
    (pa.array([Decimal("1.10")]), "1.10"),
    (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
    (pa.array([-1], pa.timestamp("ms")), "1969-12-31T23:59:59.999"),
    (pa.array([0], pa.timestamp("s", tz="Europe/Berlin")), "1970-01-01T00:00:00Z"),
    (pa.array([dt.date(2026, 2, 3)]), "2026-02-03"),
    (pa.array([dt.date(2026, 2, 3)], pa.date64()), "2026-02-03"),
    (pa.array([dt.time(1, 2, 3)]), "01:02:03"),
    (pa.array([-1500], pa.duration("ms")), "-PT1.500S"),
    (pa.array([b"ab"]), "YWI="),
    (pa.array([b"ab"], pa.binary(2)), "YWI="),
    (pa.array(["x"]).dictionary_encode(), "x"),
    (pa.array([[1, None]]), [1, None]),
    (pa.array([[0]], pa.list_(pa.timestamp("us"))), ["1970-01-01T00:00:00"]),
    (pa.array([{"x": b"a", "y": [1.5]}]), {"x": "YQ==", "y": [1.5]}),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), {"k": 1}),
    (pa.array([[(1, b"a")]], pa.map_(pa.int8(), pa.binary())), [[1, "YQ=="]]),
    (pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), [1.0, 2.0]),
]


VIEWS: list[tuple[Any, Any]] = [
    (pa.array(["é"], pa.string_view()), "é"),
    (pa.array([b"ab"], pa.binary_view()), "YWI="),
    (pa.array([[1, None]], pa.list_view(pa.int32())), [1, None]),
    (pa.array([[b"ab"]], pa.large_list_view(pa.binary())), ["YWI="]),
    (pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["x"])), "x"),
]


@pytest.mark.parametrize(("array", "value"), VIEWS, ids=lambda case: str(getattr(case, "type", "")))
def test_views_and_runs(array: pa.Array, value: Any) -> None:
    """Views and runs, which only Arrow has, become what the types do that they are of."""
    assert read("a.arrow", arrow(pa.table({"a": array}))).data == [{"a": value}]


@pytest.mark.parametrize(("array", "value"), CASES, ids=lambda case: str(getattr(case, "type", "")))
def test_types(array: pa.Array, value: Any) -> None:
    """Nested types, decimals, timestamps (ISO 8601), binary (base64) and dictionaries, as JSON can hold them."""
    table = pa.table({"a": array})
    assert read("a.arrow", arrow(table)).data == [{"a": value}]
    assert read("a.feather", arrow(table, stream=True), sizes=[100]).data == [{"a": value}]
    assert read("a.parquet", parquet(table), sizes=[100]).data == [{"a": value}]


def test_rows_in_order_over_row_groups() -> None:
    """Ours: Parquet and Arrow are read, and each row of each row group is one task, in order."""
    table = pa.table({"n": range(5000), "t": [f"text {n}" for n in range(5000)]})
    for content in (parquet(table, row_group_size=700), arrow(table)):
        result = read("a.parquet" if content.startswith(b"PAR1") else "a.arrow", content)
        assert [task.row for task in result.tasks] == list(range(1, 5001))
        assert result.data[4321] == {"n": 4321, "t": "text 4321"}


def test_bad_values_reject_their_row() -> None:
    """NaN and infinities, alone or nested, and NUL reject their own row."""
    nan = float("nan")
    for values in ([1.0, nan, 2.0], [[1.0], [nan], [2.0]], ["x", "a\0", "y"], [{"x": 1.0}, {"x": nan}, {"x": 2.0}]):
        result = both("a.parquet", parquet(pa.table({"a": values})))
        assert ([task.row for task in result.tasks], [row.row for row in result.rejected]) == ([1, 3], [2])


def test_configuration_holds() -> None:
    """The labelling configuration is checked for tables too."""
    given = rules('<View><Text name="t" value="$a"/></View>')
    assert both("a.parquet", parquet(pa.table({"a": ["x", None]})), given).codes == ["wrong_type"]


def test_duplicate_names() -> None:
    """Columns of one name are told apart as those of a CSV are."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert read("a.arrow", arrow(table)).data == [{"a": 1, "a.1": 2}]


def test_empty_table_is_no_tasks() -> None:
    """A table without rows is skipped as no_tasks."""
    for name, content in (("a.parquet", parquet(pa.table({"a": []}))), ("a.arrow", arrow(pa.table({"a": []})))):
        with pytest.raises(ObjectSkipped) as caught:
            both(name, content)
        assert caught.value.code == "no_tasks"


def test_broken_files_are_rejected() -> None:
    """A file that is none of its kind, or is cut off or damaged, leaves a rejected row `syntax`."""
    table = pa.table({"a": ["x" * n for n in range(100)]})
    for name, content in (("a.parquet", parquet(table)), ("a.arrow", arrow(table))):
        for broken in (b"", b"PAR1", b"ARROW1", content[:-20], content[: len(content) // 2], b"x" * 100):
            result = read(name, broken)
            assert result.codes == ["syntax"]
            assert [row["a"] for row in result.data] == ["x" * n for n in range(len(result.tasks))]


def repeated(rows: int) -> pa.Array:
    """Rows of one large text, which is there once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * LARGE]))


def texts() -> pa.Array:
    """The same, of rows that hold their text themselves."""
    return repeated(ROWS).cast(pa.string())


def numbers() -> pa.Array:
    """Rows of a long list each."""
    return pa.array([[0] * LARGE] * (ROWS // 20), pa.list_(pa.int8()))


BOMBS: dict[str, Callable[[], pa.Array]] = {
    "a.parquet of texts": texts,
    "b.parquet of a dictionary": lambda: repeated(ROWS),
    "c.parquet of texts in lists": lambda: pa.ListArray.from_arrays(list(range(0, ROWS + 1, 2)), texts()),
    "d.parquet of texts in objects": lambda: pa.StructArray.from_arrays([texts()], ["b"]),
    "e.parquet of lists of numbers": numbers,
    "f.arrow of a dictionary": lambda: repeated(ROWS),
    "g.arrow of runs": lambda: pa.RunEndEncodedArray.from_arrays(pa.array([ROWS], pa.int32()), pa.array(["x" * LARGE])),
    "h.arrow of views": lambda: pa.Array.from_buffers(
        pa.string_view(),
        ROWS,
        [None, pa.py_buffer(struct.pack("<i4sii", LARGE, b"xxxx", 0, 0) * ROWS), pa.py_buffer(b"x" * LARGE)],
    ),
    "i.arrow of views of a list": lambda: pa.ListViewArray.from_arrays(
        pa.array([0] * (ROWS // 20), pa.int32()),
        pa.array([LARGE] * (ROWS // 20), pa.int32()),
        pa.array([0] * LARGE, pa.int8()),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_of_large_rows_are_not_whole_in_memory(name: str) -> None:
    """A file in which the same large value stands in every row is read some rows at a time, however small it is."""
    key, table = name.partition(" ")[0], pa.table({"a": BOMBS[name]()})
    content = (parquet if key.endswith("parquet") else arrow)(table)
    del table
    assert len(content) < LARGE * 10
    pool = POOLS.setdefault(name, pa.proxy_memory_pool(pa.default_memory_pool()))
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        body = Body(key, f"s3://bucket/{key}", len(content), content)
        rows = sum(len(piece.tasks) for piece in select(key, rules()).parse(body, rules()))
        taken = pool.max_memory() + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(pa.default_memory_pool())

    assert rows >= ROWS // 20
    assert taken < ALLOWED


def test_a_row_beyond_the_limit_is_rejected_alone() -> None:
    """A row that is larger than the limit is `too_large`, whether it had to be written out to know that or not."""
    for size in (200, 20_000):
        table = pa.table({"a": [[1], [1] * size, [2]]})
        for key, content in (("a.parquet", parquet(table, row_group_size=1)), ("a.arrow", arrow(table))):
            result = read(key, content, rules(limits=Limits(item_bytes=100)))
            assert (result.data, [(row.row, row.code) for row in result.rejected]) == (
                [{"a": [1]}, {"a": [2]}],
                [(2, "too_large")],
            )


def shared(value: Callable[[list[str]], pa.Array]) -> pa.Table:
    """A column of short texts, of which one row is a good part of what may be large."""
    return pa.table({"a": value([f"{number:03}" * 200 for number in range(251)])})


VIEWED: dict[str, Callable[[list[str]], pa.Array]] = {
    "views": lambda texts: pa.array(texts, pa.string_view()),
    "a dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "a list of views": lambda texts: pa.array([[text] for text in texts], pa.list_(pa.string_view())),
    "an object of views": lambda texts: pa.array([{"b": text} for text in texts], pa.struct([("b", pa.string_view())])),
    "views of a list": lambda texts: pa.ListViewArray.from_arrays(
        pa.array(range(len(texts)), pa.int32()), pa.array([1] * len(texts), pa.int32()), pa.array(texts)
    ),
    "runs": lambda texts: pa.RunEndEncodedArray.from_arrays(range(1, len(texts) + 1), pa.array(texts)),
    "a map": lambda texts: pa.array([[("k", text)] for text in texts], pa.map_(pa.string(), pa.string())),
}


@pytest.mark.parametrize("name", VIEWED)
@pytest.mark.parametrize("long", [0, 4000])
def test_a_row_alone_is_not_taken_for_what_it_shares(name: str, long: int) -> None:
    """The last of 251 rows is a piece by itself, and so is each beside a long one: none is large for its neighbours."""
    table = shared(lambda texts: VIEWED[name]([texts[0] + "x" * long, *texts[1:]]))
    result = read("a.arrow", arrow(table), rules(limits=Limits(item_bytes=5000)))
    assert result.rejected == []
    assert len(result.data) == 251


def test_a_row_that_repeats_one_value_is_not_made() -> None:
    """What a list of references comes to is known before it is written out."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 4000]))
    table = pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 1, 10_000], pa.int32()), texts)})
    tracemalloc.start()
    try:
        result = read("a.arrow", arrow(table), rules(limits=Limits(item_bytes=5000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(row.row, row.code) for row in result.rejected] == [(2, "too_large")]
    assert len(result.data) == 1
    assert peak < 5_000_000
