"""A second pass over 100,000 unchanged files, against os.walk and stat."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from benchmarks.measuring import Figure, answer, config_for, import_once, in_process, interleaved, scratch

FILES = 100_000


def make(folder: Path) -> None:
    """Write small text files, 1,000 to a folder."""
    for number in range(FILES):
        place = folder / f"{number // 1000:03}"
        place.mkdir(exist_ok=True)
        (place / f"{number:06}.txt").write_bytes(b"a line\n")


def raw(folder: str) -> None:
    """The bare walk."""
    begun = time.perf_counter()
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(place, name))
            count += 1
    answer(rate=count / (time.perf_counter() - begun))


def ours(folder: str, database: str) -> None:
    """A `--once` run over the same files."""
    seconds, tasks = import_once(config_for(Path(folder), Path(database)))
    answer(rate=FILES / seconds, tasks=tasks)


def measure(rounds: int = 3) -> list[Figure]:
    """Files per second of both; the first run, which imports, is not counted."""
    with scratch() as place:
        folder = Path(place) / "files"
        folder.mkdir()
        make(folder)
        database = f"{place}/bench.db"
        in_process("benchmarks.unchanged_pass", "ours", str(folder), database)
        mine, bare, ratio, runs = interleaved(
            rounds,
            lambda: float(in_process("benchmarks.unchanged_pass", "ours", str(folder), database)["rate"]),
            lambda: float(in_process("benchmarks.unchanged_pass", "raw", str(folder))["rate"]),
        )
    times = 1 / ratio
    return [Figure("unchanged_pass", "files/s", mine, bare, times, "≤ 3 times the walk's time", times <= 3, runs)]


if __name__ == "__main__":
    {"raw": raw, "ours": ours}[sys.argv[1]](*sys.argv[2:])
