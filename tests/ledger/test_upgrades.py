"""A database that was filled under any earlier version of the schema is brought to the newest, and its work goes on."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from pipeline.ledger import Ledger
from pipeline.sinks.postgres import PostgresLedger
from pipeline.sinks.postgres import schema as postgres_schema
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sinks.sqlite import schema as sqlite_schema
from pipeline.sqlitefile import SqliteFile
from tests.ledger.bench import SOURCES, Bench, done

SCHEMAS = Path(sqlite_schema.__file__).parents[1] / "schema"
KEPT = """
INSERT INTO projects (name) VALUES ('cats');
INSERT INTO sources (name, project_id, identity, uri, shape)
  SELECT 'inbox', id, 'file:///inbox', 'file:///inbox', 'h1' FROM projects;
INSERT INTO objects (source_id, key, state, wanted_version, imported_version, due, tasks, first_seen, last_event)
  SELECT id, 'old', 'done', 'v1', 'v1', NOW, 2, NOW, NOW FROM sources;
INSERT INTO objects (source_id, key, state, wanted_version, due, first_seen, last_event)
  SELECT id, 'waiting', 'ready', 'v1', NOW, NOW, NOW FROM sources;
INSERT INTO imports (object_id, lease, state, mode, version, shape, tasks, at)
  SELECT id, 0, 'live', 'new', 'v1', 'h1', 2, NOW FROM objects WHERE key = 'old';
INSERT INTO task_rows (object_id, lease, position, row, data)
  SELECT id, 0, 0, 1, '{"text":"one"}' FROM objects WHERE key = 'old';
INSERT INTO task_rows (object_id, lease, position, row, data)
  SELECT id, 0, 1, 2, '{"text":"two"}' FROM objects WHERE key = 'old';
"""
"""What the first version of the schema holds of two objects and two tasks."""
OF_SQLITE = """
UPDATE sources SET tasks = 2, finished = 1, finished_at = NOW;
INSERT INTO source_counts SELECT source_id, state, 1 FROM objects;
"""
OF_POSTGRES = """
INSERT INTO counters SELECT source_id, state, 0, 1, NOW FROM objects;
INSERT INTO counters SELECT id, 'tasks', 0, 2, NOW FROM sources;
"""


def statements(script: str, now: str) -> list[str]:
    """A script's statements, with what the database calls a time of before."""
    return [statement.replace("NOW", now) for statement in script.split(";") if statement.strip()]


def versions(name: str) -> list[int]:
    """The versions before the newest."""
    return list(range(1, len(list((SCHEMAS / name).glob("*.sql")))))


def earlier(schema: ModuleType, name: str, version: int, folder: Path, ledger: Ledger) -> None:
    """Set a database up as the program of that version did."""
    old = folder / "old"
    old.mkdir()
    for script in sorted((SCHEMAS / name).glob("*.sql"))[:version]:
        shutil.copy(script, old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_FOLDER", old)
        ledger.migrate()


def upgraded(make: Callable[[], Any], execute: Callable[[str], list[tuple[Any, ...]]], stack: ExitStack) -> None:
    """The newest program takes the database over: what was there is there, and all kinds of work go on."""

    def another() -> Ledger:
        ledger: Ledger = make()
        stack.callback(ledger.close)  # type: ignore[attr-defined]
        return ledger

    bench = Bench(another(), another, execute)
    bench.policy["inbox"] = "replace"
    bench.ledger.migrate()
    bench.ledger.register(SOURCES)
    assert bench.texts("old") == ["one", "two"]
    assert bench.state("waiting") == "ready"
    assert [row["tasks"] for row in bench.ledger.reports().projects() if row["name"] == "cats"] == [2]
    assert bench.note("old") == {"duplicate": 1}
    lease, (waiting,) = bench.begin()
    assert bench.commit(lease, done(waiting, ("three",))).tasks == 1
    bench.again("old", lambda work: done(work, ("one", "TWO"), mode="replace"), version="v2")
    bench.imported("new", texts=("four",))
    assert [bench.texts(key) for key in ("old", "waiting", "new")] == [["one", "TWO"], ["three"], ["four"]]
    bench.check()


@pytest.mark.parametrize("version", versions("sqlite"))
def test_sqlite(tmp_path: Path, version: int) -> None:
    """A SQLite file of each earlier version keeps its tasks and outcomes, and its counters stay right."""
    path = tmp_path / "labelfeed.db"

    def execute(statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            return connection.execute(statement).fetchall()

    with closing(SqliteLedger(SqliteFile(path))) as ledger:
        earlier(sqlite_schema, "sqlite", version, tmp_path, ledger)
    for statement in statements(KEPT + OF_SQLITE, "unixepoch() - 100.0"):
        execute(statement)
    with ExitStack() as stack:
        upgraded(lambda: SqliteLedger(SqliteFile(path)), execute, stack)


@pytest.mark.parametrize("version", versions("postgres"))
def test_postgres(postgres_place: str, tmp_path: Path, version: int) -> None:
    """A PostgreSQL database of each earlier version keeps its tasks and outcomes, and its counters stay right."""
    with closing(PostgresLedger(postgres_place)) as ledger:
        earlier(postgres_schema, "postgres", version, tmp_path, ledger)
    with ExitStack() as stack, psycopg.connect(postgres_place, autocommit=True) as own:

        def execute(statement: str) -> list[tuple[Any, ...]]:
            cursor = own.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        for statement in statements(KEPT + OF_POSTGRES, "now() - interval '100 seconds'"):
            execute(statement)
        upgraded(partial(PostgresLedger, postgres_place), execute, stack)
