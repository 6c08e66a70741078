"""docs/schema.md tells the truth: its statements run on both databases, its columns are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ledger.bench import Bench, done, rejected, task

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"
STATEMENTS = re.findall(r"^```(sql|sqlite|postgresql)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
VIEWS = ("tasks", "annotations", "predictions", "rejected")


def fill(bench: Bench) -> None:
    """Something of everything."""
    full = task("a", annotations='[{"id":1}]', predictions='[{"id":2}]')
    bench.imported("a.json", texts=(full, "b"), rejected=(rejected(3),))  # type: ignore[arg-type]
    bench.policy["inbox"] = "replace"
    bench.imported("c.json", texts=(full,))  # type: ignore[arg-type]
    bench.again("c.json", lambda work: done(work, ["c"], mode="replace"), version="v2")
    bench.policy["inbox"] = "ignore"
    bench.note("b.json")
    bench.note("a.json", version="v2")
    bench.ledger.begin_pass(1)
    bench.ledger.note_problem(1, "listing", ("throttled", "the store asks us to slow down"))


def run(bench: Bench, database: str) -> None:
    """Every statement for this database gives something."""
    fill(bench)
    for kind, statement in STATEMENTS:
        if kind in ("sql", database):
            rows = bench.execute(statement)
            assert rows or statement.startswith("CREATE") or "failed" in statement, statement


def columns(bench: Bench, view: str) -> list[str]:
    """A view's columns, as the ledger's own reading names them."""
    text = PAGE.read_text()
    section = re.search(rf"^###[^\n]*`{view}`.*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert section
    return re.findall(r"`([a-z_]+)`", section[0])


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_told(sqlite_bench: Bench, view: str) -> None:
    """Each column of each view stands on the page, in that view's section."""
    found = {row[1] for row in sqlite_bench.execute(f"PRAGMA table_info({view})")}
    assert found <= set(columns(sqlite_bench, view))


def test_sqlite(sqlite_bench: Bench) -> None:
    """The page's statements run on SQLite."""
    run(sqlite_bench, "sqlite")


def test_postgresql(postgres_bench: Bench) -> None:
    """The page's statements run on PostgreSQL, whose views have the same columns as SQLite's."""
    run(postgres_bench, "postgresql")


def test_both_have_the_same_views(sqlite_bench: Bench, postgres_bench: Bench) -> None:
    """A query of the views' columns works on both databases."""
    for view in VIEWS:
        names = [row[1] for row in sqlite_bench.execute(f"PRAGMA table_info({view})")]
        told = postgres_bench.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
            f" AND table_name = '{view}' ORDER BY ordinal_position"
        )
        assert [name for (name,) in told] == names
