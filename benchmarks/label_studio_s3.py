"""One-task JSON files in S3 → a real Label Studio, through every part of the distributed setting; against POSTing the
same tasks as prepared batches, and against Label Studio's own synchronization of the first of the same files. The S3
server is versitygw: all of them share the machine's cores, and an answer costs it half of what it costs SeaweedFS.
Beside that, against a bare loop that GETs the files and POSTs them, the next ones while some are posted, and keeps no
account of anything: on a machine whose cores are full it shows what was left to win.

`LABELFEED_BENCH_TASKS` is how many files, 100,000 otherwise; `LABELFEED_BENCH_BATCH` how many in one import, 10,000;
`LABELFEED_BENCH_SYNC` how many Label Studio reads by itself, 5,000: those of one prefix, as its storages want it.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import yaml

from benchmarks.distributed import THREADS
from benchmarks.label_studio import BATCH, META, TASKS, begin, end, post, text
from benchmarks.measuring import Figure, answer, in_process, tell
from benchmarks.rig import Bench, opened, ready
from deploy import services
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY, Service

SYNC = min(TASKS, int(os.environ.get("LABELFEED_BENCH_SYNC", "5000")))
ROUNDS = 3
SECONDS = 3600.0
"""How long a run may take. Label Studio answers the request to synchronize when it has done so."""


def measure() -> list[Figure]:
    """Tasks a second of ours and of prepared POSTs in turn, and of Label Studio's own storage once."""
    with services.using("label_studio") as studio, TemporaryDirectory() as folder:
        bench = Bench(Path(folder), s3="versitygw")
        bucket = f"bench-{uuid.uuid4().hex[:12]}"
        _put(bench.bucket(bucket))
        where = (studio.url, studio.env["LABEL_STUDIO_TOKEN"])
        rounds = []
        for _ in range(ROUNDS):
            raw = in_process("benchmarks.label_studio", "raw", *where)["rate"]
            ours = _ours(bench, studio, f"s3://{bucket}")
            looped = in_process("benchmarks.label_studio_s3", *where, bench.s3, bucket)["rate"]
            tell(f"ours {ours:,.0f}, prepared POSTs {raw:,.0f}, GETs and POSTs {looped:,.0f} tasks/s")
            rounds.append((ours, raw, looped))
        theirs = _theirs(bench, studio, bucket)
    mine, posted, bare = (statistics.median(each[place] for each in rounds) for place in range(3))
    ratio, part = (statistics.median(each[0] / each[place] for each in rounds) for place in (1, 2))
    times = mine / theirs
    return [
        Figure("s3_to_label_studio", "tasks/s", mine, posted, ratio, "≥ 0.4 of prepared POSTs", ratio >= 0.4, rounds),
        Figure("s3_to_label_studio_loop", "tasks/s", mine, bare, part),
        Figure("label_studio_sync", "tasks/s", mine, theirs, times, "≥ 10 times its sync", times >= 10.0, [SYNC]),
    ]  # fmt: skip


def _put(store: Any) -> None:
    """The files; the first of them alone under the first prefix."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(
            pool.map(lambda number: store.put(_key(number), json.dumps({"text": text(number)}).encode()), range(TASKS))
        )


def _key(number: int) -> str:
    return f"{number // SYNC:05}/{number:07}.json"


def loop(url: str, token: str, endpoint: str, bucket: str) -> None:
    """GET the files with obstore on 16 threads and POST them, a batch while the next one is read."""
    remote, client = begin(url, token)
    store = opened(endpoint, bucket)
    numbers = range(TASKS)
    begun = time.perf_counter()
    with ThreadPoolExecutor(1) as sender, ThreadPoolExecutor(THREADS) as pool:
        sending: Future[None] | None = None
        for first in range(0, TASKS, BATCH):
            bodies = pool.map(lambda number: bytes(store.get(_key(number)).bytes()), numbers[first : first + BATCH])
            batch = b"[" + b",".join(b'{"data":%b,"meta":%b}' % (body, META) for body in bodies) + b"]"
            if sending is not None:
                sending.result()
            sending = sender.submit(post, client, remote, batch)
        if sending is not None:
            sending.result()
    answer(rate=TASKS / (time.perf_counter() - begun))
    end(remote, client)


def _ours(bench: Bench, studio: Service, url: str) -> float:
    """From the first event recorded to the answer for the last import, by the database's clock."""
    token = studio.env["LABEL_STUDIO_TOKEN"]
    remote, client = begin(studio.url, token)
    with bench.database() as database:
        delivery = {"label_studio": {"url": studio.url, "project": remote, "token": token}}
        config = bench.config(database, url)
        document = yaml.safe_load(config.read_text())
        throttle = {"imports_every": 0, "tasks_per_import": BATCH}
        document["projects"]["bench"] = {"throttle": throttle, "deliveries": [delivery]}
        config.write_text(yaml.safe_dump(document))
        with bench.roles(config, ["dispatch", "work"]), bench.with_server("label_studio", studio):
            ready(database)
            with bench.roles(config, ["watch"]):
                bench.begin()
                seconds = _delivered(database)
                shares = ", ".join(f"{who} {1000 * spent / TASKS:.2f}" for who, spent in bench.spent().items())
                tell(f"processor time in ms a task: {shares}")
    there = client.get(f"/api/projects/{remote}/").raise_for_status().json()["task_number"]
    if there != TASKS:
        raise RuntimeError(f"{there} of {TASKS} tasks are in Label Studio")
    end(remote, client)
    return TASKS / seconds


def _delivered(database: str) -> float:
    """Seconds from the first event to the end of the last import, once all is there, each under an id of its own."""
    deadline = time.monotonic() + SECONDS
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            time.sleep(0.25)
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute("SELECT delivered, refused FROM deliveries").fetchone()
                if row is not None and row[0] + row[1] >= TASKS:
                    break
        else:
            raise RuntimeError("the tasks were not delivered in time")
        found = connection.execute(
            "SELECT extract(epoch FROM (SELECT max(ended_at) FROM batches) - (SELECT min(first_seen) FROM objects)),"
            " (SELECT count(DISTINCT remote_id) FROM delivered WHERE state = 'done')"
        ).fetchone()
    assert found is not None
    if found[1] != TASKS:
        raise RuntimeError(f"{found[1]} of {TASKS} tasks were delivered")
    return float(found[0])


def _theirs(bench: Bench, studio: Service, bucket: str) -> float:
    """Label Studio's own S3 storage over the first files, from the request to its answer."""
    remote, client = begin(studio.url, studio.env["LABEL_STUDIO_TOKEN"])
    made = client.post("/api/storages/s3/", json={
        "project": remote, "bucket": bucket, "prefix": _key(0).partition("/")[0], "s3_endpoint": bench.s3,
        "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": REGION,
        "use_blob_urls": False,
    })  # fmt: skip
    storage = made.raise_for_status().json()["id"]
    begun = time.perf_counter()
    answer = client.post(f"/api/storages/s3/{storage}/sync", timeout=SECONDS).raise_for_status().json()
    seconds = time.perf_counter() - begun
    there = client.get(f"/api/projects/{remote}/").raise_for_status().json()["task_number"]
    if there != SYNC:
        raise RuntimeError(f"Label Studio synchronized {there} of {SYNC} files: {answer}")
    end(remote, client)
    return SYNC / seconds


if __name__ == "__main__":
    loop(*sys.argv[1:])
