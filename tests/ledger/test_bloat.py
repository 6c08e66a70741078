"""A soak of updates on PostgreSQL. `make soak` makes it ten times as many."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from deploy import services
from deploy.services.model import Service
from pipeline.sinks.postgres import PostgresLedger, schedule
from tests.ledger.bench import SOURCES

OBJECTS = 200_000 if "LABELFEED_SOAK" in os.environ else 40_000
UPDATES = 2_000_000 if "LABELFEED_SOAK" in os.environ else 200_000
BATCH = 1000
NAPTIME_SECONDS = 1
"""How often the server looks for tables to vacuum. It looks each minute by default: an installation takes an hour for
what is done here in a minute or two."""
ROUNDS_A_VACUUM = 2
"""Rounds of updates between two vacuums: as many updates as a busy installation makes in the server's own naptime, for
its size. How fast this machine updates must not decide how often the table is vacuumed."""
VACUUM_SECONDS = 10.0
LATE_LIMIT = 3
"""A vacuum that ends forgets the dead rows that were made while it ran, so that it may take further updates for the
next one. A table that gets none in so many times as many seconds never gets one: its settings do not ask for it."""
BLOAT_LIMIT = 1.5

INSERT = f"""
    INSERT INTO objects
      (source_id, key, state, wanted_version, imported_version, due, first_seen, last_event, finished_at)
    SELECT 1, 'folder/data/file-' || n || '.json', 'done', md5(n::text), md5(n::text), now(), now(), now(), now()
      FROM generate_series(1, {OBJECTS}) AS n"""
RECORD = "UPDATE objects SET state = 'ready', wanted_version = md5(random()::text), due = now(), last_event = now()"
COMMIT = "UPDATE objects SET state = 'done', lease = NULL, imported_version = wanted_version, finished_at = now()"
VACUUMS = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'objects'"
SIZES = "SELECT pg_table_size(%(name)s::regclass), pg_indexes_size(%(name)s::regclass)"


@pytest.fixture
def restless(postgres: Service, unique: str) -> Iterator[Service]:
    """A PostgreSQL server of this test alone."""
    with services.using("postgres", unique, settings={"autovacuum_naptime": f"{NAPTIME_SECONDS}s"}) as service:
        yield service


@pytest.mark.timeout(1800)
def test_updates_do_not_blow_up_the_table(restless: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of objects and its indexes end within 1.5 times what the same rows take when written anew."""
    with closing(PostgresLedger(restless.url)) as ledger:
        ledger.migrate()
        ledger.register(SOURCES)
    with psycopg.connect(restless.url, autocommit=True) as own:
        own.execute(INSERT)
        import_at_random(own)
        worn = own.execute(SIZES, {"name": "objects"}).fetchone()
        own.execute("CREATE TABLE anew (LIKE objects INCLUDING ALL) WITH (fillfactor = 80)")
        own.execute("INSERT INTO anew OVERRIDING SYSTEM VALUE SELECT * FROM objects ORDER BY id")
        fresh = own.execute(SIZES, {"name": "anew"}).fetchone()
    assert worn is not None
    assert fresh is not None
    with capsys.disabled():
        print(f"\n{UPDATES} updates: table and indexes {worn}, anew {fresh}")  # noqa: T201 - the figure of the soak
    assert sum(worn) <= BLOAT_LIMIT * sum(fresh)


def import_at_random(own: psycopg.Connection[tuple[object, ...]]) -> None:
    """Record, claim and commit objects, as the ledger updates their rows: each step a transaction."""
    chance = random.Random(1)
    seen, late = vacuums(own), 0
    for turn in range(UPDATES // (3 * BATCH)):
        ids = sorted(chance.sample(range(1, OBJECTS + 1), BATCH))
        own.execute(f"{RECORD} WHERE id = ANY(%s::bigint[])", (ids,))
        own.execute(schedule.CLAIM, (1, ids, BATCH, False, "e", 60, 0, 0, ids))
        own.execute(f"{COMMIT} WHERE id = ANY(%s::bigint[])", (ids,))
        if turn % ROUNDS_A_VACUUM == 0:
            count = vacuumed_since(own, seen)
            seen, late = count, late + 1 if count == seen else 0
            assert late < LATE_LIMIT, "its settings ask for no vacuum"


def vacuums(own: psycopg.Connection[tuple[object, ...]]) -> int:
    """How often the server has vacuumed the table by itself."""
    row = own.execute(VACUUMS).fetchone()
    return int(str(row[0])) if row else 0


def vacuumed_since(own: psycopg.Connection[tuple[object, ...]], seen: int) -> int:
    """Wait until the server has vacuumed the table once more, for VACUUM_SECONDS; how often it has by then."""
    deadline = time.monotonic() + VACUUM_SECONDS
    while (count := vacuums(own)) <= seen and time.monotonic() < deadline:
        time.sleep(0.02)
    return count
