"""Connections to PostgreSQL on which nothing comes any more, though all that is sent on them is acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from deploy.services import Service
from pipeline.consumers import renewer
from pipeline.consumers.renewer import Renewer
from pipeline.errors import UnavailableError
from pipeline.sinks.postgres import PostgresLedger, connection, database
from pipeline.sinks.postgres.database import Database
from tests.faults.network import Proxy
from tests.ledger.bench import SOURCES

pytestmark = pytest.mark.timeout(60)

DOUBT_SECONDS = 0.5
SLEEPS = 3 * DOUBT_SECONDS
SOON_SECONDS = 20.0
"""Where a connection is waited for without an end, a test's own time-out comes first."""


@pytest.fixture
def proxy(postgres: Service, toxiproxy: Service, unique: str) -> Iterator[Proxy]:
    """A proxy to PostgreSQL."""
    made = Proxy.to(toxiproxy, unique, postgres.port)
    yield made
    made.remove()


@pytest.fixture
def place(proxy: Proxy, postgres_place: str, postgres: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty schema behind the proxy; a connection is doubted after half a second."""
    monkeypatch.setattr(connection, "DOUBT_SECONDS", DOUBT_SECONDS)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.5)
    return postgres_place.replace(f":{postgres.port}/", f":{proxy.port}/")


def test_a_server_that_goes_silent(place: str, proxy: Proxy) -> None:
    """A statement on a connection that goes silent is told as a server that does not answer, and once it answers
    again the next one is made on a new connection."""
    with closing(PostgresLedger(place)) as ledger:
        ledger.migrate()
        proxy.hang()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="nothing comes from the server"):
            ledger.now()
        assert time.monotonic() - began < SOON_SECONDS
        proxy.answer()
        assert ledger.now()


def test_a_statement_that_takes_its_time(place: str) -> None:
    """A statement that brings nothing for long is waited for as long as the server lets others connect."""
    with closing(Database(place)) as ours:
        assert ours.read(lambda tx: tx.rows(f"SELECT 1 FROM pg_sleep({SLEEPS})")) == [(1,)]


def test_an_answer_that_was_lost(place: str, postgres: Service) -> None:
    """A statement is given up after its time, however well the server answers others, except where it may last."""
    with closing(Database(place, silence=DOUBT_SECONDS)) as ours:
        with pytest.raises(UnavailableError, match="nothing comes from the server"):
            ours.read(lambda tx: tx.rows("SELECT pg_sleep(60)"))
        slept: list[tuple[object, ...] | None] = []

        def lasting(one: psycopg.Connection[tuple[object, ...]], _other: object) -> None:
            slept.append(one.execute(f"SELECT 1 FROM pg_sleep({SLEEPS})").fetchone())

        ours.apart(lasting)
        assert slept == [(1,)]


def test_a_commit_that_is_not_answered(place: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server goes silent in a commit and answers again, the transaction is done once."""
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 20.0)
    with closing(Database(place)) as ours:
        ours.write(lambda tx: tx.execute("CREATE TABLE written (n integer)"))
        tries: list[int] = []

        def job(tx: database.Transaction) -> None:
            tries.append(1)
            tx.execute("INSERT INTO written VALUES (1)")

        real = psycopg.Connection.execute

        def execute(self: psycopg.Connection[object], query: object, *values: object, **options: object) -> object:
            if query != "COMMIT" or not tries:
                return real(self, query, *values, **options)  # type: ignore[arg-type, call-overload]
            monkeypatch.undo()
            monkeypatch.setattr(connection, "DOUBT_SECONDS", DOUBT_SECONDS)
            proxy.hang()
            try:
                return real(self, "COMMIT")
            finally:
                proxy.answer()

        monkeypatch.setattr(psycopg.Connection, "execute", execute)
        ours.write(job)
        assert ours.read(lambda tx: tx.rows("SELECT n FROM written")) == [(1,)]
        assert len(tries) == 2


def test_a_renewer_ends_while_the_database_is_silent(place: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process can end while the database does not answer its renewer, and before that its renewer says so."""
    with closing(PostgresLedger(place)) as ledger:
        ledger.migrate()
        ledger.register(SOURCES)
        monkeypatch.setattr(renewer, "JOIN_SECONDS", 0.1)
        renewing = Renewer(ledger, "w", 1.0)
        renewing.start(1)
        proxy.hang()
        deadline = time.monotonic() + SOON_SECONDS
        while renewing.problem is None:
            assert time.monotonic() < deadline, "it never said so"
            time.sleep(0.05)
        assert "unavailable" in renewing.problem
        began = time.monotonic()
        renewing.stop()
        assert time.monotonic() - began < SOON_SECONDS
        proxy.answer()
