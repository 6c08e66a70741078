from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.services.model import Service
from pipeline.sinks.postgres import PostgresLedger, schema
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from tests.ledger.bench import SOURCES, Bench

SCHEMA = Path(schema.__file__).parents[1] / "schema" / "postgres"


@pytest.fixture
def postgres_place(postgres: Service, unique: str) -> Iterator[str]:
    """The URL of an empty schema of this test alone."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {unique}")
        yield f"{postgres.url}?options=-csearch_path%3D{unique}&application_name={unique}"
        connection.execute(f"DROP SCHEMA {unique} CASCADE")


@pytest.fixture
def postgres_bench(postgres_place: str) -> Iterator[Bench]:
    """A ledger in PostgreSQL; its counters are compared with what is there when the test ends."""
    with ExitStack() as stack:

        def another() -> PostgresLedger:
            ledger = PostgresLedger(postgres_place)
            stack.callback(ledger.close)
            return ledger

        own = stack.enter_context(psycopg.connect(postgres_place, autocommit=True))

        def execute(statement: str) -> list[tuple[Any, ...]]:
            cursor = own.execute(statement)
            return cursor.fetchall() if cursor.description else []

        bench = Bench(another(), another, execute)
        bench.ledger.migrate()
        bench.ledger.register(SOURCES)
        yield bench
        bench.check()


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> Iterator[Bench]:
    """A ledger in a SQLite file; its counters are compared with what is there when the test ends."""
    path = tmp_path / "labelfeed.db"
    with ExitStack() as stack:

        def another() -> SqliteLedger:
            ledger = SqliteLedger(SqliteFile(path))
            stack.callback(ledger.close)
            return ledger

        def execute(statement: str) -> list[tuple[Any, ...]]:
            connection = sqlite3.connect(path, timeout=30)
            try:
                with connection:
                    return connection.execute(statement).fetchall()
            finally:
                connection.close()

        bench = Bench(another(), another, execute)
        bench.ledger.migrate()
        bench.ledger.register(SOURCES)
        yield bench
        bench.check()


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's migrations of a program whose newest one is an index of `objects`; this process is of that one."""
    folder = tmp_path / "migrations"
    shutil.copytree(SCHEMA, folder)
    version = 1 + len(list(folder.glob("*.sql")))
    (folder / f"{version:04}_size.sql").write_text(
        "-- for a test\nCREATE INDEX CONCURRENTLY objects_size ON objects (size);\n"
    )
    monkeypatch.setattr(schema, "_FOLDER", folder)
    return folder
