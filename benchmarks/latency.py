"""File appears → task committed, in a continuous run: 100 files a second with `settle: 100ms`."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import Figure, scratch

RATE = 100
SECONDS = 30
LOOK_SECONDS = 0.005


def measure(rate: int = RATE, seconds: int = SECONDS) -> list[Figure]:
    """Milliseconds from a file's last write to its task being there for a reader, p50 and p99."""
    with scratch() as place:
        folder = Path(place) / "inbox"
        folder.mkdir()
        config = Path(place) / "labelfeed.yaml"
        config.write_text(
            f"database: sqlite:///{place}/bench.db\nprojects: {{bench: {{}}}}\n"
            f"sources: [{{name: bench, project: bench, url: {folder}, settle: 100ms, poll: 1h}}]\n"
            "server: {listen: 127.0.0.1:0}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", "--config", str(config)],
            stdout=subprocess.DEVNULL, stderr=(Path(place) / "log").open("w"),
        )  # fmt: skip
        try:
            _one(folder, Path(place) / "bench.db", "warm-up")
            waits = sorted(_feed(folder, Path(place) / "bench.db", rate, seconds))
        finally:
            process.terminate()
            process.wait(60)
    p50, p99 = statistics.median(waits) * 1000, waits[int(len(waits) * 0.99)] * 1000
    return [
        Figure("latency_p50", "ms", p50, target="≤ 300 ms", met=p50 <= 300),
        Figure("latency_p99", "ms", p99, target="≤ 1,000 ms", met=p99 <= 1000, runs=[len(waits)]),
    ]


def _one(folder: Path, database: Path, name: str) -> None:
    (folder / f"{name}.txt").write_text("one line\n")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if database.exists() and _count(database) > 0:
            return
        time.sleep(0.05)
    raise RuntimeError("the continuous run imported nothing")


def _count(database: Path) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM tasks").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def _feed(folder: Path, database: Path, rate: int, seconds: int) -> list[float]:
    reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    (last,) = reader.execute("SELECT max(id) FROM tasks").fetchone()
    written: dict[str, float] = {}
    waits: list[float] = []
    begun = time.time()
    number = 0
    while len(waits) < rate * seconds and time.time() < begun + seconds + 30:
        while number < rate * seconds and time.time() >= begun + number / rate:
            name = f"{number:06}.txt"
            (folder / name).write_text(f"file {number}\n")
            written[name] = time.time()
            number += 1
        for task_id, key in reader.execute("SELECT id, key FROM tasks WHERE id > ? ORDER BY id", (last,)):
            waits.append(time.time() - written[key])
            last = task_id
        time.sleep(LOOK_SECONDS)
    reader.close()
    return waits
