"""Proposed revisions on PostgreSQL: which there are, and what deciding on them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.ledger import RevisionFilter
from pipeline.sinks.outboxes import whole
from pipeline.sinks.outcomes import undecidable
from pipeline.sinks.postgres.database import Transaction
from pipeline.sinks.postgres.granting import to_outbox
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.texts import text_of

PARTS = ("data", "annotations", "predictions", "meta", "extra", "external_id")
_IS_LIVE = (
    "(t.archived_at IS NULL AND EXISTS"
    " (SELECT 1 FROM imports AS i WHERE i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live'))"
)
_OPEN = f"r.state = 'proposed' AND {_IS_LIVE}"


def revisions(tx: Transaction, which: RevisionFilter, after: int, limit: int) -> list[dict[str, Any]]:
    """As `Reports.revisions`."""
    proposed = ", ".join(f"r.{part}::text" for part in PARTS)
    present = ", ".join(f"t.{part}::text AS task_{part}" for part in PARTS)
    clauses = "" if which.decided else f" AND {_OPEN}"
    values: list[object] = []
    if which.source is not None:
        clauses += " AND s.name = %s"
        values.append(which.source)
    if which.object_id is not None:
        clauses += " AND r.object_id = %s"
        values.append(which.object_id)
    return tx.dicts(
        "SELECT r.id, s.name AS source, o.key, r.object_id, r.task_id, r.version, r.state,"
        " extract(epoch FROM r.proposed_at)::float8 AS proposed_at,"
        f" extract(epoch FROM r.decided_at)::float8 AS decided_at, {proposed}, {present}"
        " FROM revisions AS r JOIN task_rows AS t ON t.id = r.task_id JOIN objects AS o ON o.id = r.object_id"
        f" JOIN sources AS s ON s.id = o.source_id WHERE r.id > %s{clauses} ORDER BY r.id LIMIT %s",
        (after, *values, limit),
    )


def waiting(tx: Transaction) -> dict[int, int]:
    """How many revisions of each source wait to be decided on, where there are any."""
    return dict(
        tx.rows(
            "SELECT o.source_id, count(*) FROM revisions AS r JOIN task_rows AS t ON t.id = r.task_id"
            f" JOIN objects AS o ON o.id = r.object_id WHERE {_OPEN} GROUP BY o.source_id"
        )
    )


def decide(tx: Transaction, ids: Sequence[int], *, accept: bool) -> dict[int, str]:
    """As `Ledger.decide`."""
    tx.execute(
        "SELECT 1 FROM objects WHERE id IN (SELECT object_id FROM revisions WHERE id = ANY(%s)) ORDER BY id FOR UPDATE",
        (list(ids),),
    )
    found = {
        row[0]: row[1:]
        for row in tx.rows(
            f"SELECT r.id, r.state, {_IS_LIVE}, r.object_id, r.task_id FROM revisions AS r"
            " JOIN task_rows AS t ON t.id = r.task_id WHERE r.id = ANY(%s)",
            (list(ids),),
        )
    }
    refused, chosen = {}, []
    for revision in ids:
        state, live, object_id, task_id = found.get(revision, (None, False, 0, 0))
        why = undecidable(state, live=live)
        if why is not None:
            refused[revision] = why
        else:
            chosen.append((revision, object_id, task_id))
    if chosen:
        _decide(tx, chosen, accept=accept)
    return refused


def _decide(tx: Transaction, chosen: Sequence[tuple[int, int, int]], *, accept: bool) -> None:
    ids, decision = [revision for revision, _, _ in chosen], "accepted" if accept else "rejected"
    if accept:
        pairs = ", ".join(f"'{part}', t.{part}" for part in PARTS)
        names = ", ".join(f"{part} = r.{part}" for part in PARTS)
        tx.execute(
            f"UPDATE revisions AS r SET replaced = jsonb_build_object({pairs}) FROM task_rows AS t"
            " WHERE t.id = r.task_id AND r.id = ANY(%s)",
            (ids,),
        )
        tx.execute(
            f"UPDATE task_rows AS t SET {names}, revision = t.revision + 1 FROM revisions AS r"
            " WHERE t.id = r.task_id AND r.id = ANY(%s)",
            (ids,),
        )
        objects = sorted({object_id for _, object_id, _ in chosen})
        for object_id, source, tasks in tx.rows(
            "SELECT id, source_id, tasks FROM objects WHERE id = ANY(%s) ORDER BY id", (objects,)
        ):
            to_outbox(tx, source, [whole(object_id, tasks)])
    tx.execute("UPDATE revisions SET state = %s, decided_at = clock_timestamp() WHERE id = ANY(%s)", (decision, ids))
    write_history(
        tx,
        [
            (object_id, tx.at, "revision", text_of({"revision": revision, "task": task_id, "decision": decision}))
            for revision, object_id, task_id in chosen
        ],
    )
