"""Peak memory of a run on one huge file, and on one of twice the size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import Figure, answer, config_for, import_once, in_process, scratch

CSV_BYTES = 1_000_000_000
JSON_BYTES = 500_000_000
LIMIT_MB = 300
GROWTH = 1.05
"""How much more twice the size may take: the allocator's noise, not the file."""
_ROW = b"%d,an opossum that came to the feeder at dusk and ate two plums before it left for the night,0.25,true\n"
_ITEM = (
    b'{"id": %d, "text": "an opossum that came to the feeder at dusk and ate two plums before it left", "score": 0.25}'
)


def make_csv(path: Path, size: int) -> None:
    """A table of about `size` bytes."""
    with path.open("wb") as file:
        written = file.write(b"id,text,score,seen\n")
        number = 0
        while written < size:
            written += file.write(b"".join(_ROW % row for row in range(number, number + 10_000)))
            number += 10_000


def make_json(path: Path, size: int) -> None:
    """A JSON list of about `size` bytes."""
    with path.open("wb") as file:
        written = file.write(b"[")
        number = 0
        while written < size:
            written += file.write(b",\n".join(_ITEM % row for row in range(number, number + 10_000)))
            number += 10_000
            if written < size:
                written += file.write(b",\n")
        file.write(b"]")


def ours(folder: str, database: str) -> None:
    """A `--once` run over the one file in the folder."""
    seconds, tasks = import_once(config_for(Path(folder), Path(database)))
    answer(tasks=tasks, seconds=seconds)


def measure() -> list[Figure]:
    """Peak resident memory in MB of each kind and size."""
    return [
        _grow("memory_csv", "table.csv", make_csv, CSV_BYTES),
        _grow("memory_json", "list.json", make_json, JSON_BYTES),
    ]


def _grow(name: str, file: str, make: Callable[[Path, int], None], size: int) -> Figure:
    peaks = []
    for factor in (1, 2):
        with scratch() as place:
            folder = Path(place) / "files"
            folder.mkdir()
            make(folder / file, size * factor)
            peaks.append(float(in_process("benchmarks.memory", str(folder), f"{place}/bench.db")["peak_mb"]))
    met = peaks[0] <= LIMIT_MB and peaks[1] <= peaks[0] * GROWTH
    return Figure(
        name, "MB peak", peaks[0], None, peaks[1] / peaks[0], "≤ 300 MB, no more at twice the size", met, peaks
    )


if __name__ == "__main__":
    ours(*sys.argv[1:])
