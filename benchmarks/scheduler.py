"""What scheduling costs: claims behind a backlog of a million objects on PostgreSQL with a transaction left open, and
the processor time of turns in a run of 20,000 objects on each database.

The transaction is opened before the first claim and stays open, as that of a long import or a backup: the server
can then take no dead entry out of an index. Claims are 100 objects each; every one is committed, as a worker would.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks.measuring import Figure, answer, in_process, scratch
from deploy.services import ensure
from pipeline.app import App
from pipeline.config import Config, load
from pipeline.consumers.counting import Counting
from pipeline.consumers.scheduler import Scheduler
from pipeline.consumers.turns import Turns
from pipeline.ledger import Claim, Ledger, Outcome, SourceIdentity
from pipeline.sinks.postgres import PostgresLedger

BACKLOG = 1_000_000
FEW = 100_000
FEW_TURNS = 30
"""In these no more than all of the few are claimed."""
WARM_TURNS = 10
SOURCES = 20
TURNS = 200
OBJECTS = 20_000
BATCH = 100
EPOCH = "bench"


@contextlib.contextmanager
def _database() -> Iterator[str]:
    name = f"bench_{uuid.uuid4().hex[:12]}"
    url = ensure("postgres", keep=True).url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield url.rpartition("/")[0] + "/" + name
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _config(database: str) -> Config:
    sources = [{"name": f"s{number}", "project": "bench", "url": f"./s{number}"} for number in range(SOURCES)]
    return Config.model_validate({
        "database": database, "projects": {"bench": {}}, "sources": sources, "limits": {"batch_objects": BATCH},
    })  # fmt: skip


def _fill(database: str, ledger: Ledger, config: Config, objects: int) -> None:
    """So many ready objects, shared out over the sources."""
    identities = [SourceIdentity(s.name, "bench", s.url, s.url, "h") for s in config.sources]
    rows = ledger.register(identities)
    with psycopg.connect(database, autocommit=True) as connection:
        for row in rows:
            connection.execute(
                "INSERT INTO objects (source_id, key, state, wanted_version, size, due, first_seen, last_event)"
                " SELECT %s, lpad(n::text, 8, '0'), 'ready', 'v', 100, t, t, t FROM generate_series(1, %s) AS n,"
                " clock_timestamp() AS t",
                (row.id, objects // len(rows)),
            )
            connection.execute(
                "INSERT INTO counters (source_id, name, shard, n, at) VALUES (%s, 'ready', 0, %s, clock_timestamp())",
                (row.id, objects // len(rows)),
            )
        connection.execute("VACUUM ANALYZE objects")


def _finish(ledger: Ledger, claims: list[Claim]) -> None:
    for claim in claims:
        work = ledger.start(claim.lease, "bench", 60)
        ledger.commit(claim.lease, [Outcome(each.id, "done", version="v", size=100) for each in work])


def _claims(objects: int, turns: int) -> list[float]:
    """Milliseconds of each turn for BATCH objects, its transaction included, in the order in which they came: a turn
    claims about as many objects as were finished of late, and the first ones fewer."""
    with _database() as database:
        config = _config(database)
        with closing(PostgresLedger(database)) as ledger, psycopg.connect(database) as reader:
            ledger.migrate()
            _fill(database, ledger, config, objects)
            # It has written, too: what it could still see, no vacuum removes.
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("CREATE TABLE held (n integer)")
            ledger.beat("bench", 1, 3600)
            turning = Turns(config, Counting())
            times: list[float] = []
            while len(times) < turns:
                begun = time.perf_counter()
                turn: Any = ledger.tick(lambda tick: turning.take(tick, EPOCH))
                if not turn.claims:
                    raise RuntimeError(f"nothing was claimed after {len(times)} turns of {turns}")
                seconds = time.perf_counter() - begun
                claimed = sum(len(claim.ids) for claim in turn.claims)
                times.append(seconds * 1000 * BATCH / claimed)
                _finish(ledger, turn.claims)
            return times[WARM_TURNS:]


def measure_backlog(backlog: int = BACKLOG, turns: int = TURNS) -> list[Figure]:
    """Milliseconds for BATCH objects behind the backlog, against little waiting, and at the end against the start."""
    little = statistics.median(_claims(FEW, FEW_TURNS))
    times = _claims(backlog, turns)
    much = statistics.median(times)
    part = max(1, len(times) // 5)
    first, last = statistics.median(times[:part]), statistics.median(times[-part:])
    behind, held = much / little, last / first
    return [
        Figure("claim_backlog", "ms for 100 objects", much, little, behind, "≤ 1.5 times", behind <= 1.5, [backlog]),
        Figure("claim_held_open", "ms for 100 objects", last, first, held, "≤ 1.5 times", held <= 1.5, [turns]),
    ]


def measure_cost(objects: int = OBJECTS) -> list[Figure]:
    """The part of a run's processor time that the scheduler took: of one process that does everything, on each
    database."""
    figures = []
    with scratch() as folder:
        inbox = Path(folder) / "inbox"
        inbox.mkdir()
        for number in range(objects):
            (inbox / f"{number:06}.json").write_text(f'{{"text": "opossum {number}"}}')
        with _configs(Path(folder), inbox) as configs:
            for name, config in configs.items():
                found = in_process("benchmarks.scheduler", str(config))
                if found["tasks"] != objects:
                    raise RuntimeError(f"{found['tasks']} of {objects} objects were imported")
                share = found["turns"] / found["cpu"]
                runs = [found["turns"], found["cpu"], found["count"]]
                figures.append(Figure(name, "% of processor time", 100 * share, target="≤ 5 %", met=share <= 0.05,
                                      runs=runs))  # fmt: skip
    return figures


@contextlib.contextmanager
def _configs(folder: Path, inbox: Path) -> Iterator[dict[str, Path]]:
    """A run's configuration on SQLite alone, and one on PostgreSQL, Kafka and Redis."""
    source = {"name": "bench", "project": "bench", "url": str(inbox), "settle": 0, "poll": "1h", "watch": False}
    parts = {"projects": {"bench": {}}, "sources": [source]}
    with _database() as database:
        events = f"{ensure('kafka', keep=True).url}/bench-{uuid.uuid4().hex[:8]}?partitions=4"
        queue = f"{ensure('redis', keep=True).url}?namespace=bench-{uuid.uuid4().hex[:8]}"
        documents = {
            "scheduler_cost": {"database": f"sqlite:///{folder}/bench.db"},
            "scheduler_cost_postgres": {"database": database, "events": events, "queue": queue},
        }
        for name, servers in documents.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(servers | parts))
        yield {name: folder / f"{name}.yaml" for name in documents}


def measure() -> list[Figure]:
    """All of it."""
    return [*measure_backlog(), *measure_cost()]


class _Timed:
    """Processor time of the scheduler's own steps, each by its thread's clock. On SQLite a turn's transaction runs in
    the thread that writes; on PostgreSQL within the step, where it is not counted twice."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.turns = 0
        self._within = threading.local()

    def wrap(self, kind: type, name: str) -> None:
        """Time a method from outside, so that the product knows nothing of it."""
        method = getattr(kind, name)

        def timed(*values: Any) -> Any:
            if getattr(self._within, "is_so", False):
                return method(*values)
            self._within.is_so = True
            begun = time.thread_time()
            try:
                return method(*values)
            finally:
                self._within.is_so = False
                self.seconds += time.thread_time() - begun
                self.turns += name == "step"

        setattr(kind, name, timed)


def _run(config: str) -> None:
    """A run in this process. The commit of a turn on SQLite is not counted: it is one with that of workers."""
    scheduler = _Timed()
    scheduler.wrap(Scheduler, "step")
    scheduler.wrap(Turns, "take")
    begun = time.process_time()
    with App.open(load(Path(config))) as app:
        ended = app.run_once(lambda _: None)
    cpu = time.process_time() - begun
    answer(turns=scheduler.seconds, count=scheduler.turns, cpu=cpu, tasks=sum(each.tasks for each in ended))


if __name__ == "__main__":
    _run(sys.argv[1])
