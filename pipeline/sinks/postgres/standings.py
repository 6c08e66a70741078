"""How each source's objects have fared of late, and whether it is paused for it, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger import Outcome, Standing, fared
from pipeline.sinks.postgres.database import Transaction

_COLUMNS = "failing, code, paused, extract(epoch FROM since)::float8, extract(epoch FROM probe_due)::float8"


def standings(tx: Transaction) -> dict[int, Standing]:
    """The standing of each source of which there is something to tell."""
    return {row[0]: Standing(*row[1:]) for row in tx.rows(f"SELECT source_id, {_COLUMNS} FROM standings")}


def take(tx: Transaction, source_id: int, outcomes: Sequence[Outcome]) -> None:
    """Let a source's standing follow from some more outcomes. The row is locked only where it changes."""
    found = tx.rows(f"SELECT {_COLUMNS} FROM standings WHERE source_id = %s", (source_id,))
    before = Standing(*found[0]) if found else Standing()
    if fared(before, outcomes, tx.at) != before:
        _write(tx, source_id, fared(_locked(tx, source_id), outcomes, tx.at))


def pause(tx: Transaction, source_id: int) -> None:
    """As `Ledger.pause`."""
    before = _locked(tx, source_id)
    if before.paused != "hand":
        _write(tx, source_id, before._replace(paused="hand", since=tx.at))


def resume(tx: Transaction, source_id: int) -> None:
    """As `Ledger.resume`."""
    tx.execute("DELETE FROM standings WHERE source_id = %s", (source_id,))


def pause_project(tx: Transaction, name: str, *, paused: bool) -> bool:
    """As `Ledger.pause_project`."""
    statement = (
        "UPDATE projects SET paused = CASE WHEN %s THEN clock_timestamp() END WHERE name = %s AND (paused IS NULL) = %s"
    )
    return tx.execute(statement, (paused, name, paused)).rowcount > 0


def forgive(tx: Transaction, name: str, shape: str) -> None:
    """Forget the failures of a source whose configuration is about to change: they may have been its own."""
    tx.execute(
        "DELETE FROM standings WHERE paused IS DISTINCT FROM 'hand' AND source_id IN"
        " (SELECT id FROM sources WHERE name = %s AND shape <> %s)",
        (name, shape),
    )


def _locked(tx: Transaction, source_id: int) -> Standing:
    tx.execute("INSERT INTO standings (source_id) VALUES (%s) ON CONFLICT DO NOTHING", (source_id,))
    (row,) = tx.rows(f"SELECT {_COLUMNS} FROM standings WHERE source_id = %s FOR UPDATE", (source_id,))
    return Standing(*row)


def _write(tx: Transaction, source_id: int, standing: Standing) -> None:
    tx.execute(
        "UPDATE standings SET failing = %s, code = %s, paused = %s, since = to_timestamp(%s::float8),"
        " probe_due = to_timestamp(%s) WHERE source_id = %s",
        (*standing, source_id),
    )
