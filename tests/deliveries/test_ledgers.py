from __future__ import annotations

import pytest

from tests.deliveries.contract_grants import GrantContract
from tests.deliveries.contract_ledger import AheadContract, MishapContract, OutboxContract
from tests.deliveries.contract_names import NamesContract
from tests.deliveries.contract_open import OpenContract
from tests.deliveries.contract_pages import PagesContract
from tests.deliveries.contract_returns import ReturnsContract
from tests.ledger.bench import Bench


class OnSqlite:
    """SQLite."""

    @pytest.fixture
    def bench(self, sqlite_bench: Bench) -> Bench:
        """A ledger in a file."""
        return sqlite_bench


class OnPostgres:
    """PostgreSQL."""

    @pytest.fixture
    def bench(self, postgres_bench: Bench) -> Bench:
        """A ledger on a server."""
        return postgres_bench


class TestSqliteOutbox(OnSqlite, OutboxContract): ...


class TestSqliteMishaps(OnSqlite, MishapContract): ...


class TestSqliteAhead(OnSqlite, AheadContract): ...


class TestPostgresAhead(OnPostgres, AheadContract): ...


class TestPostgresOutbox(OnPostgres, OutboxContract): ...


class TestPostgresMishaps(OnPostgres, MishapContract): ...


class TestSqliteGrants(OnSqlite, GrantContract): ...


class TestPostgresGrants(OnPostgres, GrantContract): ...


class TestSqliteReturns(OnSqlite, ReturnsContract): ...


class TestPostgresReturns(OnPostgres, ReturnsContract): ...


class TestSqliteNames(OnSqlite, NamesContract): ...


class TestPostgresNames(OnPostgres, NamesContract): ...


class TestSqlitePages(OnSqlite, PagesContract): ...


class TestPostgresPages(OnPostgres, PagesContract): ...


class TestSqliteOpen(OnSqlite, OpenContract): ...


class TestPostgresOpen(OnPostgres, OpenContract): ...
