"""The distributed setting on its real servers: S3 → Kafka → Redis → PostgreSQL, against bare loops of the same work.

Each round makes a fresh database and topic. `ours` is from the first event recorded to the last commit, by the
database's own clock; the roles are processes that were ready before the first listing began.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import obstore
import orjson
import psycopg
import yaml

from benchmarks import csv_rows
from benchmarks.measuring import Figure, answer
from deploy.services import ensure
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY, Service
from pipeline.app import App
from pipeline.config import load

OBJECTS = 20_000
UNCHANGED = 200_000
THREADS = 16
COPY_BATCH = 500
ROUNDS = 5
SECONDS = 600.0
STARTING_SECONDS = 300.0
ACCESS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
NAMES = ("kafka", "redis", "postgres")
LATENCY_MS = 500
PASS_PEAK_MB = 150


class Bench:
    """The servers, a bucket, and what it takes to run roles on them."""

    def __init__(self, folder: Path, s3: str = "seaweedfs") -> None:
        self.folder = folder
        self.servers: dict[str, Service] = {name: ensure(name, keep=True) for name in (*NAMES, s3)}
        self.s3 = self.servers[s3].url
        self.env = os.environ | ACCESS | {"AWS_ENDPOINT_URL": self.s3}
        os.environ.update(ACCESS)

    def bucket(self, name: str) -> Any:
        """A store of obstore on a new bucket."""
        import boto3  # noqa: PLC0415 - the bucket is made once

        client = boto3.client("s3", endpoint_url=self.s3, region_name=REGION)
        client.create_bucket(Bucket=name)
        return obstore.store.S3Store(
            name, endpoint=self.s3, region=REGION,
            virtual_hosted_style_request=False, client_options={"allow_http": True},
        )  # fmt: skip

    @contextlib.contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """Let every answer of the S3 server come so much later, for the roles that start meanwhile."""
        proxies = f"{ensure('toxiproxy', keep=True).url}/proxies"
        name = uuid.uuid4().hex
        made = _post(proxies, {"name": name, "listen": "127.0.0.1:0", "upstream": self.s3.removeprefix("http://")})
        toxic = {"type": "latency", "stream": "downstream", "attributes": {"latency": milliseconds}}
        _post(f"{proxies}/{name}/toxics", toxic)
        before = self.env
        self.env = before | {"AWS_ENDPOINT_URL": f"http://{made['listen']}"}
        try:
            yield
        finally:
            self.env = before
            urllib.request.urlopen(urllib.request.Request(f"{proxies}/{name}", method="DELETE")).close()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new database, dropped afterwards."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        url = self.servers["postgres"].url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.rpartition("/")[0] + "/" + name
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def config(self, database: str, url: str) -> Path:
        """A configuration file of one source."""
        path = self.folder / f"{uuid.uuid4().hex}.yaml"
        path.write_text(
            yaml.safe_dump({
                "database": database,
                "events": f"{self.servers['kafka'].url}/bench-{uuid.uuid4().hex[:8]}?partitions=4",
                "queue": self.servers["redis"].url,
                "projects": {"bench": {}},
                "sources": [{"name": "bench", "project": "bench", "url": url, "poll": "1h", "watch": False}],
            })
        )  # fmt: skip
        return path

    @contextlib.contextmanager
    def roles(self, config: Path, names: Sequence[str]) -> Iterator[None]:
        """Processes of these roles."""
        log = (self.folder / "roles.log").open("ab")
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", name, "--config", str(config), "--listen", "127.0.0.1:0"],
                env=self.env, stderr=log, stdout=log,
            )
            for name in names
        ]  # fmt: skip
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)
            log.close()


def _post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, orjson.dumps(document), method="POST")) as answered:
        found: dict[str, Any] = orjson.loads(answered.read())
    return found


def _wait(database: str, done: int) -> tuple[float, int]:
    """Seconds from the first event to the last commit, and tasks, once so many objects are done."""
    deadline = time.monotonic() + SECONDS
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            time.sleep(0.25)
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute(
                    "SELECT coalesce(sum(n), 0) FROM source_counts WHERE state = 'done'"
                ).fetchone()
                if row is not None and row[0] >= done:
                    break
        else:
            raise RuntimeError("the objects were not imported in time")
        seconds = connection.execute(
            "SELECT extract(epoch FROM max(finished_at) - min(first_seen)) FROM objects"
        ).fetchone()
        tasks = connection.execute("SELECT sum(tasks) FROM objects").fetchone()
    assert seconds is not None
    assert tasks is not None
    return float(seconds[0]), int(tasks[0])


def _ours(bench: Bench, url: str, objects: int) -> float:
    with bench.database() as database:
        config = bench.config(database, url)
        with bench.roles(config, ["dispatch", "work"]):
            ready(database)
            with bench.roles(config, ["watch"]):
                seconds, tasks = _wait(database, objects)
    return tasks / seconds


def ready(database: str, workers: int = 1) -> None:
    """Wait until so many workers live: then the processes have started."""
    deadline = time.monotonic() + STARTING_SECONDS
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute("SELECT count(*) FROM workers WHERE threads > 0").fetchone()
                if row is not None and row[0] >= workers:
                    return
            time.sleep(0.1)
    raise RuntimeError("no worker started")


def _raw_objects(bench: Bench, store: Any, keys: Sequence[str]) -> float:
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


def measure_objects(rounds: int = ROUNDS, objects: int = OBJECTS) -> list[Figure]:
    """Objects per second of both, on one bucket of one-task JSON objects of about 2 KB."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = bench.bucket(name)
        keys = [f"{number // 1000:03}/{number:06}.json" for number in range(objects)]
        text = "an opossum came to the feeder at dusk and ate two plums before it left for the night. " * 22
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: store.put(key, orjson.dumps({"id": key, "text": text})), keys))
        runs = []
        for _ in range(rounds):
            bare = _raw_objects(bench, store, keys)
            runs.append((_ours(bench, f"s3://{name}", objects), bare))
    ratio = statistics.median(ours / bare for ours, bare in runs)
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    return [Figure("s3_objects", "objects/s", mine, raw, ratio, "≥ 0.6 of GET and COPY", ratio >= 0.6, runs)]


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
    ratio = statistics.median(ours / bare for ours, bare in runs)
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    return [Figure("s3_csv", "rows/s", mine, raw, ratio, "≥ 0.5 of COPY", ratio >= 0.5, runs)]


def _ours_csv(bench: Bench, url: str, rows: int) -> float:
    with bench.database() as database:
        config = bench.config(database, url)
        with bench.roles(config, ["dispatch", "work"]):
            ready(database)
            with bench.roles(config, ["watch"]):
                seconds, tasks = _wait(database, 1)
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
        keys = [f"{number // 1000:03}/{number:06}.txt" for number in range(objects)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: store.put(key, b"a line\n"), keys))
        with bench.database() as database:
            config = bench.config(database, f"s3://{name}")
            with bench.roles(config, ["dispatch", "work"]):
                ready(database)
                with bench.roles(config, ["watch"]):
                    _wait(database, objects)
            pairs = [(_pass_seconds(bench, config), _list_seconds(store, objects)) for _ in range(rounds)]
    times = statistics.median(ours["seconds"] / bare for ours, bare in pairs)
    mine = statistics.median(ours["seconds"] for ours, _ in pairs)
    raw = statistics.median(bare for _, bare in pairs)
    peak = max(ours["peak_mb"] for ours, _ in pairs)
    return [
        Figure("s3_pass", "s", mine, raw, times, "≤ 1.2 times the LIST", times <= 1.2, [pair[0] for pair in pairs]),
        Figure("s3_pass_memory", "MB peak", peak, target="flat", met=peak <= PASS_PEAK_MB),
    ]


def _list_seconds(store: Any, objects: int) -> float:
    begun = time.perf_counter()
    count = sum(len(page) for page in obstore.list(store, chunk_size=1000))
    assert count == objects
    return time.perf_counter() - begun


def _pass_seconds(bench: Bench, config: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.distributed", "pass", str(config)],
        env=bench.env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def one_pass(config: str) -> None:
    """One pass in this process: what `measure_pass` times, without the start of the interpreter."""
    with App.open(load(config)) as app:
        runner = app.pass_runner("bench")
        begun = time.perf_counter()
        state = runner.run(threading.Event())
        answer(seconds=time.perf_counter() - begun, published=state.published)


def measure_scale(objects: int = 3000) -> list[Figure]:
    """Throughput with 500 ms of latency on every request to the store, by 1, 2 and 4 worker processes."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = bench.bucket(name)
        keys = [f"{number:06}.json" for number in range(objects)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: store.put(key, orjson.dumps({"id": key})), keys))
        with bench.slow(LATENCY_MS):
            rates = {workers: _scaled(bench, f"s3://{name}", objects, workers) for workers in (1, 2, 4)}
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
    ]


def _scaled(bench: Bench, url: str, objects: int, workers: int) -> float:
    with bench.database() as database:
        config = bench.config(database, url)
        with bench.roles(config, ["dispatch", *["work"] * workers]):
            ready(database, workers)
            with bench.roles(config, ["watch"]):
                _wait(database, objects)
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM max(finished_at) - min(finished_at)), count(*) FROM objects"
            ).fetchone()
    assert row is not None
    return float(row[1]) / float(row[0])


def measure() -> list[Figure]:
    """All of it."""
    return [*measure_objects(), *measure_csv(), *measure_pass(), *measure_scale()]


if __name__ == "__main__":
    one_pass(sys.argv[2])
