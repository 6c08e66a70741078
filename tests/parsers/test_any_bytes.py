"""Whatever the bytes: valid tasks come back equal, and nothing else does any harm."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ObjectFailed, ObjectSkipped
from pipeline.parsers import Limits
from tests.parsers.reading import Result, read, rules

EXAMPLES = int(os.environ.get("LABELFEED_EXAMPLES", "60"))
"""How many each test tries, and four times as many where it is any bytes."""
SOME = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress,
}  # fmt: skip
CONFIG = '<View><Text name="t" value="$text"/><Paragraphs name="p" value="$turns"/></View>'

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=12)
names = texts.filter(lambda name: name not in ("data", "annotations", "predictions", "completions"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
lists = st.lists(scalars | st.dictionaries(texts, scalars, max_size=2), max_size=3)
values = scalars | lists | st.dictionaries(texts, scalars | lists, max_size=3)
flat = st.dictionaries(names, values, min_size=1, max_size=4)
items = flat | st.builds(lambda data: {"data": data}, flat)
sizes = st.none() | st.lists(st.integers(1, 9), min_size=1, max_size=4)
limits = st.sampled_from([Limits(), Limits(item_bytes=64), Limits(item_bytes=7)])


def data_of(item: dict[str, Any]) -> Any:
    """What the task of an item holds."""
    return item.get("data") or item


def read_or_fail(key: str, content: bytes, *args: Any) -> Result | tuple[str, str]:
    """What came of a file; only the two outcomes that a parser may raise are caught."""
    try:
        return read(key, content, *args)
    except (ObjectFailed, ObjectSkipped) as error:
        return type(error).__name__, error.code


@SOME
@given(st.lists(items, min_size=1, max_size=6), sizes, st.sampled_from([None, 1]), st.booleans())
def test_json_comes_back(tasks: list[Any], sizes: list[int] | None, indent: int | None, escaped: bool) -> None:
    """Tasks written as a list or as lines, however laid out, compressed or not, in any reads, come back equal."""
    wanted = [data_of(task) for task in tasks]
    texts = [json.dumps(task, indent=indent, ensure_ascii=escaped) for task in tasks]
    for key, text in (
        ("a.json", "[" + ", ".join(texts) + "]"),
        ("a.jsonl", "\n".join(texts)),
        ("a.json", "".join(texts)),
    ):
        assert read(key, text, sizes=sizes).data == wanted
        assert read(key, text.encode("utf-16"), sizes=sizes).data == wanted
        for suffix, pack in PACKERS.items():
            assert read(key + suffix, pack(text.encode()), sizes=sizes).data == wanted


@SOME
@given(
    st.lists(st.lists(texts, min_size=2, max_size=2), min_size=1, max_size=6),
    sizes,
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_csv_comes_back(rows: list[list[str]], sizes: list[int] | None, separator: str) -> None:
    """Rows written as CSV or TSV in any quoting, compressed or not, come back equal, cell for cell."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        sink = io.StringIO()
        writer = csv.writer(sink, delimiter=separator, quoting=quoting)
        writer.writerows([["a", "b"], *rows])
        plain = "a.tsv" if separator == "\t" else "a.csv"
        given_rules = rules(types="text", separator=None if separator == "\t" else separator)
        for suffix, pack in PACKERS.items():
            result = read(plain + suffix, pack(sink.getvalue().encode()), given_rules, sizes)
            assert [[row["a"], row["b"]] for row in result.data] == rows
            assert not result.rejected


@SOME
@given(
    st.lists(
        st.sampled_from(["", "1", "-5", "2.5", "1e3", "true", "False", "x", "007", "9" * 19]), min_size=1, max_size=8
    )
)
def test_csv_types_lose_nothing(cells: list[str]) -> None:
    """Whatever type a column gets, each cell's value is that of its text, and all have that type."""
    found = [row["a"] for row in read("a.csv", "i,a\n" + "".join(f"0,{cell}\n" for cell in cells)).data]
    kinds = {type(value) for value, cell in zip(found, cells, strict=True) if cell}
    assert len(kinds) <= 1
    for value, cell in zip(found, cells, strict=True):
        if isinstance(value, bool):
            assert str(value).lower() == cell.lower()
        elif isinstance(value, int | float):
            assert math.isclose(value, float(cell), rel_tol=0)
        else:
            assert value == cell


@SOME
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1) | st.none(), texts, st.floats(allow_nan=False, allow_infinity=False)
        ),
        min_size=1,
    ),
    sizes,
    st.sampled_from(["none", "snappy", "gzip", "zstd"]),
    st.integers(1, 5),
)
def test_parquet_comes_back(rows: list[Any], sizes: list[int] | None, codec: str, group: int) -> None:
    """Rows written as Parquet, by any codec, in groups of any size and in any reads, come back equal; compressed as a
    whole, too."""
    columns = dict(zip("abc", (list(column) for column in zip(*rows, strict=True)), strict=True))
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, compression=codec, row_group_size=group)
    for suffix, pack in PACKERS.items():
        found = read("a.parquet" + suffix, pack(sink.getvalue()), sizes=sizes and [100 * size for size in sizes]).data
        assert [(row["a"], row["b"], row["c"]) for row in found] == rows


@SOME
@given(st.lists(texts.filter(lambda text: bool(text.strip()) and not set(text) & {"\r", "\n"}), min_size=1), sizes)
def test_text_comes_back(lines: list[str], sizes: list[int] | None) -> None:
    """Lines of text, compressed or not, come back equal."""
    for suffix, pack in PACKERS.items():
        found = read("a.txt" + suffix, pack("\n".join(lines).encode()), sizes=sizes).data
        assert [row["text"] for row in found] == lines


fragments = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"1",
        b"-",
        b"1e999",
        b"9" * 30,
        b"NaN",
        b"null",
        b"true",
        b'"data"',
        b'{"a":1}',
        b'{"data":{"x":"y"}}',
        b" ",
        b"\t",
        b";",
        b"a,b\n",
        b'"x"y',
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\0",
        "é".encode(),
        b"[" * 600,
        b'{"a":',
        b"<!--",
        b"<meta charset=gbk>",
        b"<p ",
    ]
)
hostile = st.lists(fragments, max_size=25).map(b"".join) | st.binary(max_size=60)


@settings(max_examples=4 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hostile,
    st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt", "a.html", "x"]),
    sizes,
    limits,
    st.booleans(),
)
@example(b'{"a":[\n' * 40, "a.jsonl", [1], Limits(item_bytes=64), False)
@example(b'[{"a":1},{"a":' + b"9" * 200, "a.json", [3], Limits(item_bytes=7), True)
def test_any_bytes_do_no_harm(
    content: bytes, key: str, sizes: list[int] | None, limits: Limits, configured: bool
) -> None:
    """Any bytes give tasks, rejections, ObjectFailed or ObjectSkipped, the same in whatever reads they come."""
    given_rules = rules(CONFIG if configured else None, limits=limits, direct=configured)
    streamed = read_or_fail(key, content, given_rules, sizes or [1])
    if not isinstance(streamed, tuple):
        assert streamed.tasks or streamed.rejected
        for task in streamed.tasks:
            assert json.loads(task.data.encode())
            assert "\\u0000" not in task.data.replace("\\\\", "")
    assert read_or_fail(key, content, given_rules, [2, 5]) == streamed
    assert read_or_fail(key, content, given_rules, None) == streamed


@SOME
@given(st.binary(max_size=80), st.sampled_from([".gz", ".bz2", ".zst"]), sizes)
def test_any_compressed_bytes_do_no_harm(content: bytes, suffix: str, sizes: list[int] | None) -> None:
    """Any bytes under a compressed name fail as compressed, or are what is in them."""
    found = read_or_fail("a.txt" + suffix, content, rules(), sizes)
    if isinstance(found, tuple):
        assert found in {("ObjectFailed", "compressed"), ("ObjectFailed", "encoding"), ("ObjectSkipped", "no_tasks")}
    else:
        assert found.tasks or found.rejected


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@SOME
@given(st.data())
def test_damaged_tables_do_no_harm(name: str, data: st.DataObject) -> None:
    """A table with damaged bytes gives tasks, rejections or a failed object."""
    table = pa.table(
        {"a": ["x", "yy", None], "b": [[1], [], [2, 3]], "c": pa.array(["u", "v", "u"]).dictionary_encode()}
    )
    sink = io.BytesIO()
    if name == "a.parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    content = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = read_or_fail(name, bytes(content))
    if isinstance(found, tuple):
        assert found in {("ObjectFailed", "encoding"), ("ObjectSkipped", "no_tasks")}
    else:
        assert found.tasks or found.rejected
        assert [task.row for task in found.tasks] == list(range(1, len(found.tasks) + 1)) or found.rejected
