"""Who leads a source: one process lists and watches it at a time."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from pipeline.sinks.sqlite.owners import LOCAL, Owners
from pipeline.sqlitefile import uptime


class Lead(NamedTuple):
    """The lead of a source by a holder, in the machine's present boot."""

    source_id: int
    holder: str
    boot: str


def lead(connection: sqlite3.Connection, mine: Lead, seconds: float, owners: Owners) -> bool:
    """As `Ledger.lead`."""
    now = uptime()
    row = connection.execute(
        "SELECT holder, boot, until FROM leaders WHERE source_id = ?", (mine.source_id,)
    ).fetchone()
    if row is not None and row[0] != mine.holder:
        holder, boot, until = row
        ended = boot != mine.boot or until <= now or (holder.startswith(LOCAL) and owners.dead(holder))
        if not ended:
            return False
    connection.execute(
        "INSERT INTO leaders (source_id, holder, boot, until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (source_id) DO UPDATE SET holder = excluded.holder, boot = excluded.boot, until = excluded.until",
        (*mine, now + seconds),
    )
    return True


def yield_lead(connection: sqlite3.Connection, mine: Lead) -> None:
    """As `Ledger.yield_lead`."""
    connection.execute("DELETE FROM leaders WHERE source_id = ? AND holder = ?", (mine.source_id, mine.holder))
