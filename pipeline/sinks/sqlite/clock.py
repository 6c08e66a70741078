"""The clock that deliveries on SQLite go by. The time of day may be set while an interval runs, or while a batch is
looked for: by it an import would begin too soon, or a batch that is still on its way be sent once more.

So one row of the file holds what this clock showed at some moment of the machine's boot; from there it runs by the
time since the boot, for every process alike. What happened while the machine was off only the time of day can tell: a
new boot begins with it, or with what was shown last, where it was set back meanwhile.
"""

from __future__ import annotations

import sqlite3

from pipeline.sqlitefile import boot_id, now, uptime


def steady(connection: sqlite3.Connection) -> float:
    """The time: as seconds since 1970, as far as the time of day was right when this boot began."""
    return _shown(connection, boot_id())


def kept(connection: sqlite3.Connection) -> float:
    """The time, kept: later ones will not be before it, whatever is done to the machine."""
    boot = boot_id()
    at = _shown(connection, boot)
    connection.execute("UPDATE clock SET boot = ?, uptime = ?, at = ?", (boot, uptime(), at))
    return at


def begun(connection: sqlite3.Connection) -> float:
    """The time; kept where it is the first look of this boot."""
    (boot,) = connection.execute("SELECT boot FROM clock").fetchone()
    return steady(connection) if boot == boot_id() else kept(connection)


def ahead(connection: sqlite3.Connection) -> float:
    """How far the time of day is ahead of this clock: what is added to a time of it for people."""
    return now() - steady(connection)


def _shown(connection: sqlite3.Connection, boot: str) -> float:
    known, since, at = connection.execute("SELECT boot, uptime, at FROM clock").fetchone()
    return float(at + max(0.0, uptime() - since) if known == boot else max(at, now()))
