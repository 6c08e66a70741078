"""What scheduling costs on PostgreSQL: claims behind a backlog of a million objects with a transaction left open, and
the processor time of turns in a run of 20,000 objects.

The transaction is opened before the first claim and stays open, as that of a long import or a backup: the server
can then take no dead entry out of an index. Claims are 100 objects each; every one is committed, as a worker would.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from benchmarks.measuring import Figure, answer, config_for, in_process, scratch
from deploy.services import ensure
from pipeline.app import App
from pipeline.config import Config
from pipeline.consumers.counting import Counting
from pipeline.consumers.turns import Turns
from pipeline.ledger import Claim, Ledger, Outcome, SourceIdentity
from pipeline.sinks.postgres import PostgresLedger

BACKLOG = 1_000_000
FEW = 5_000
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
    """Milliseconds of each turn that claims, its transaction included, in the order in which they came."""
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
                if turn.claims:
                    times.append((time.perf_counter() - begun) * 1000)
                _finish(ledger, turn.claims)
            return times


def measure_backlog(backlog: int = BACKLOG, turns: int = TURNS) -> list[Figure]:
    """Milliseconds of a turn behind the backlog, against one with little waiting; and of the last against the first."""
    little = statistics.median(_claims(FEW, min(turns, FEW // BATCH // 3)))
    times = _claims(backlog, turns)
    much = statistics.median(times)
    part = max(1, len(times) // 5)
    first, last = statistics.median(times[:part]), statistics.median(times[-part:])
    behind, held = much / little, last / first
    return [
        Figure("claim_backlog", "ms a turn", much, little, behind, "≤ 1.5 times", behind <= 1.5, [backlog]),
        Figure("claim_held_open", "ms a turn", last, first, held, "≤ 1.5 times", held <= 1.5, [turns]),
    ]


def measure_cost(objects: int = OBJECTS) -> list[Figure]:
    """The part of a run's processor time that the turns took: of this process, in the embedded setting."""
    with scratch() as folder:
        found = in_process("benchmarks.scheduler", folder, str(objects))
    share = found["turns"] / found["cpu"]
    return [
        Figure("scheduler_cost", "% of processor time", 100 * share, target="≤ 5 %", met=share <= 0.05,
               runs=[found["turns"], found["cpu"], found["count"]]),
    ]  # fmt: skip


def measure() -> list[Figure]:
    """All of it."""
    return [*measure_backlog(), *measure_cost()]


def _run(folder: str, objects: int) -> None:
    """A run of so many one-task files in this process, with its turns timed by their threads' own clocks."""
    from pathlib import Path  # noqa: PLC0415 - of the measured process alone

    inbox = Path(folder) / "inbox"
    inbox.mkdir()
    for number in range(objects):
        (inbox / f"{number:06}.json").write_text(f'{{"text": "opossum {number}"}}')
    spent: list[float] = []
    take = Turns.take

    def timed(self: Turns, *values: Any) -> Any:
        begun = time.thread_time()
        try:
            return take(self, *values)
        finally:
            spent.append(time.thread_time() - begun)

    Turns.take = timed  # type: ignore[method-assign]  # timed from outside, so that the product knows nothing of it
    begun = time.process_time()
    with App.open(config_for(inbox, Path(folder) / "bench.db")) as app:
        app.run_once(lambda _: None)
    answer(turns=sum(spent), count=len(spent), cpu=time.process_time() - begun)


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
