from __future__ import annotations

from tests.ledger.conftest import postgres_bench, postgres_place, sqlite_bench

__all__ = ["postgres_bench", "postgres_place", "sqlite_bench"]
