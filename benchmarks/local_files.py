"""20,000 local one-task JSON files of about 2 KB into SQLite, against a bare read, parse and insert loop."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.measuring import Figure, answer, config_for, import_once, in_process, interleaved, scratch

FILES = 20_000
BATCH = 500
WORDS = [
    "the",
    "keeper",
    "wrote",
    "that",
    "an",
    "opossum",
    "came",
    "to",
    "the",
    "feeder",
    "at",
    "dusk",
    "and",
    "ate",
    "two",
    "plums",
    "before",
    "it",
    "left",
]


def make(folder: Path, files: int = FILES) -> None:
    """Write the files, 1,000 to a folder."""
    for number in range(files):
        place = folder / f"{number // 1000:03}"
        place.mkdir(exist_ok=True)
        text = " ".join(WORDS[(number + step) % len(WORDS)] for step in range(350))
        task = {"id": number, "text": text, "meta": {"camera": f"c{number % 17}", "score": number / 7}}
        (place / f"{number:06}.json").write_bytes(orjson.dumps(task))


def raw(folder: str, database: str) -> None:
    """The bare loop: every file read, parsed and inserted, in one process."""
    begun = time.perf_counter()
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, key TEXT, data TEXT)")
    rows: list[tuple[str, str]] = []
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                body = file.read()
            rows.append((path, orjson.dumps(orjson.loads(body)).decode()))
            count += 1
            if len(rows) == BATCH:
                _insert(connection, rows)
                rows = []
    _insert(connection, rows)
    connection.close()
    answer(rate=count / (time.perf_counter() - begun))


def _insert(connection: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO t (key, data) VALUES (?, ?)", rows)
    connection.execute("COMMIT")


def ours(folder: str, database: str) -> None:
    """The same files by a `--once` run."""
    seconds, tasks = import_once(config_for(Path(folder), Path(database)))
    answer(rate=tasks / seconds)


def measure(rounds: int = 3) -> list[Figure]:
    """Files per second of both."""
    with scratch() as place:
        folder = Path(place) / "files"
        folder.mkdir()
        make(folder)

        def once(what: str) -> float:
            with tempfile.TemporaryDirectory(dir=place) as fresh:
                return float(in_process("benchmarks.local_files", what, str(folder), f"{fresh}/bench.db")["rate"])

        mine, bare, ratio, runs = interleaved(rounds, lambda: once("ours"), lambda: once("raw"))
    met = ratio >= 0.35 and mine >= 4000
    return [Figure("local_files", "files/s", mine, bare, ratio, "≥ 0.35 of the loop and ≥ 4,000/s", met, runs)]


if __name__ == "__main__":
    {"raw": raw, "ours": ours}[sys.argv[1]](*sys.argv[2:])
