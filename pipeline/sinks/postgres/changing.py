"""Changes of single delivered tasks on PostgreSQL: what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.ledger.deliveries import Changed
from pipeline.sinks.outboxes import Range
from pipeline.sinks.postgres.database import Transaction, array
from pipeline.sinks.postgres.granting import insert
from pipeline.sinks.postgres.paging import LIVE


def changed(tx: Transaction, delivery: int, outcomes: Mapping[int, Changed]) -> None:
    """As `Deliveries.changed`, under a grant that holds."""
    counted = {"updated": 0, "deleted": 0, "kept": 0}
    deleted = []
    pendings: dict[int, str | None] = dict(
        tx.rows(
            "SELECT task_id, pending FROM delivered WHERE delivery_id = %s AND task_id = ANY(%s)",
            (delivery, list(outcomes)),
        )
    )
    for task, one in outcomes.items():
        state = one.state(pendings[task])
        tx.execute(
            "UPDATE delivered SET pending = NULL, revision = %s, state = %s, reason = %s,"
            " remote_id = CASE WHEN %s THEN NULL ELSE remote_id END WHERE delivery_id = %s AND task_id = %s",
            (one.sent, state, one.reason or None, one.gone, delivery, task),
        )
        counted[one.counted] += 1
        if state == "deleted":
            deleted.append(task)
    _anew(tx, delivery, deleted)
    tx.execute(
        "UPDATE deliveries SET until = NULL, failing = 0, code = NULL, reason = NULL, since = NULL, due = 'epoch',"
        " updated = updated + %s, deleted = deleted + %s, kept = kept + %s,"
        # What is open there is not what it was. Where it could not be told, that is left alone for as long as it asks.
        " count_due = CASE WHEN %s AND uncounted IS NULL THEN NULL ELSE count_due END WHERE id = %s",
        (*counted.values(), bool(deleted), delivery),
    )


def _anew(tx: Transaction, delivery: int, deleted: Sequence[int]) -> None:
    """Put what was deleted there and has come back here into the outbox: it may have been looked at before."""
    if deleted:
        rows = tx.rows(
            "SELECT t.object_id, t.lease, t.position, t.lease, t.position + 1, 1 FROM task_rows AS t"
            f" WHERE t.id = ANY(%s::bigint[]) AND {LIVE}",
            (array(deleted),),
        )
        insert(tx, delivery, [Range(*row) for row in rows])
