"""One CSV of 1,000,000 rows × 5 columns into SQLite, against csv, orjson and executemany."""

from __future__ import annotations

import csv
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.measuring import Figure, answer, config_for, import_once, in_process, interleaved, scratch

ROWS = 1_000_000
BATCH = 10_000


def make(path: Path, rows: int = ROWS) -> None:
    """Write the table: an integer, a text, a number, a boolean and a quoted text."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "score", "seen", "note"])
        for number in range(rows):
            seen = "true" if number % 3 else "false"
            note = f'camera {number % 17}, "dusk"'
            writer.writerow([number, f"opossum number {number} at the feeder", f"{number / 7:.4f}", seen, note])


def raw(path: str, database: str) -> None:
    """The bare loop."""
    begun = time.perf_counter()
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data TEXT)")
    count = 0
    with open(path, newline="") as file:
        reader = csv.reader(file)
        names = next(reader)
        rows: list[tuple[str]] = []
        for cells in reader:
            rows.append((orjson.dumps(dict(zip(names, cells, strict=True))).decode(),))
            count += 1
            if len(rows) == BATCH:
                _insert(connection, rows)
                rows = []
    _insert(connection, rows)
    connection.close()
    answer(rate=count / (time.perf_counter() - begun))


def _insert(connection: sqlite3.Connection, rows: list[tuple[str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO t (data) VALUES (?)", rows)
    connection.execute("COMMIT")


def ours(path: str, database: str) -> None:
    """The same table by a `--once` run."""
    seconds, tasks = import_once(config_for(Path(path).parent, Path(database)))
    answer(rate=tasks / seconds)


def measure(rounds: int = 3) -> list[Figure]:
    """Rows per second of both."""
    with scratch() as place:
        folder = Path(place) / "tables"
        folder.mkdir()
        make(folder / "table.csv")

        def once(what: str) -> float:
            with tempfile.TemporaryDirectory(dir=place) as fresh:
                done = in_process("benchmarks.csv_rows", what, str(folder / "table.csv"), f"{fresh}/bench.db")
                return float(done["rate"])

        mine, bare, ratio, runs = interleaved(rounds, lambda: once("ours"), lambda: once("raw"))
    return [Figure("csv_rows", "rows/s", mine, bare, ratio, "≥ 0.5 of the loop", ratio >= 0.5, runs)]


if __name__ == "__main__":
    {"raw": raw, "ours": ours}[sys.argv[1]](*sys.argv[2:])
