"""The contract over PostgreSQL, and what is PostgreSQL's own."""

from __future__ import annotations

import pytest

from tests.ledger.bench import Bench
from tests.ledger.contract import suites

globals().update(suites("Postgres"))


@pytest.fixture
def bench(postgres_bench: Bench) -> Bench:
    """The database that the contract is run over."""
    return postgres_bench
