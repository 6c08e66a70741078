"""The configuration's deliveries in the ledger, on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pipeline.config.projects import spelled
from pipeline.errors import UsageError
from pipeline.ledger.deliveries import DeliveryIdentity, DeliveryRow
from pipeline.ledger.remotes import other_target, renamed
from pipeline.sinks.postgres.database import Transaction
from pipeline.sinks.postgres.schema import MIGRATING


def register(tx: Transaction, deliveries: Sequence[DeliveryIdentity], *, keep: bool) -> list[DeliveryRow]:
    """As `Deliveries.register`."""
    tx.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))", (MIGRATING,))
    known = _known(tx)
    held = {number for number, live in known.values() if live and keep}
    for number, one in renamed(deliveries, {row: number for row, (number, _) in known.items()}, held).items():
        tx.execute("UPDATE deliveries SET name = %s WHERE id = %s", (one.name, number))
    found = []
    for one in sorted(deliveries):
        tx.execute("INSERT INTO projects (name) VALUES (%s) ON CONFLICT DO NOTHING", (one.project,))
        ((project,),) = tx.rows("SELECT id FROM projects WHERE name = %s", (one.project,))
        tx.execute(
            "INSERT INTO deliveries (project_id, name, kind, target, stamp, backfill, backfill_from)"
            " VALUES (%s, %s, %s, %s, %s, 0, pg_current_xact_id()) ON CONFLICT DO NOTHING",
            (project, one.name, one.kind, one.target, secrets.token_hex(4)),
        )
        # What was committed while it was in no configuration is not in its outbox.
        tx.execute(
            "UPDATE deliveries SET backfill = 0, backfill_from = pg_current_xact_id(), retired = false"
            " WHERE project_id = %s AND name = %s AND retired",
            (project, one.name),
        )
        ((number, target, stamp, xml),) = tx.rows(
            "SELECT id, target, stamp, label_config FROM deliveries WHERE project_id = %s AND name = %s",
            (project, one.name),
        )
        if spelled(target) != one.target:
            raise UsageError(other_target(one, target))
        found.append(DeliveryRow(number, f"{one.project}/{one.name}", stamp, xml))
    if not keep:
        tx.execute(
            "UPDATE deliveries SET retired = true WHERE NOT retired AND id <> ALL(%s)", ([row.id for row in found],)
        )
    return found


def _known(tx: Transaction) -> dict[DeliveryIdentity, tuple[int, bool]]:
    """The ledger's deliveries: their numbers, and whether a configuration in use has them."""
    return {
        DeliveryIdentity(project, name, kind, spelled(target)): (number, live)
        for number, live, project, name, kind, target in tx.rows(
            "SELECT d.id, NOT d.retired, p.name, d.name, d.kind, d.target FROM deliveries AS d"
            " JOIN projects AS p ON p.id = d.project_id"
        )
    }
