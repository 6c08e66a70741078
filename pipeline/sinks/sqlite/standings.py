"""How each source's objects have fared of late, and whether it is paused for it, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from pipeline.ledger import Outcome, Standing, fared
from pipeline.sqlitefile import now

COLUMNS = "failing, code, paused, since, probe_due"


def standings(connection: sqlite3.Connection) -> dict[int, Standing]:
    """The standing of each source of which there is something to tell."""
    rows = connection.execute(f"SELECT source_id, {COLUMNS} FROM standings")
    return {row[0]: Standing(*row[1:]) for row in rows}


def standing_of(connection: sqlite3.Connection, source_id: int) -> Standing:
    """One source's standing."""
    row = connection.execute(f"SELECT {COLUMNS} FROM standings WHERE source_id = ?", (source_id,)).fetchone()
    return Standing() if row is None else Standing(*row)


def take(connection: sqlite3.Connection, source_id: int, outcomes: Sequence[Outcome]) -> None:
    """Let a source's standing follow from some more outcomes."""
    before = standing_of(connection, source_id)
    after = fared(before, outcomes, now())
    if after != before:
        _write(connection, source_id, after)


def pause(connection: sqlite3.Connection, source_id: int) -> None:
    """As `Ledger.pause`."""
    before = standing_of(connection, source_id)
    if before.paused != "hand":
        _write(connection, source_id, before._replace(paused="hand", since=now()))


def resume(connection: sqlite3.Connection, source_id: int) -> None:
    """As `Ledger.resume`."""
    connection.execute("DELETE FROM standings WHERE source_id = ?", (source_id,))


def pause_project(connection: sqlite3.Connection, name: str, *, paused: bool) -> bool:
    """As `Ledger.pause_project`."""
    statement = "UPDATE projects SET paused = ? WHERE name = ? AND (paused IS NULL) = ?"
    return connection.execute(statement, (now() if paused else None, name, paused)).rowcount > 0


def forgive(connection: sqlite3.Connection, name: str, shape: str) -> None:
    """Forget the failures of a source whose configuration is about to change: they may have been its own."""
    connection.execute(
        "DELETE FROM standings WHERE paused IS NOT 'hand' AND source_id IN"
        " (SELECT id FROM sources WHERE name = ? AND shape <> ?)",
        (name, shape),
    )


def _write(connection: sqlite3.Connection, source_id: int, standing: Standing) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO standings (source_id, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", (source_id, *standing)
    )
