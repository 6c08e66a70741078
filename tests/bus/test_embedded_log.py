"""The embedded log keeps the contract of event logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.bus import EventLog
from pipeline.bus.embedded import EmbeddedLog
from pipeline.sqlitefile import SqliteFile
from tests.bus.contract import Bench, LogContract


class TestEmbeddedLog(LogContract):
    """The contract, over a table in a SQLite file."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """A file of its own for each test."""
        file = SqliteFile(tmp_path / "log.db")

        def opened() -> EventLog:
            log = EmbeddedLog(file)
            log.create()
            return log

        def inject(body: bytes) -> None:
            def insert(connection: sqlite3.Connection) -> None:
                (end,) = connection.execute("UPDATE event_end SET position = position + 1 RETURNING position").fetchone()
                connection.execute("INSERT INTO events (position, count, at, body) VALUES (?, 1, 1, ?)", (end - 1, body))

            file.write(insert)

        def dead() -> list[tuple[bytes, str]]:
            with file.read() as connection:
                return connection.execute("SELECT body, reason FROM dead_letters").fetchall()

        yield Bench(opened, inject, dead)
        file.close()
