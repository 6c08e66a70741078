"""The distributed setting on its real servers: S3 → Kafka → Redis → PostgreSQL, against bare loops of the same work.

Each round makes a fresh database and topic. `ours` is from the first event recorded to the last commit, by the
database's own clock; the roles are processes that were ready before the first listing began.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import obstore
import orjson
import psycopg

from benchmarks import csv_rows
from benchmarks.measuring import Figure, answer, peak_mb, tell
from benchmarks.rig import Bench, fill, ready, wait
from pipeline.app import App
from pipeline.config import load
from pipeline.producers.passes import PassRunner

OBJECTS = 20_000
UNCHANGED = 200_000
THREADS = 16
COPY_BATCH = 500
ROUNDS = 5
LATENCY_MS = 500
SCALE_CONCURRENCY = 36
"""Requests of each of a worker's two threads: enough for 64 in flight, and little more. The more there are, the sooner
two cores are what ends the scale, not the workers."""
PASS_PEAK_MB = 150
PASS_GROWTH = 1.05
"""The allocator's noise."""


def import_all(bench: Bench, url: str, objects: int) -> tuple[float, dict[str, float]]:
    """Import a bucket by one process of each role; gives tasks per second, and the processor time in seconds from
    the first event on, by who spent it."""
    with bench.database() as database:
        config = bench.config(database, url)
        with bench.roles(config, ["dispatch", "work"]):
            ready(database)
            with bench.roles(config, ["watch"]):
                seconds, tasks = wait(database, objects, bench.begin)
                spent = bench.spent()
    return tasks / seconds, spent


def numbered(extension: str) -> Callable[[int], str]:
    """Keys by number, a thousand to a folder."""
    return lambda number: f"{number // 1000:03}/{number:06}{extension}"


def get_and_copy(bench: Bench, store: Any, keys: Sequence[str]) -> float:
    """GET the same objects with obstore on 16 threads and COPY them."""
    with bench.database() as database, psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (id bigserial PRIMARY KEY, key text NOT NULL, data jsonb NOT NULL)")
        connection.commit()
        begun = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            rows: list[tuple[str, str]] = []
            for key, body in zip(keys, pool.map(lambda key: bytes(store.get(key).bytes()), keys), strict=True):
                rows.append((key, body.decode()))
                if len(rows) == COPY_BATCH:
                    _copy(connection, rows)
                    rows = []
            _copy(connection, rows)
        return len(keys) / (time.perf_counter() - begun)


def _copy(connection: psycopg.Connection[Any], rows: Sequence[tuple[str, str]]) -> None:
    with connection.cursor().copy("COPY t (key, data) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.commit()


def _round(bench: Bench, store: Any, keys: Sequence[str], url: str) -> tuple[tuple[float, float], dict[str, float]]:
    """Objects per second of ours and of the bare loop, and the processor time of both by who spent it."""
    bench.begin()
    own = time.process_time()
    bare = get_and_copy(bench, store, keys)
    theirs = bench.spent() | {"loop": time.process_time() - own}
    ours, spent = import_all(bench, url, len(keys))
    tell(f"ours {ours:,.0f}, bare {bare:,.0f} objects/s; processor time in ms an object:")
    for who, times in (("ours", spent), ("bare", theirs)):
        shares = ", ".join(f"{name} {seconds * 1000 / len(keys):.2f}" for name, seconds in times.items())
        tell(f"{who} {sum(times.values()) * 1000 / len(keys):.2f}: {shares}")
    return (ours, bare), spent | {f"{name} for the bare loop": seconds for name, seconds in theirs.items()}


def measure_objects(rounds: int = ROUNDS, objects: int = OBJECTS) -> list[Figure]:
    """Objects per second of both, on one bucket of one-task JSON objects of about 2 KB."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = bench.bucket(name)
        text = "an opossum came to the feeder at dusk and ate two plums before it left for the night. " * 22
        keys = fill(store, objects, numbered(".json"), lambda key: orjson.dumps({"id": key, "text": text}))
        rounds_made = [_round(bench, store, keys, f"s3://{name}") for _ in range(rounds)]
    runs = [rates for rates, _ in rounds_made]
    spent = [times for _, times in rounds_made]
    ratio = statistics.median(ours / bare for ours, bare in runs)
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    return [
        Figure("s3_objects", "objects/s", mine, raw, ratio, "≥ 0.6 of GET and COPY", ratio >= 0.6, runs, spent),
    ]


def measure_csv(rounds: int = 3, rows: int = csv_rows.ROWS) -> list[Figure]:
    """Rows per second of one CSV in S3, against COPY of prepared text rows into the same table with its indexes."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = bench.bucket(name)
        table = Path(folder) / "table.csv"
        csv_rows.make(table, rows)
        store.put("table.csv", table)
        runs = []
        for _ in range(rounds):
            with bench.database() as database:
                bare = _raw_rows(bench, database, f"s3://{name}", rows)
            runs.append((_ours_csv(bench, f"s3://{name}", rows), bare))
            tell(f"ours {runs[-1][0]:,.0f}, COPY {bare:,.0f} rows/s")
    ratio = statistics.median(ours / bare for ours, bare in runs)
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    return [Figure("s3_csv", "rows/s", mine, raw, ratio, "≥ 0.5 of COPY", ratio >= 0.5, runs)]


def _ours_csv(bench: Bench, url: str, rows: int) -> float:
    with bench.database() as database:
        config = bench.config(database, url)
        with bench.roles(config, ["dispatch", "work"]):
            ready(database)
            with bench.roles(config, ["watch"]):
                seconds, tasks = wait(database, 1)
    assert tasks == rows
    return tasks / seconds


def _raw_rows(bench: Bench, database: str, url: str, rows: int) -> float:
    """COPY prepared text rows into the project's own table, with its indexes."""
    config = bench.config(database, url)
    subprocess.run([sys.executable, "-m", "pipeline.cli", "check", "--config", str(config)], env=bench.env,
                   check=True, capture_output=True)  # fmt: skip
    line = '1\t1\t{p}\t{p}\t{{"id":{p},"text":"opossum number {p} at the feeder","score":0.25,"seen":true}}\n'
    prepared = [
        "".join(line.format(p=position) for position in range(first, first + 10_000)).encode()
        for first in range(0, rows, 10_000)
    ]
    with psycopg.connect(database) as connection:
        begun = time.perf_counter()
        with connection.cursor().copy("COPY task_rows (object_id, lease, position, row, data) FROM STDIN") as copy:
            for block in prepared:
                copy.write(block)
        connection.commit()
        return rows / (time.perf_counter() - begun)


def measure_pass(rounds: int = 3, objects: int = UNCHANGED) -> list[Figure]:
    """Seconds of a pass over unchanged objects against a bare LIST of them, on a server that lists in byte order."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), s3="versitygw")
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = bench.bucket(name)
        fill(store, objects, numbered(".txt"), lambda _: b"a line\n")
        with bench.database() as database:
            config = bench.config(database, f"s3://{name}")
            with bench.roles(config, ["dispatch", "work"]):
                ready(database)
                with bench.roles(config, ["watch"]):
                    wait(database, objects)
            pairs = []
            for _ in range(rounds):
                pairs.append((_pass_seconds(bench, config, objects), _list_seconds(store, objects)))
                tell(f"pass {pairs[-1][0]['seconds']:.1f} s, LIST {pairs[-1][1]:.1f} s")
    times = statistics.median(ours["seconds"] / bare for ours, bare in pairs)
    mine = statistics.median(ours["seconds"] for ours, _ in pairs)
    raw = statistics.median(bare for _, bare in pairs)
    early, peak = (max(ours[when] for ours, _ in pairs) for when in ("early_mb", "peak_mb"))
    return [
        Figure("s3_pass", "s", mine, raw, times, "≤ 1.2 times the LIST", times <= 1.2, [pair[0] for pair in pairs]),
        Figure(
            "s3_pass_memory",
            "MB peak",
            peak,
            early,
            peak / early,
            f"≤ {PASS_PEAK_MB} MB, as at a tenth of the objects",
            peak <= PASS_PEAK_MB and peak <= PASS_GROWTH * early,
        ),
    ]


def _list_seconds(store: Any, objects: int) -> float:
    begun = time.perf_counter()
    count = sum(len(page) for page in obstore.list(store, chunk_size=1000))
    assert count == objects
    return time.perf_counter() - begun


def _pass_seconds(bench: Bench, config: Path, objects: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.distributed", "pass", str(config), str(objects)],
        env=bench.env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def one_pass(config: str, objects: str) -> None:
    """One pass in this process: what `measure_pass` times, without the start of the interpreter."""
    with App.open(load(config)) as app:
        runner = app.pass_runner("bench")
        early: list[float] = []
        watching = threading.Thread(target=_note_early, args=(runner, int(objects) // 10, early), daemon=True)
        watching.start()
        begun = time.perf_counter()
        state = runner.run(threading.Event())
        answer(seconds=time.perf_counter() - begun, published=state.published, early_mb=early[0])


def _note_early(runner: PassRunner, listed: int, early: list[float]) -> None:
    """Note the peak memory once so many objects are listed."""
    while runner.state is None or runner.state.listed < listed:
        time.sleep(0.01)
    early.append(peak_mb())


def measure_scale(objects: int = 6000) -> list[Figure]:
    """Throughput with 500 ms of latency on every request to the store, by 1, 2 and 4 worker processes; and by 1 and 4
    of them at the concurrency that a source has by itself, which is for comparison.

    Each worker has so many objects, in all cases: the same ones by more workers would end the sooner the more of them
    there are, and the last claim, which leaves the others idle, would count the more. The S3 server is versitygw: it is
    the workers' scale that is asked for, and an answer of SeaweedFS takes as much of the two cores as all that a worker
    does.
    """
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), s3="versitygw")
        rates = {
            workers: _scaled(bench, objects, workers, f"?concurrency={SCALE_CONCURRENCY}") for workers in (1, 2, 4)
        }
        by_itself = {workers: _scaled(bench, objects, workers) for workers in (1, 4)}
    figures = []
    for workers, rate in rates.items():
        share = rate / (workers * rates[1])
        figures.append(
            Figure(f"scale_{workers}", "objects/s", rate, None, share, "≥ 0.85 of linear", share >= 0.85, [objects])
        )
    in_flight = rates[1] * LATENCY_MS / 1000
    return [
        *figures,
        Figure("requests_in_flight", "of one worker", in_flight, target="≥ 64", met=in_flight >= 64),
        *(
            Figure(f"default_{workers}", "objects/s", rate, None, rate / (workers * by_itself[1]))
            for workers, rate in by_itself.items()
        ),
    ]


def _scaled(bench: Bench, objects: int, workers: int, options: str = "") -> float:
    """Objects a second by so many workers, each of which has so many objects in a new bucket."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    count = workers * objects
    fill(bench.bucket(name), count, numbered(".json"), lambda key: orjson.dumps({"id": key}))
    with bench.slow(LATENCY_MS), bench.database() as database:
        config = bench.config(database, f"s3://{name}{options}")
        with bench.roles(config, ["dispatch", *["work"] * workers]):
            ready(database, workers)
            with bench.roles(config, ["watch"]):
                wait(database, count, bench.begin)
                spent = bench.spent()
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM max(finished_at) - min(finished_at)), count(*) FROM objects"
            ).fetchone()
    assert row is not None
    rate = float(row[1]) / float(row[0])
    shares = ", ".join(f"{who} {1000 * seconds / count:.2f}" for who, seconds in spent.items())
    tell(f"{workers} workers{options}: {rate:,.0f} objects/s; processor time in ms an object: {shares}")
    return rate


def measure() -> list[Figure]:
    """All of it."""
    return [*measure_objects(), *measure_csv(), *measure_pass(), *measure_scale()]


if __name__ == "__main__":
    one_pass(*sys.argv[2:])
