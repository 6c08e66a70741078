"""Peak memory of the passes over a bucket of 1,000,000 keys, and of 100,000: a simulated store behind S3's protocol.

The first pass finds every key new, then all is recorded, and a second pass finds nothing changed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from benchmarks.measuring import Figure, answer, in_process, scratch
from pipeline import sqlitefile
from pipeline.bus.embedded import EmbeddedLog
from pipeline.config import Source
from pipeline.events import ObjectEvent, fold
from pipeline.ledger import SourceIdentity
from pipeline.metrics import Metrics
from pipeline.producers.passes import PassRunner
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from pipeline.stores.s3 import open_store
from pipeline.stores.scope import Scope
from tests.simulated_s3 import BUCKET, Bucket, credentials, served

KEYS = (100_000, 1_000_000)
LIMIT_MB = 150
GROWTH = 1.05
"""How much more ten times the keys may take: the allocator's noise."""
EVENTS = 1000


def ours(endpoint: str, folder: str, cache_kib: str = "") -> None:
    """Two passes, and between them all that the first one found is recorded; with SQLite's cache of this size."""
    if cache_kib:
        sqlitefile.CACHE_KIB = sqlitefile.READER_CACHE_KIB = int(cache_kib)
    file = SqliteFile(Path(folder) / "labelfeed.db")
    ledger, log = SqliteLedger(file), EmbeddedLog(file)
    ledger.migrate()
    log.create()
    source = Source(name="bench", project="p", url=f"s3://{BUCKET}", endpoint=endpoint)
    store = open_store(source, Path(folder))
    ledger.register([SourceIdentity("bench", "p", store.identity(), source.url, "shape")])
    runner = PassRunner(source, 1, store, Scope.of(source), ledger, log, Metrics())
    begun = time.perf_counter()
    first = runner.run(threading.Event())
    listed = time.perf_counter() - begun
    consumer = log.consumer(lambda _: {})
    while records := consumer.poll(EVENTS, 0).records:
        events = [record.event for record in records if isinstance(record.event, ObjectEvent)]
        ledger.record(log.name, fold(events), log.end(), {"bench": "ignore"})
    begun = time.perf_counter()
    second = runner.run(threading.Event())
    answer(
        listed=[first.listed, second.listed],
        published=[first.published, second.published],
        seconds=[listed, time.perf_counter() - begun],
    )
    store.close()
    ledger.close()


def peak(keys: int) -> dict[str, object]:
    """Peak memory in MB of a process that makes the passes over so many keys, and what they found."""
    os.environ.update(credentials())
    with served(Bucket(keys)) as bucket, scratch() as place:
        found = in_process("benchmarks.million_keys", bucket.url, place)
    if found["listed"] != [keys, keys] or found["published"] != [keys, 0]:
        raise RuntimeError(f"the passes went wrong: {found}")
    return found


def measure() -> list[Figure]:
    """Peak resident memory in MB at the larger number of keys, against that at the smaller."""
    runs = [peak(keys) for keys in KEYS]
    small, large = (float(str(run["peak_mb"])) for run in runs)
    met = large <= LIMIT_MB and large <= small * GROWTH
    target = f"≤ {LIMIT_MB} MB, no more than for {KEYS[0]:,} keys"
    return [Figure("million_keys", "MB peak", large, None, large / small, target, met, runs)]


if __name__ == "__main__":
    ours(*sys.argv[1:])
