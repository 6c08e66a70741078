"""Migrations only add, so that roles of two versions work on one database at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest

FOLDERS = ("postgres", "sqlite")
CREATES = re.compile(r"CREATE (?:TABLE|VIEW) (\w+)")
ADDS = re.compile(r"ALTER TABLE (\w+)((?:,? ADD COLUMN \w+ [^,;]+)+)")
INDEXES = re.compile(r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+) ")
BESIDE = re.compile(r"CREATE INDEX CONCURRENTLY \w+ ON \w+ ")
IN_TURN = {"0011_leaving.sql"}
"""Indexes of a table in use on SQLite, which builds none beside: the one writer's transaction is waited for."""
FILLS = re.compile(r"INSERT INTO (\w+) ")


def scripts(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Each migration's name and statements, in their order."""
    for script in sorted(files("pipeline.sinks.schema").joinpath(folder).iterdir(), key=lambda script: script.name):
        plain = re.sub(r"--.*", "", script.read_text())
        yield script.name, [" ".join(statement.split()) for statement in plain.split(";") if statement.strip()]


def fault(statement: str, made: set[str], *, alone: bool = False) -> str | None:
    """Why a statement may not stand in a migration that makes the tables `made`, if it may not."""
    if found := ADDS.fullmatch(statement):
        bare = re.search(r"NOT NULL(?! DEFAULT)", found[2])
        return "an old role does not fill a column that must be filled" if bare else None
    if found := INDEXES.match(statement):
        return None if found[1] in made else "it stops all writing to a table that may be large"
    if BESIDE.match(statement):
        return None if alone else "it can be in no transaction, and must be a migration by itself"
    if found := FILLS.match(statement):
        return None if found[1] in made else "it writes into a table that others use"
    return None if CREATES.match(statement) else "it does more than add"


@pytest.mark.parametrize("folder", FOLDERS)
def test_migrations_only_add(folder: str) -> None:
    """New tables, views and columns that need not be filled; an index on a table of the same migration or alone."""
    faults = {}
    for name, statements in scripts(folder):
        made = {found[1] for statement in statements if (found := CREATES.match(statement))}
        alone = folder == "postgres" and len(statements) == 1
        if folder == "sqlite" and name in IN_TURN and len(statements) == 1:
            made = {found[1] for statement in statements if (found := INDEXES.match(statement))}
        faults |= {(name, one): why for one in statements if (why := fault(one, made, alone=alone))}
    assert faults == {}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE history",
        "ALTER TABLE objects DROP COLUMN trace",
        "ALTER TABLE objects RENAME COLUMN trace TO traced",
        "ALTER TABLE objects ADD COLUMN trace uuid NOT NULL",
        "ALTER TABLE objects ADD COLUMN trace uuid, ALTER COLUMN size TYPE integer",
        "CREATE INDEX objects_trace ON objects (trace)",
        "CREATE INDEX CONCURRENTLY objects_trace ON objects (trace)",
        "CREATE UNIQUE INDEX CONCURRENTLY objects_trace ON objects (trace)",
        "UPDATE objects SET trace = NULL",
        "INSERT INTO objects (key) VALUES ('a')",
    ],
)
def test_what_does_more_is_found(statement: str) -> None:
    """What would break or stop a role of the version before does not pass."""
    assert fault(statement, {"queues"})


def test_index_of_a_table_in_use_is_a_migration_by_itself() -> None:
    """Such an index is built while others write, and needs no other statement beside it."""
    assert fault("CREATE INDEX CONCURRENTLY objects_trace ON objects (trace)", set(), alone=True) is None
