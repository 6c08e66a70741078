"""Whatever happens in whatever order, every object ends at its newest content exactly once."""

from __future__ import annotations

from tests.ledger import machine
from tests.ledger.bench import Bench


def test_sqlite(sqlite_bench: Bench) -> None:
    """Random interleavings over SQLite lose nothing, double nothing and leave nothing stale."""
    machine.run(sqlite_bench, examples=40, steps=60)


def test_postgres(postgres_bench: Bench) -> None:
    """Random interleavings over PostgreSQL lose nothing, double nothing and leave nothing stale."""
    machine.run(postgres_bench, examples=15, steps=60)
