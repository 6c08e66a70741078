"""A Redis stream of task JSON → SQLite and → PostgreSQL, against a bare loop of the same work.

The loop reads the stream 500 entries at a time, parses each (orjson) and inserts them, a transaction a batch, in one
process. Ours is a whole `--once` run in a fresh process, from the opening of the installation to its end.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import redis

from benchmarks.measuring import Figure, answer, import_once, in_process, scratch
from deploy.services import ensure
from pipeline.config import Config

TASKS = 100_000
ROUNDS = 3
BATCH = 500
RATE = 5000.0
TEXT = "an opossum came to the feeder at dusk and ate two plums before it left for the night. " * 3


def fill(url: str, key: str, tasks: int) -> None:
    """XADD the tasks."""
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(tasks):
            pipeline.xadd(key, {"task": orjson.dumps({"data": {"text": TEXT, "number": number}, "id": number})})
            if number % 1000 == 999:
                pipeline.execute()
        pipeline.execute()


def batches(url: str, key: str) -> Iterator[list[tuple[str, str]]]:
    """The tasks of a stream as rows, as a plain script would read them."""
    place = "-"
    with redis.Redis.from_url(url) as client:
        while rows := client.xrange(key, place, "+", BATCH):
            entries: Any = rows
            documents = [orjson.loads(fields[b"task"]) for _, fields in entries]
            yield [(str(one["id"]), orjson.dumps(one["data"]).decode()) for one in documents]
            place = "(" + entries[-1][0].decode()


def raw_sqlite(url: str, key: str, path: str) -> None:
    """The bare loop into SQLite."""
    begun = time.perf_counter()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, external TEXT, data TEXT NOT NULL)")
    count = 0
    for rows in batches(url, key):
        with connection:
            connection.executemany("INSERT INTO t (external, data) VALUES (?, ?)", rows)
        count += len(rows)
    answer(rate=count / (time.perf_counter() - begun), tasks=count)


def raw_postgres(url: str, key: str, database: str) -> None:
    """The bare loop into PostgreSQL."""
    begun = time.perf_counter()
    count = 0
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (id bigserial PRIMARY KEY, external text, data jsonb NOT NULL)")
        for rows in batches(url, key):
            with connection.cursor().copy("COPY t (external, data) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()
            count += len(rows)
    answer(rate=count / (time.perf_counter() - begun), tasks=count)


def ours(url: str, database: str, folder: str) -> None:
    """A whole run of one stream."""
    made = Config.model_validate({
        "database": database,
        "projects": {"bench": {}},
        "sources": [{"name": "bench", "project": "bench", "url": url}],
    })  # fmt: skip
    seconds, tasks = import_once(made.model_copy(update={"folder": Path(folder)}))
    answer(rate=tasks / seconds, tasks=tasks)


def measure(tasks: int = TASKS, rounds: int = ROUNDS) -> list[Figure]:
    """Tasks per second of both, into both databases."""
    server, postgres = ensure("redis", keep=True), ensure("postgres", keep=True)
    key = f"bench-{uuid.uuid4().hex[:12]}"
    stream = server.url.replace("redis://", "redis+stream://") + f"/{key}"
    fill(server.url, key, tasks)

    def sqlite_pair() -> tuple[float, float]:
        with scratch() as folder:
            bare = _rate("raw_sqlite", server.url, key, f"{folder}/raw.db")
            return _rate("ours", stream, "sqlite:///bench.db", folder), bare

    def postgres_pair() -> tuple[float, float]:
        name = f"bench_{uuid.uuid4().hex[:12]}"
        database = postgres.url.rpartition("/")[0] + "/" + name
        with scratch() as folder, psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
            try:
                return _rate("ours", stream, database, folder), _rate("raw_postgres", server.url, key, database)
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    try:
        pairs = {"redis_stream_sqlite": sqlite_pair, "redis_stream_postgres": postgres_pair}
        return [_figure(name, [pair() for _ in range(rounds)], tasks) for name, pair in pairs.items()]
    finally:
        with redis.Redis.from_url(server.url) as client:
            client.delete(key)


def _rate(what: str, *arguments: str) -> float:
    return float(in_process("benchmarks.redis_stream", what, *arguments)["rate"])


def _figure(name: str, runs: list[tuple[float, float]], tasks: int) -> Figure:
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    ratio = statistics.median(own / bare for own, bare in runs)
    return Figure(name, f"tasks/s ({tasks:,})", mine, raw, ratio, f"≥ {RATE:,.0f} tasks/s", mine >= RATE, runs)


PARTS: dict[str, Callable[..., None]] = {"ours": ours, "raw_sqlite": raw_sqlite, "raw_postgres": raw_postgres}

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
