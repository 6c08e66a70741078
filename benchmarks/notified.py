"""Object put → task committed, with 100 objects a second: told by SQS, and by an S3 server that writes to Kafka.

ElasticMQ stands for SQS, and since no S3 server here writes to it, the message of each put is sent right after it,
as AWS would. versitygw writes its own events to Kafka, so that no watcher takes part. It now and then puts another
object's key into an event; such an object comes with the next listing, which does not run here, and is left out.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import orjson
import psycopg
import yaml

from benchmarks.measuring import Figure, tell
from benchmarks.rig import START_SECONDS, Bench, ready
from deploy.services import ensure, using
from deploy.services.model import REGION
from pipeline import registry

RATE = 100
SECONDS = 20
QUIET_SECONDS = 15.0
TELL_SECONDS = 5
UNTOLD_SHARE = 0.01
"""More objects than this that nobody told of are a fault of ours."""


def measure(rate: int = RATE, seconds: int = SECONDS) -> list[Figure]:
    """Milliseconds, p50 and p99, of both ways."""
    with TemporaryDirectory() as folder:
        return [*_by_sqs(Path(folder), rate, seconds), *_by_kafka(Path(folder), rate, seconds)]


def _by_sqs(folder: Path, rate: int, seconds: int) -> list[Figure]:
    bench = Bench(folder)
    name = f"bench-{uuid.uuid4().hex[:12]}"
    bench.bucket(name)
    sqs = boto3.client("sqs", endpoint_url=ensure("elasticmq", keep=True).url, region_name=REGION)
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]

    def notify(key: str) -> None:
        record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                  "s3": {"bucket": {"name": name}, "object": {"key": key}}}  # fmt: skip
        sqs.send_message(QueueUrl=queue, MessageBody=orjson.dumps({"Records": [record]}).decode())

    with bench.database() as database:
        events = f"{bench.servers['kafka'].url}/{name}?partitions=4"
        config = _config(bench, database, events, name, {"notifications": queue})
        waits = _run(bench, config, database, ["dispatch", "work", "watch"], name, rate, seconds, notify)
    return _figures("sqs", waits)


def _by_kafka(folder: Path, rate: int, seconds: int) -> list[Figure]:
    bench = Bench(folder)
    name = f"bench-{uuid.uuid4().hex[:12]}"
    kafka = bench.servers["kafka"]
    with bench.database() as database:
        events = f"{kafka.url}/{name}?partitions=4"
        config = _config(bench, database, events, name, {"watch": False})
        with closing(registry.load("buses", "kafka")(events, lambda _bucket, _key: ())) as log:
            # It makes the topic, which the gateway wants to find.
            log.ping()
        with using("versitygw", name, settings={"kafka": kafka.address, "topic": name}) as gateway:
            bench.s3 = gateway.url
            bench.env |= {"AWS_ENDPOINT_URL": gateway.url}
            bench.bucket(name)
            waits = _run(bench, config, database, ["dispatch", "work"], name, rate, seconds, lambda _: None)
    return _figures("kafka", waits)


def _config(bench: Bench, database: str, events: str, bucket: str, source: dict[str, Any]) -> Path:
    path = bench.folder / f"{uuid.uuid4().hex}.yaml"
    sources = [{"name": "bench", "project": "bench", "url": f"s3://{bucket}", "poll": "1h", **source}]
    document = {"database": database, "events": events, "queue": bench.servers["redis"].url,
                "projects": {"bench": {}}, "sources": sources}  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path


def _run(
    bench: Bench, config: Path, database: str, roles: list[str], bucket: str, rate: int, seconds: int,
    notify: Callable[[str], None],
) -> list[float]:  # fmt: skip
    client = boto3.client("s3", endpoint_url=bench.s3, region_name=REGION)
    with bench.roles(config, roles):
        ready(database)
        _put(client, bucket, "warm-up.txt", notify)
        _finished(database, 1, START_SECONDS)
        begun, put = time.time(), dict[str, float]()
        for number in range(rate * seconds):
            if number % (rate * TELL_SECONDS) == 0:
                late = time.time() - begun - number / rate
                tell(f"{number:,} of {rate * seconds:,} objects are put, {late:.1f} s late")
            time.sleep(max(0.0, begun + number / rate - time.time()))
            key = f"{number:06}.txt"
            put[key] = _put(client, bucket, key, notify)
        finished = _finished(database, rate * seconds + 1)
    return sorted(finished[key] - at for key, at in put.items() if key in finished)


def _put(client: Any, bucket: str, key: str, notify: Callable[[str], None]) -> float:
    """Put one object; gives when it was there."""
    client.put_object(Bucket=bucket, Key=key, Body=b"one line\n")
    at = time.time()
    notify(key)
    return at


def _finished(database: str, count: int, quiet: float = QUIET_SECONDS) -> dict[str, float]:
    """When each object was done, once so many are, or none has come for `quiet` seconds."""
    rows: list[tuple[Any, ...]] = []
    moved = time.monotonic()
    with psycopg.connect(database, autocommit=True) as connection:
        while len(rows) < count and time.monotonic() < moved + quiet:
            time.sleep(0.5)
            before, rows = (
                len(rows),
                connection.execute(
                    "SELECT key, extract(epoch FROM finished_at)::float8 FROM objects WHERE state = 'done'"
                ).fetchall(),
            )
            moved = time.monotonic() if len(rows) > before else moved
    if len(rows) < count * (1 - UNTOLD_SHARE):
        raise RuntimeError(f"{len(rows)} of {count} objects were imported in time")
    return {str(key): float(at) for key, at in rows}


def _figures(name: str, waits: list[float]) -> list[Figure]:
    p50, p99 = statistics.median(waits) * 1000, waits[int(len(waits) * 0.99)] * 1000
    return [
        Figure(f"{name}_p50", "ms", p50, target="≤ 300 ms", met=p50 <= 300),
        Figure(f"{name}_p99", "ms", p99, target="≤ 1,000 ms", met=p99 <= 1000, runs=[len(waits)]),
    ]
