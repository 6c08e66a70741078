"""The contract over SQLite, and what is SQLite's own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.ledger import Candidates
from pipeline.sinks.sqlite import SqliteLedger, granting, schedule
from pipeline.sqlitefile import SqliteFile
from tests.ledger import processes
from tests.ledger.bench import Bench
from tests.ledger.contract import suites

globals().update(suites("Sqlite"))


@pytest.fixture
def bench(sqlite_bench: Bench) -> Bench:
    """The database that the contract is run over."""
    return sqlite_bench


def test_processes_killed_at_random(sqlite_bench: Bench, tmp_path: Path) -> None:
    """Processes that claim and commit on one file and are killed at any moment lose nothing and double nothing."""
    killed = processes.kill_at_random(sqlite_bench, str(tmp_path / "labelfeed.db"), seconds=5.0, keys=1500)
    assert killed >= 5
    processes.verify_killed(sqlite_bench, 1500)
    assert sqlite_bench.execute("PRAGMA integrity_check") == [("ok",)]


def test_a_killed_process_gives_everything_back_at_once(sqlite_bench: Bench, tmp_path: Path) -> None:
    """When a process dies by SIGKILL, its claims are ready again long before their leases end."""
    sqlite_bench.note("a", "b")
    ready = processes.SPAWN.Event()
    process = processes.SPAWN.Process(
        target=processes.claim_and_wait, args=(str(tmp_path / "labelfeed.db"), "local:victim", ready)
    )
    process.start()
    assert ready.wait(processes.DEADLINE_SECONDS)
    assert sqlite_bench.tick(lambda tick: tick.release("local:me")) == 0
    assert (sqlite_bench.state("a"), sqlite_bench.state("b")) == ("running", "claimed")
    process.kill()
    process.join()

    deadline = time.monotonic() + processes.DEADLINE_SECONDS
    while not (freed := sqlite_bench.tick(lambda tick: tick.release("local:me"))):
        assert time.monotonic() < deadline
    assert freed == 2
    rows = [sqlite_bench.row(key) for key in "ab"]
    assert [(row["state"], row["attempts"], row["lost"]) for row in rows] == [("ready", 1, 1), ("ready", 0, 0)]


def test_a_closed_process_gives_everything_back_at_once(sqlite_bench: Bench) -> None:
    """A ledger that is closed lets go of its lock; its own claims are never taken from it while it lives."""
    other = sqlite_bench.another()
    other.hold("local:other")
    sqlite_bench.note("a")
    sqlite_bench.claims(epoch="local:other")
    assert other.tick(lambda tick: tick.release("local:other")) == 0
    other.close()
    assert sqlite_bench.tick(lambda tick: tick.release("local:me")) == 1


def test_leases_of_another_boot_end(sqlite_bench: Bench) -> None:
    """After the machine was started anew, no lease of before holds: its clock of the boot means nothing now."""
    sqlite_bench.note("a")
    sqlite_bench.claims()
    sqlite_bench.execute("UPDATE leases SET boot = 'before'")
    assert sqlite_bench.tick(lambda tick: tick.expire(10)) == 1


def test_a_newer_schema_is_refused(sqlite_bench: Bench) -> None:
    """A file that a newer program has written is left alone, and the message says what to do."""
    sqlite_bench.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="schema 99"):
        sqlite_bench.ledger.migrate()


def test_two_processes_set_up_one_file(tmp_path: Path) -> None:
    """Ledgers that open and migrate a new file at the same time all succeed."""
    path = tmp_path / "fresh.db"

    def set_up(_: int) -> str:
        with closing(SqliteLedger(SqliteFile(path))) as ledger:
            ledger.migrate()
            return ledger.ping()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(set_up, range(8)))) == 1


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (schedule.FOUND, "objects_ready"),
        (schedule.TOGETHER, "objects_ready"),
        (schedule.NEXT_DUE, "objects_ready"),
        (schedule.LEAVING, "objects_leaving"),
        ("SELECT id FROM objects WHERE source_id = 1 AND key > 'a' ORDER BY key LIMIT 9", "objects_key"),
        ("SELECT data FROM tasks WHERE source = 'inbox' AND key = 'a'", "objects_key"),
        ("SELECT 1 FROM imports WHERE state IN ('staged', 'discarded') AND lease NOT IN (SELECT id FROM leases)",
         "imports_unpublished"),
        (f"SELECT {granting.CHANGES} FROM (SELECT 1 AS id) AS d", "delivered_pending"),
    ],
)  # fmt: skip
def test_plans(sqlite_bench: Bench, statement: str, index: str) -> None:
    """The statements that run all the time, and the plainest question of a person, use their index."""
    plan = " ".join(str(row[3]) for row in sqlite_bench.execute(f"EXPLAIN QUERY PLAN {statement.replace('?', '1')}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN" not in plan.replace("SCAN imports USING INDEX", "").replace("SCAN CONSTANT ROW", "").replace(
        "SCAN d", ""
    ).replace("SCAN (subquery-1)", "")


def test_an_aggregate_promises_no_order() -> None:
    """Candidates come out of one row only where they are healthy and in the order of their numbers."""
    assert schedule.together(1.5, 0, "[1,2]", "[30,10]") == Candidates([1, 2], [1.5, 1.5], [30, 10], [0, 0])
    assert schedule.together(1.5, None, "[]", "[]") == Candidates([], [], [], [])
    assert schedule.together(1.5, 0, "[2,1]", "[30,10]") is None
    assert schedule.together(1.5, 1, "[1,2]", "[30,10]") is None
