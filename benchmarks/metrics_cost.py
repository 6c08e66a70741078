"""What metrics cost: calls made by an import of 20,000 files, times the cost of one, with the reading of gauges that a
process does meanwhile; and a scrape of a ledger of 10,000,000 objects, all of them there."""

from __future__ import annotations

import sqlite3
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks import local_files
from benchmarks.measuring import Figure, answer, config_for, in_process, scratch
from pipeline.app import App, gauges
from pipeline.app.gauges import Gauges
from pipeline.metrics import Labels, Metrics, described
from pipeline.server import Server

CALLS = 20_000
"""How often a call is made alone to learn its cost."""
OBJECTS = 10_000_000
SCRAPES = 20
READS = 20
"""How often gauges are read to learn what one reading costs."""
READ_SECONDS = 0.1
"""How often gauges are read meanwhile: fifty times as often as in a process."""
COST_LIMIT = 0.02
SCRAPE_LIMIT = 0.1


class Counted(Metrics):
    """Metrics that remember which calls were made, with one example of each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], tuple[tuple[Any, ...], dict[str, str]]] = {}

    def _note(self, how: str, name: str, values: tuple[Any, ...], labels: dict[str, str]) -> None:
        self.calls[how, name] += 1
        self.examples.setdefault((how, name), ((name, *values), labels))

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """As `Metrics.add`."""
        self._note("add", name, (amount,), labels)
        super().add(name, amount, **labels)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """As `Metrics.set`."""
        self._note("set", name, (value,), labels)
        super().set(name, value, **labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """As `Metrics.observe`."""
        self._note("observe", name, (value,), labels)
        super().observe(name, value, **labels)

    def replace(self, name: str, values: Mapping[Labels, float], /) -> None:
        """As `Metrics.replace`."""
        self._note("replace", name, (values,), {})
        super().replace(name, values)

    def cost(self) -> float:
        """Processor seconds of all calls, each measured alone on other metrics."""
        alone = Metrics()
        total = 0.0
        for (how, name), count in self.calls.items():
            values, labels = self.examples[how, name]
            call = getattr(alone, how)
            began = time.process_time()
            for _ in range(CALLS):
                call(*values, **labels)
            total += (time.process_time() - began) / CALLS * count
        return total


def imported(folder: str, database: str) -> None:
    """One import of the files, and what its calls to the metrics cost."""
    part, calls = share(Path(folder), Path(database))
    answer(share=part, calls=calls)


def share(folder: Path, database: Path) -> tuple[float, int]:
    """What part of an import's processor time its calls to the metrics and its gauges are, and how many calls."""
    metrics = Counted()
    config = config_for(folder, database)
    began, started = time.process_time(), time.monotonic()
    with App.open(config, metrics=metrics) as app:
        app.run_once(lambda _: None)
        seconds, lasted = time.process_time() - began, time.monotonic() - started
        reading = _reading(Gauges(config, app._data, None, metrics, frozenset({"dispatch"})))  # noqa: SLF001 - as below
    cost = metrics.cost() + reading * (1 + lasted / gauges.READ_SECONDS)
    return cost / seconds, sum(metrics.calls.values())


def _reading(of_process: Gauges) -> float:
    """Processor seconds of one reading of all gauges."""
    began = time.process_time()
    for _ in range(READS):
        of_process.read()
    return (time.process_time() - began) / READS


def scraped(folder: str, database: str) -> None:
    """Scrapes of a ledger of 10,000,000 objects."""
    slowest, reading = scrapes(Path(folder), Path(database), OBJECTS)
    answer(scrape=slowest, reading=reading)


def scrapes(folder: Path, database: Path, rows: int) -> tuple[float, float]:
    """Seconds of the slowest of some scrapes of a ledger of so many objects while its gauges are read; and of that
    reading."""
    config = config_for(folder, database)
    with App.open(config) as app:
        fill(database, rows)
        metrics = app.metrics
        metrics.begin({"watch", "dispatch", "work", "deliver"}, ["bench"])
        data = app._data  # noqa: SLF001 - what a continuous process gives its gauges
        of_process = Gauges(config, data, None, metrics, frozenset({"dispatch"}))
        began = time.perf_counter()
        of_process.read()
        reading = time.perf_counter() - began
        stop = Event()
        thread = Thread(target=_read_on, args=(of_process, stop))
        thread.start()
        server = Server("127.0.0.1:0", metrics, dict)
        took = [_scrape(server.port, rows) for _ in range(SCRAPES)]
        stop.set()
        thread.join()
        server.close()
    return max(took), reading


def _read_on(of_process: Gauges, stop: Event) -> None:
    while not stop.wait(READ_SECONDS):
        of_process.read()


def _scrape(port: int, rows: int) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as found:
        text = found.read().decode()
    seconds = time.perf_counter() - began
    done = float(text.split('labelfeed_objects{source="bench",state="done"} ')[1].split("\n")[0])
    assert done == rows - rows // 2, done
    assert described("objects").asked
    return seconds


def fill(database: Path, rows: int) -> None:
    """Half of the objects wait and half are done."""
    with closing(sqlite3.connect(database)) as connection, connection:
        (source,) = connection.execute("SELECT id FROM sources").fetchone()
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO objects (source_id, key, state, wanted_version, due, first_seen, last_event)"
            " SELECT ?, 'o/' || i, iif(i % 2, 'ready', 'done'), 'v1', i, i, i FROM n",
            (rows, source),
        )
        counts = {"ready": rows // 2, "done": rows - rows // 2}
        connection.executemany(
            "INSERT OR REPLACE INTO source_counts (source_id, state, n) VALUES (?, ?, ?)",
            [(source, state, count) for state, count in counts.items()],
        )


def measure() -> list[Figure]:
    """The share of an import's processor time, and the seconds of a scrape."""
    with scratch() as place:
        folder, empty = Path(place) / "files", Path(place) / "empty"
        folder.mkdir()
        empty.mkdir()
        local_files.make(folder)
        cost = in_process("benchmarks.metrics_cost", "imported", str(folder), f"{place}/one.db")
        scrape = in_process("benchmarks.metrics_cost", "scraped", str(empty), f"{place}/two.db")
    part, seconds = cost["share"] * 1000, scrape["scrape"] * 1000
    return [
        Figure(
            "metrics_cost", "‰ of the processor time", part, None, None, "≤ 20 ‰", cost["share"] <= COST_LIMIT, [cost]
        ),
        Figure("metrics_scrape", "ms", seconds, None, None, "≤ 100 ms", scrape["scrape"] <= SCRAPE_LIMIT, [scrape]),
    ]


if __name__ == "__main__":
    {"imported": imported, "scraped": scraped}[sys.argv[1]](*sys.argv[2:])
