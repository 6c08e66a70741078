"""The configuration's deliveries in the ledger, on SQLite."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence

from pipeline.config.projects import spelled
from pipeline.errors import UsageError
from pipeline.ledger.deliveries import DeliveryIdentity, DeliveryRow
from pipeline.ledger.remotes import other_target, renamed
from pipeline.sinks.texts import text_of


def register(
    connection: sqlite3.Connection, deliveries: Sequence[DeliveryIdentity], *, keep: bool
) -> list[DeliveryRow]:
    """As `Deliveries.register`."""
    known = _known(connection)
    held = {number for number, live in known.values() if live and keep}
    for number, one in renamed(deliveries, {row: number for row, (number, _) in known.items()}, held).items():
        connection.execute("UPDATE deliveries SET name = ? WHERE id = ?", (one.name, number))
    found = []
    for one in deliveries:
        connection.execute("INSERT INTO projects (name) VALUES (?) ON CONFLICT DO NOTHING", (one.project,))
        (project,) = connection.execute("SELECT id FROM projects WHERE name = ?", (one.project,)).fetchone()
        connection.execute(
            "INSERT INTO deliveries (project_id, name, kind, target, stamp, backfill) VALUES (?, ?, ?, ?, ?, 0)"
            " ON CONFLICT DO NOTHING",
            (project, one.name, one.kind, one.target, secrets.token_hex(4)),
        )
        # What was committed while it was in no configuration is not in its outbox.
        row = connection.execute(
            "UPDATE deliveries SET backfill = CASE WHEN retired THEN 0 ELSE backfill END, retired = 0"
            " WHERE project_id = ? AND name = ? RETURNING id, target, stamp, label_config",
            (project, one.name),
        ).fetchone()
        if spelled(row[1]) != one.target:
            raise UsageError(other_target(one, row[1]))
        found.append(DeliveryRow(row[0], f"{one.project}/{one.name}", row[2], row[3]))
    if not keep:
        connection.execute(
            "UPDATE deliveries SET retired = 1 WHERE id NOT IN (SELECT value FROM json_each(?))",
            (text_of([row.id for row in found]),),
        )
    return found


def _known(connection: sqlite3.Connection) -> dict[DeliveryIdentity, tuple[int, bool]]:
    """The ledger's deliveries: their numbers, and whether a configuration in use has them."""
    return {
        DeliveryIdentity(project, name, kind, spelled(target)): (number, not retired)
        for number, retired, project, name, kind, target in connection.execute(
            "SELECT d.id, d.retired, p.name, d.name, d.kind, d.target FROM deliveries AS d"
            " JOIN projects AS p ON p.id = d.project_id"
        )
    }
