"""The contract behind PgBouncer in transaction mode, where each transaction may have another session of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from deploy.services.model import Service
from pipeline.sinks.postgres import PostgresLedger
from tests.ledger.bench import SOURCES, Bench
from tests.ledger.contract import suites

globals().update(suites("Pgbouncer"))


@pytest.fixture
def bench(database_url: str, pgbouncer: Service, unique: str) -> Iterator[Bench]:
    """A ledger behind PgBouncer; the test's own SQL goes to the server itself."""
    place = pgbouncer.url.removesuffix("/postgres") + f"/{unique}"
    with ExitStack() as stack:

        def another() -> PostgresLedger:
            ledger = PostgresLedger(place)
            stack.callback(ledger.close)
            return ledger

        own = stack.enter_context(psycopg.connect(database_url, autocommit=True))

        def execute(statement: str) -> list[tuple[Any, ...]]:
            cursor = own.execute(statement)
            return cursor.fetchall() if cursor.description else []

        bench = Bench(another(), another, execute)
        bench.ledger.migrate()
        bench.ledger.register(SOURCES)
        yield bench
        bench.check()
