"""Pages of tasks on PostgreSQL for a delivery's sender: bounded in tasks, and in bytes.

A page of small tasks is read as it is. Where one of them may be large, it is read once more: PostgreSQL keeps it
compressed, so what is stored bounds what is made into texts at all, and these texts' lengths bound what is sent.
Neither the server nor the sender ever has much more than a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.ledger.deliveries import PAGE_BYTES, PAGE_TASKS, Change, Item, Page, Waiting
from pipeline.sinks.outboxes import ROWS, enough
from pipeline.sinks.postgres.database import Row, Transaction, array
from pipeline.tasks import Task

_JSON = ("data", "annotations", "predictions", "meta", "extra")
_STORED = " + ".join(f"coalesce(pg_column_size(t.{name}), 0)" for name in _JSON)
_COMPRESSED = " OR ".join(f"pg_column_compression(t.{name}) IS NOT NULL" for name in _JSON)
_TASK = (
    f"{', '.join(f't.{name}' for name in ('row', *_JSON, 'external_id'))}, {_STORED} AS stored,"
    f" {_STORED} > {PAGE_BYTES // PAGE_TASKS} OR {_COMPRESSED} AS large"
)
_LENGTH = " + ".join(f"coalesce(octet_length(c.{name}), 0)" for name in _JSON)
LIVE = (
    "(t.archived_at IS NULL AND coalesce((SELECT i.state = 'live' FROM imports AS i"
    " WHERE i.object_id = t.object_id AND i.lease = t.lease), false))"
)
"""Whether a task (`t`) is live."""


class _Reading(NamedTuple):
    """Two statements for one page: for small tasks, which tells of each whether it is large, and for all."""

    small: str
    any: str


def _reading(candidates: str, columns: str, order: str) -> _Reading:
    """What gives `columns` and the task of each candidate, in an order, and then whether it is large, or whether there
    is another one after it: the page ends with the one that fills PAGE_BYTES."""
    parts = ", ".join(f"CASE WHEN NOT c.large THEN c.{name}::text END" for name in _JSON)
    small = f"SELECT {columns}, c.row, {parts}, c.external_id, c.large FROM ({candidates}) AS c ORDER BY {order}"
    before = f"OVER (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    stored = (
        f"SELECT c.*, coalesce(sum(c.stored) {before}, 0) AS before, lead(true) {before} AS more"
        f" FROM ({candidates}) AS c"
    )
    # OFFSET 0: the texts are made once, and not again for each place where they are named.
    texts = (
        f"SELECT {columns}, c.row, {', '.join(f'c.{name}::text AS {name}' for name in _JSON)}, c.external_id, c.more"
        f" FROM ({stored}) AS c WHERE c.before < {PAGE_BYTES} ORDER BY {order} OFFSET 0"
    )
    counted = f"SELECT c.*, coalesce(sum({_LENGTH}) {before}, 0) AS before FROM ({texts}) AS c"
    task = ", ".join(f"c.{name}" for name in ("row", *_JSON, "external_id"))
    return _Reading(
        small,
        f"SELECT {columns}, {task}, coalesce(c.more, false) FROM ({counted}) AS c WHERE c.before < {PAGE_BYTES}"
        f" ORDER BY {order}",
    )


def _read(tx: Transaction, reading: _Reading, values: Sequence[object] | dict[str, object]) -> tuple[list[Row], bool]:
    """A page, and whether it has ended before the last candidate."""
    found = tx.execute(reading.small, values).fetchall()
    if not any(row[-1] for row in found):
        return found, False
    found = tx.execute(reading.any, values).fetchall()
    return found, bool(found and found[-1][-1])


# The rows' own order and bound stand inside: outside, all that a row of the outbox stands for would be read first.
# What is known of one task stands inside, too: joined, it is a walk over all that is delivered for each row, as long as
# statistics are from a time when that was little.
PEEK = _reading(
    f"SELECT b.id AS outbox, t.lease, t.position, t.id, t.revision, {_TASK},"
    " t.archived_at IS NULL AND coalesce(i.state = 'live', false) AS live, x.state, coalesce(x.revision, 0) AS sent"
    " FROM outbox AS b CROSS JOIN LATERAL (SELECT * FROM task_rows AS t WHERE t.object_id = b.object_id"
    " AND (t.lease, t.position) >= (b.lease, b.position) AND (t.lease, t.position) < (b.to_lease, b.to_position)"
    " ORDER BY t.lease, t.position LIMIT %(limit)s) AS t"
    " LEFT JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease"
    " LEFT JOIN LATERAL (SELECT x.state, x.revision FROM delivered AS x"
    " WHERE x.delivery_id = b.delivery_id AND x.task_id = t.id LIMIT 1) AS x ON true"
    " WHERE b.id = ANY(%(rows)s::bigint[]) ORDER BY b.id, t.lease, t.position LIMIT %(limit)s",
    "c.outbox, c.lease, c.position, c.live, c.state, c.sent, c.id, c.revision",
    "c.outbox, c.lease, c.position",
)
ITEMS = _reading(
    f"SELECT t.id, t.revision, {_TASK} FROM (SELECT task_id FROM delivered WHERE batch_id = %s AND task_id > %s"
    " AND state = 'batched' ORDER BY task_id LIMIT %s) AS x JOIN task_rows AS t ON t.id = x.task_id ORDER BY t.id",
    "c.id, c.revision",
    "c.id",
)
CHANGES = _reading(
    f"SELECT x.task_id, coalesce(x.remote_id, '') AS remote_id, x.pending = 'delete' AND NOT {LIVE} AS gone, t.id,"
    f" t.revision, {_TASK} FROM delivered AS x JOIN task_rows AS t ON t.id = x.task_id"
    " WHERE x.delivery_id = %s AND x.task_id > %s AND x.pending IS NOT NULL AND x.state = 'done'"
    " ORDER BY x.task_id LIMIT %s",
    "c.task_id, c.remote_id, c.gone, c.id, c.revision",
    "c.task_id",
)


def peek(tx: Transaction, delivery: int, limit: int) -> Page:
    """As `Deliveries.peek`."""
    asked = "SELECT id, tasks FROM outbox WHERE delivery_id = %s AND done_at IS NULL ORDER BY id LIMIT %s"
    rows = enough(tx.rows(asked, (delivery, ROWS)), limit)
    if not rows:
        return Page((), (), complete=True)
    found, cut = _read(tx, PEEK, {"rows": array(rows), "limit": limit})
    waiting = [Waiting(row[0], row[1], row[2], _item(row[6:]), row[3], row[4], row[5]) for row in found]
    return Page(rows, waiting, complete=len(found) < limit and not cut)


def items(tx: Transaction, batch: int, after: int, limit: int) -> list[Item]:
    """As `Deliveries.items`."""
    return [_item(row) for row in _read(tx, ITEMS, (batch, after, limit))[0]]


def changes(tx: Transaction, delivery: int, limit: int, after: int) -> list[Change]:
    """As `Deliveries.changes`."""
    return [Change(_item(row[3:]), row[1], row[2]) for row in _read(tx, CHANGES, (delivery, after, limit))[0]]


def _item(row: tuple[object, ...]) -> Item:
    """Number, revision, the task, and whether there is more."""
    return Item(row[0], row[1], Task(*row[2:9]))  # type: ignore[arg-type]  # as the statement says
