"""The embedded log keeps the contract of event logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.bus import EventLog
from pipeline.bus.embedded import EmbeddedLog
from pipeline.events import ObjectEvent
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
                (end,) = connection.execute(
                    "UPDATE event_end SET position = position + 1 RETURNING position"
                ).fetchone()
                connection.execute(
                    "INSERT INTO events (position, count, at, body) VALUES (?, 1, 1, ?)", (end - 1, body)
                )

            file.write(insert)

        def dead() -> list[tuple[bytes, str]]:
            with file.read() as connection:
                return connection.execute("SELECT body, reason FROM dead_letters").fetchall()

        yield Bench(opened, inject, dead)
        file.close()


def test_dead_letters_can_be_read(tmp_path: Path) -> None:
    """What was put aside is read back with its reason, the newest first, and once for each object."""
    file = SqliteFile(tmp_path / "log.db")
    log = EmbeddedLog(file)
    log.create()
    log.publish([ObjectEvent("inbox", "a"), ObjectEvent("inbox", "b"), ObjectEvent("inbox", "a")])
    consumer = log.consumer(lambda _: {})
    consumer.dead(consumer.poll(10, 1).records, ["first", "second", "third"])
    letters = log.dead_letters(10)
    assert [(letter.event.key, letter.reason) for letter in letters if isinstance(letter.event, ObjectEvent)] == [
        ("a", "third"), ("b", "second"),
    ]  # fmt: skip
    assert log.dead_letters(1) == letters[:1]
    file.close()
