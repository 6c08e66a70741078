"""The contract behind PgBouncer in transaction mode, where each transaction may have another session of PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.services.model import Service
from pipeline.sinks.postgres import PostgresLedger
from tests.ledger.bench import SOURCES, Bench
from tests.ledger.contract import suites

globals().update(suites("Pgbouncer"))


def behind(pgbouncer: Service, database: str) -> str:
    """The URL of a database behind PgBouncer."""
    return pgbouncer.url.removesuffix("/postgres") + f"/{database}"


@pytest.fixture(scope="module")
def template(postgres: Service) -> Iterator[str]:
    """A database with our tables and nothing in them, which nobody is connected to: to be copied."""
    name = f"t{uuid.uuid4().hex[:16]}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        with closing(PostgresLedger(postgres.url.removesuffix("/postgres") + f"/{name}")) as ledger:
            ledger.migrate()
        yield name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def place(postgres: Service, pgbouncer: Service, template: str, unique: str) -> Iterator[str]:
    """The URL of a database of this test alone behind PgBouncer, with our tables and nothing in them."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {unique} TEMPLATE {template}".encode())
        yield behind(pgbouncer, unique)
        connection.execute(f"DROP DATABASE {unique} WITH (FORCE)".encode())


@pytest.fixture
def bench(place: str, postgres: Service, unique: str) -> Iterator[Bench]:
    """A ledger behind PgBouncer; the test's own SQL goes to the server itself."""
    with ExitStack() as stack:

        def another() -> PostgresLedger:
            ledger = PostgresLedger(place)
            stack.callback(ledger.close)
            return ledger

        direct = postgres.url.removesuffix("/postgres") + f"/{unique}"
        own = stack.enter_context(psycopg.connect(direct, autocommit=True))

        def execute(statement: str) -> list[tuple[Any, ...]]:
            cursor = own.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        bench = Bench(another(), another, execute)
        bench.ledger.migrate()
        bench.ledger.register(SOURCES)
        yield bench
        bench.check()


def test_it_is_set_up(database_url: str, pgbouncer: Service, unique: str) -> None:
    """The tables are made behind PgBouncer as they are on the server itself, and made once."""
    with closing(PostgresLedger(behind(pgbouncer, unique))) as ledger:
        assert not ledger.made()
        for _ in range(2):
            ledger.migrate()
        assert ledger.made()
        assert [row.name for row in ledger.register(SOURCES)] == [source.name for source in SOURCES]


def test_index_of_a_table_in_use_is_built(bench: Bench, newer: Path) -> None:
    """An upgrade's index is built through the pooler, too."""
    bench.imported("a")
    bench.ledger.migrate()
    assert bench.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('objects_size')") == [(True,)]
    (version,) = bench.execute("SELECT max(version) FROM labelfeed_schema")[0]
    assert version == len(list(newer.glob("*.sql")))
