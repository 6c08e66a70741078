from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from tests.ledger.bench import SOURCES, Bench


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
