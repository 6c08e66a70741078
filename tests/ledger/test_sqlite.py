"""The contract over SQLite, and what is SQLite's own."""

from __future__ import annotations

import pytest

from tests.ledger.bench import Bench
from tests.ledger.contract import suites

globals().update(suites("Sqlite"))


@pytest.fixture
def bench(sqlite_bench: Bench) -> Bench:
    """The database that the contract is run over."""
    return sqlite_bench
