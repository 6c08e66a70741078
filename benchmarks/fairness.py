"""Two sources of one installation: one with very many objects waiting, and one that gets an object a second.

The second one's files are timed from their last write to the commit of their task, so that the time until they
are noticed and settled counts, too; only files written while the first source still had work are counted.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import Figure, scratch

OBJECTS = 100_000
RATE = 1.0
SECONDS = 600.0
LIMIT_MS = 2000


def measure(objects: int = OBJECTS, rate: float = RATE) -> list[Figure]:
    """Milliseconds of the second source, p50 and p99, while the first one's objects wait."""
    with scratch() as place:
        folder = Path(place)
        for name in ("hot", "quiet"):
            (folder / name).mkdir()
        for number in range(objects):
            (folder / "hot" / f"{number:06}.json").write_text(f'{{"text": "opossum number {number}"}}')
        config = folder / "labelfeed.yaml"
        config.write_text(
            f"database: sqlite:///{place}/bench.db\nprojects: {{bench: {{}}}}\nsources:\n"
            f"  - {{name: hot, project: bench, url: {place}/hot, settle: 0s, poll: 1h}}\n"
            f"  - {{name: quiet, project: bench, url: {place}/quiet, settle: 100ms, poll: 1h}}\n"
            "server: {listen: 127.0.0.1:0}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", "--config", str(config)],
            stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"),
        )  # fmt: skip
        try:
            waits = sorted(_feed(folder, rate))
        finally:
            process.terminate()
            process.wait(60)
    p50, p99 = statistics.median(waits), waits[int(len(waits) * 0.99)]
    return [
        Figure("fairness_p50", "ms", p50, met=True, runs=[len(waits)]),
        Figure("fairness_p99", "ms", p99, target="≤ 2,000 ms", met=p99 <= LIMIT_MS, runs=[len(waits)]),
    ]


def _feed(folder: Path, rate: float) -> list[float]:
    """Write a file at a time for as long as the first source has work; how long each took."""
    database = folder / "bench.db"
    written: dict[str, float] = {}
    deadline = time.monotonic() + SECONDS
    _until(lambda: _waiting(database) > 0, deadline)
    begun = time.monotonic()
    while _waiting(database) > 0 and time.monotonic() < deadline:
        name = f"{len(written):06}.txt"
        (folder / "quiet" / name).write_text("one line\n")
        written[name] = time.time()
        time.sleep(max(0.0, begun + len(written) / rate - time.monotonic()))
    _until(lambda: len(_finished(database)) >= len(written), deadline)
    finished = _finished(database)
    return [(finished[name] - at) * 1000 for name, at in written.items()]


def _until(condition: object, deadline: float) -> None:
    assert callable(condition)
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the run did not come to its end")
        time.sleep(0.05)


def _ask(database: Path, statement: str) -> list[tuple[str, float]]:
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(statement).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def _waiting(database: Path) -> float:
    """Objects of the first source that wait to be claimed."""
    rows = _ask(
        database,
        "SELECT 'ready', coalesce(sum(c.n), 0) FROM source_counts AS c JOIN sources AS s ON s.id = c.source_id"
        " WHERE s.name = 'hot' AND c.state = 'ready'",
    )
    return rows[0][1] if rows else 0


def _finished(database: Path) -> dict[str, float]:
    return dict(
        _ask(
            database,
            "SELECT o.key, o.finished_at FROM objects AS o JOIN sources AS s ON s.id = o.source_id"
            " WHERE s.name = 'quiet' AND o.state = 'done'",
        )
    )
