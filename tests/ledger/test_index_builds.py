"""An index of a table in use is built while others write, by one process, whatever becomes of that one."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from pipeline.errors import UnavailableError
from pipeline.sinks.postgres import PostgresLedger, schema
from tests.ledger.bench import SOURCES, Bench

SCHEMA = Path(schema.__file__).parents[1] / "schema" / "postgres"
VERSION = 1 + len(list(SCHEMA.glob("*.sql")))
DEADLINE_SECONDS = 30.0


def migrated(place: str, folder: Path) -> None:
    """What a process of the newer program does first."""
    schema._FOLDER = folder
    with closing(PostgresLedger(place)) as ledger:
        ledger.migrate()


def refused(place: str, folder: Path) -> bool:
    """Whether another process is said to build it, as the server does for a while for one that is gone."""
    try:
        migrated(place, folder)
    except UnavailableError:
        return True
    return False


def valid(bench: Bench) -> bool | None:
    """Whether the index may be used, or None if there is none."""
    found = bench.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('objects_size')")
    return bool(found[0][0]) if found else None


def versions(bench: Bench) -> int:
    """The schema's number."""
    ((number,),) = bench.execute("SELECT max(version) FROM labelfeed_schema")
    return int(number)


def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def writer(place: str) -> Iterator[None]:
    """Somebody in the middle of a transaction that has written to the table: a build waits for its end."""
    with psycopg.connect(place) as connection:
        connection.execute("INSERT INTO objects (source_id, key, state, wanted_version, due, first_seen, last_event)"
                           " SELECT id, 'b', 'ready', 'v', now(), now(), now() FROM sources LIMIT 1")  # fmt: skip
        yield
        connection.rollback()


def test_others_write_while_it_is_built(postgres_bench: Bench, postgres_place: str, newer: Path) -> None:
    """Roles of the version before go on, start and register; another new one is told why it waits; then it is there."""
    bench = postgres_bench
    bench.imported("a")
    with ThreadPoolExecutor(1) as pool:
        with writer(postgres_place):
            building = pool.submit(migrated, postgres_place, newer)
            until(lambda: valid(bench) is False)
            bench.imported("c")
            bench.ledger.register(SOURCES)
            with pytest.raises(UnavailableError, match="another process builds the index objects_size"):
                migrated(postgres_place, newer)
            assert not building.done()
            assert versions(bench) == VERSION - 1
        building.result(DEADLINE_SECONDS)
    assert valid(bench) is True
    assert versions(bench) == VERSION
    migrated(postgres_place, newer)


def test_what_a_lost_connection_left_is_built_again(postgres_bench: Bench, postgres_place: str, newer: Path) -> None:
    """A build that the server gave up leaves an index that nobody may use; it is dropped and built anew."""
    bench = postgres_bench
    bench.imported("a")
    with ThreadPoolExecutor(1) as pool:
        with writer(postgres_place):
            building = pool.submit(until, lambda: not refused(postgres_place, newer))
            until(lambda: valid(bench) is False)
            ended = bench.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND query LIKE '%CREATE INDEX CONCURRENTLY objects_size%' AND datname = current_database()"
                " AND application_name = current_setting('application_name')"
            )
            assert ended == [(True,)]
            left = bench.execute("SELECT to_regclass('objects_size')::oid")
        building.result(DEADLINE_SECONDS)
    assert valid(bench) is True
    assert bench.execute("SELECT to_regclass('objects_size')::oid") != left
    assert versions(bench) == VERSION


def test_a_process_that_is_killed_in_a_build(postgres_bench: Bench, postgres_place: str, newer: Path) -> None:
    """SIGKILL in the middle of a build: the next process makes sure that the index is there and whole."""
    bench = postgres_bench
    bench.imported("a")
    with writer(postgres_place):
        process = multiprocessing.get_context("spawn").Process(target=migrated, args=(postgres_place, newer))
        process.start()
        until(lambda: valid(bench) is False)
        process.kill()
        process.join(DEADLINE_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        assert versions(bench) == VERSION - 1
    until(lambda: not refused(postgres_place, newer))
    assert valid(bench) is True
    assert versions(bench) == VERSION


def test_a_new_database_waits_for_nobody(postgres_place: str, newer: Path) -> None:
    """A database that is set up afresh gets all in one transaction: an old one elsewhere does not hold it up."""
    with psycopg.connect(postgres_place) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM pg_class")
        migrated(postgres_place, newer)
        with psycopg.connect(postgres_place, autocommit=True) as own:
            assert own.execute(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('objects_size')"
            ).fetchall() == [(True,)]
