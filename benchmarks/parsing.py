"""Parsing alone, from a file to validated tasks that are ready for the database, against the plainest code.

That is for JSON `orjson.loads` of the whole file (of each line), for CSV csv.reader, a dict and orjson.dumps of each
row, for Parquet to_pylist and orjson.dumps, for text orjson.dumps of each line.
Memory is compared between a file and one of ten times the size.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson

from benchmarks.csv_rows import make as make_csv
from benchmarks.measuring import Figure, answer, in_process, interleaved, scratch
from pipeline.app.roles import collect_seldom
from pipeline.config import ParseOptions
from pipeline.labelconfig import LabelConfig
from pipeline.parsers import Body, Rules, select

ITEMS = 250_000
ROWS = 1_000_000
GROWTH = 1.1
"""How much more memory ten times the size may take."""
CONFIG = '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>'
_ITEM = (
    '{"data": {"text": "opossum number %d at the feeder", "score": %.4f, "seen": true, "camera": "c%d"},'
    ' "meta": {"n": %d}}'
)
_PIECE = 50_000


def make_list(path: Path, rows: int) -> None:
    """A JSON list of task documents."""
    with path.open("w") as file:
        file.write("[")
        for number in range(rows):
            file.write((",\n" if number else "\n") + _ITEM % (number, number / 7, number % 17, number))
        file.write("\n]\n")


def make_lines(path: Path, rows: int) -> None:
    """The same documents, a line each."""
    with path.open("w") as file:
        for number in range(rows):
            file.write(_ITEM % (number, number / 7, number % 17, number) + "\n")


def make_text(path: Path, rows: int) -> None:
    """Lines of text."""
    with path.open("w") as file:
        for number in range(rows):
            file.write(f"the keeper wrote that opossum number {number} came to the feeder at dusk\n")


def make_parquet(path: Path, rows: int) -> None:
    """The table of the CSV, with its types."""
    import pyarrow as pa  # noqa: PLC0415 - the others' memory is measured without it
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = pa.schema([
        ("id", pa.int64()), ("text", pa.string()), ("score", pa.float64()), ("seen", pa.bool_()), ("note", pa.string()),
    ])  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _PIECE):
            numbers = range(start, min(start + _PIECE, rows))
            columns = [
                list(numbers),
                [f"opossum number {number} at the feeder" for number in numbers],
                [round(number / 7, 4) for number in numbers],
                [bool(number % 3) for number in numbers],
                [f'camera {number % 17}, "dusk"' for number in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _raw_list(path: str) -> int:
    return len(orjson.loads(Path(path).read_bytes()))


def _raw_lines(path: str) -> int:
    return len([orjson.loads(line) for line in Path(path).read_bytes().splitlines()])


def _raw_csv(path: str) -> int:
    count = 0
    with open(path, newline="") as file:
        reader = csv.reader(file)
        names = next(reader)
        for cells in reader:
            orjson.dumps(dict(zip(names, cells, strict=True))).decode()
            count += 1
    return count


def _raw_parquet(path: str) -> int:
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    count = 0
    for batch in pq.ParquetFile(path).iter_batches():
        count += len([orjson.dumps(row).decode() for row in batch.to_pylist()])
    return count


def _raw_text(path: str) -> int:
    count = 0
    with open(path) as file:
        for line in file:
            orjson.dumps({"text": line.rstrip("\n")}).decode()
            count += 1
    return count


class Case(NamedTuple):
    """A format: what writes a file of so many rows, the plain code that reads it, and the share to reach."""

    key: str
    rows: int
    make: Callable[[Path, int], None]
    raw: Callable[[str], int]
    target: float


CASES = {
    "json_list": Case("a.json", ITEMS, make_list, _raw_list, 0.5),
    "json_lines": Case("a.jsonl", ITEMS, make_lines, _raw_lines, 0.8),
    "csv": Case("a.csv", ROWS, make_csv, _raw_csv, 0.6),
    "parquet": Case("a.parquet", ROWS, make_parquet, _raw_parquet, 0.6),
    "text": Case("a.txt", ROWS, make_text, _raw_text, 0.5),
}


def make(name: str, path: str, rows: str) -> None:
    """Write a file, in a process of its own: a child's peak memory begins at its parent's."""
    CASES[name].make(Path(path), int(rows))
    answer()


def raw(name: str, path: str) -> None:
    """The plain code."""
    begun = time.perf_counter()
    count = CASES[name].raw(path)
    answer(rate=count / (time.perf_counter() - begun))


def ours(name: str, path: str) -> None:
    """The parser, with validation against a labelling configuration."""
    collect_seldom()
    rules = Rules.of(ParseOptions(), LabelConfig.parse(CONFIG))
    body = Body(CASES[name].key, f"file://{path}", Path(path).stat().st_size, None, partial(Path(path).open, "rb"))
    begun = time.perf_counter()
    count = sum(len(piece.tasks) for piece in select(body.key, rules).parse(body, rules))
    answer(rate=count / (time.perf_counter() - begun), count=count)


def measure(rounds: int = 3) -> list[Figure]:
    """For each format rows per second of both, and how memory grows with ten times the rows."""
    return [figure for name, case in CASES.items() for figure in _measured(name, case, rounds)]


def _measured(name: str, case: Case, rounds: int) -> list[Figure]:
    with scratch() as place:
        path, large = Path(place) / case.key, Path(place) / f"large-{case.key}"
        in_process("benchmarks.parsing", "make", name, str(path), str(case.rows))

        def once(what: str, of: Path = path) -> dict[str, float]:
            done = in_process("benchmarks.parsing", what, name, str(of))
            if done.get("count", case.rows) not in (case.rows, 10 * case.rows):
                raise RuntimeError(f"{name}: {done['count']} tasks came of {case.rows} rows")
            return done

        mine, bare, ratio, runs = interleaved(rounds, lambda: once("ours")["rate"], lambda: once("raw")["rate"])
        small = once("ours")["peak_mb"]
        in_process("benchmarks.parsing", "make", name, str(large), str(10 * case.rows))
        grown = once("ours", large)["peak_mb"]
    return [
        Figure(f"parse_{name}", "rows/s", mine, bare, ratio, f"≥ {case.target} of it", ratio >= case.target, runs),
        Figure(
            f"parse_{name}_memory", "MB", grown, small, grown / small, f"≤ {GROWTH} times at ten times the size",
            grown <= GROWTH * small, [],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    {"make": make, "raw": raw, "ours": ours}[sys.argv[1]](*sys.argv[2:])
