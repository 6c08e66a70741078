"""Putting a new version's tasks in the place of the old ones, on PostgreSQL. What is annotated is never written
over: what the new version would make of it is proposed."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from pipeline.ledger import NewRow, OldRow, Outcome, Placed, RowMatch, match_placed, match_rows
from pipeline.sinks.outcomes import key_of, scalar
from pipeline.sinks.postgres.database import Transaction, array, columns
from pipeline.sinks.postgres.rows import columns_of, task_lines
from pipeline.tasks import Task

LIVE = (
    "t.object_id = %s AND t.archived_at IS NULL AND EXISTS"
    " (SELECT 1 FROM imports AS i WHERE i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live')"
)
_CONTENT = "md5(ROW(data, annotations, predictions, meta, extra, external_id)::text)"
"""What tells contents apart, by the server's own form of JSON."""
_PARTS = (
    "u.data::jsonb AS data, u.annotations::jsonb AS annotations, u.predictions::jsonb AS predictions,"
    " u.meta::jsonb AS meta, u.extra::jsonb AS extra, u.external_id"
)
_UNNEST = "unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[]"
_ANNOTATED = "coalesce(t.annotations <> '[]', false)"


def match(tx: Transaction, lease: int, outcome: Outcome) -> int:
    """Rewrite, move, add, archive and propose, row by row; how many rows were written."""
    _hold(tx, outcome)
    contents = _contents(tx, outcome.tasks)
    old = _old_rows(tx, outcome, "")
    found = match_rows(old, outcome.tasks, key_of(outcome.row_key), lambda task: contents[id(task)])
    _rewrite(tx, lease, found.updated)
    _move(tx, lease, [(task_id, position, task.row) for task_id, (position, task) in found.moved])
    if found.added:
        filled = columns_of([task for _, task in found.added])
        tx.copy("task_rows", filled, task_lines(filled, outcome.object_id, lease, found.added))
    if found.archived:
        tx.execute("UPDATE task_rows SET archived_at = clock_timestamp() WHERE id = ANY(%s)", (found.archived,))
    _withdraw(tx, found)
    if found.proposed:
        rows = [(*task[1:], task_id) for task_id, (_, task) in found.proposed]
        tx.execute(
            "INSERT INTO revisions (object_id, task_id, version, data, annotations, predictions, meta, extra,"
            " external_id, state, proposed_at) SELECT %s, u.id, %s, u.data, u.annotations, u.predictions, u.meta,"
            f" u.extra, u.external_id, 'proposed', clock_timestamp() FROM (SELECT {_PARTS}, u.id FROM {_UNNEST},"
            " %s::bigint[]) AS u (data, annotations, predictions, meta, extra, external_id, id)) AS u",
            (outcome.object_id, outcome.version, *columns(rows, 7)),
        )
    return len(found.updated) + len(found.added)


def adopt(tx: Transaction, lease: int, outcome: Outcome) -> None:
    """Before the rows of this import take the place of all older ones: put the annotated among those into it, each
    instead of the row that it is."""
    _hold(tx, outcome)
    older = f" AND t.lease <> {lease:d}"
    old = _old_rows(tx, outcome, f"{older} AND {_ANNOTATED}")
    if not old:
        return
    new, keys = _candidates(tx, lease, outcome, old)
    contents = array({content for _, content in new})
    # What is another task's content is that task, wherever it stands.
    old += _old_rows(tx, outcome, f"{older} AND NOT {_ANNOTATED} AND {_CONTENT} = ANY(%s::text[])", contents)
    found = match_placed(old, new, keys)
    moved = dict(found.moved)
    rows = {placed.position: placed.task.row for placed, _ in new}
    gone = set(found.archived)
    places = [
        (row.id, moved[row.id].position if row.id in moved else row.position)
        for row in old
        if row.kept and row.id not in gone
    ]
    _withdraw(tx, found)
    _propose_written(tx, lease, outcome, [(task_id, placed.position) for task_id, placed in found.proposed])
    tx.execute(
        "DELETE FROM task_rows WHERE object_id = %s AND lease = %s AND position = ANY(%s::integer[])",
        (outcome.object_id, lease, array(position for _, position in places)),
    )
    _move(tx, lease, [(task_id, position, rows[position]) for task_id, position in places])


def _hold(tx: Transaction, outcome: Outcome) -> None:
    """Whoever decides on a revision of this object meanwhile waits, or has come before."""
    tx.execute("SELECT 1 FROM objects WHERE id = %s FOR UPDATE", (outcome.object_id,))


def _candidates(
    tx: Transaction, lease: int, outcome: Outcome, kept: Sequence[OldRow]
) -> tuple[list[NewRow], list[object] | None]:
    """The rows of this import that may be one of these tasks, and their keys, where rows have any. Of the tasks
    only their place is told."""
    contents = array({content for row in kept for content in (row.content, row.told) if content is not None})
    keyed = outcome.row_key is not None
    also = "t.data -> %s = ANY(%s::jsonb[])" if keyed else "%s::text IS NULL AND t.position = ANY(%s::integer[])"
    wanted = (
        array({orjson.dumps(row.key).decode() for row in kept if row.key is not None})
        if keyed
        else array(row.position for row in kept)
    )
    found = tx.rows(
        f"SELECT t.position, t.row, (t.data -> %s)::text, {_CONTENT} FROM task_rows AS t"
        f" WHERE t.object_id = %s AND t.lease = %s AND ({_CONTENT} = ANY(%s::text[]) OR {also}) ORDER BY t.position",
        (outcome.row_key, outcome.object_id, lease, contents, outcome.row_key, wanted),
    )
    new = [(Placed(position, Task(row, "")), content) for position, row, _, content in found]
    return new, [_key(key) for _, _, key, _ in found] if keyed else None


def _contents(tx: Transaction, tasks: Sequence[Task]) -> dict[int, object]:
    rows = tx.rows(
        f"SELECT {_CONTENT} FROM (SELECT n, {_PARTS} FROM {_UNNEST}) WITH ORDINALITY"
        " AS u (data, annotations, predictions, meta, extra, external_id, n)) AS t ORDER BY n",
        columns([task[1:] for task in tasks], 6),
    )
    return {id(task): content for task, (content,) in zip(tasks, rows, strict=True)}


def _old_rows(tx: Transaction, outcome: Outcome, condition: str, *values: object) -> list[OldRow]:
    # One that was accepted is the task itself by now.
    told: dict[int, tuple[object, bool]] = {
        task_id: (None if state == "accepted" else content, state == "proposed")
        for task_id, state, content in tx.rows(
            f"SELECT task_id, state, {_CONTENT} FROM revisions WHERE object_id = %s AND state <> 'withdrawn'"
            " ORDER BY id",
            (outcome.object_id,),
        )
    }
    rows = tx.rows(
        f"SELECT t.id, t.position, (t.data -> %s)::text, {_CONTENT}, {_ANNOTATED} FROM task_rows AS t"
        f" WHERE {LIVE}{condition}",
        (outcome.row_key, outcome.object_id, *values),
    )
    return [
        OldRow(task_id, position, _key(key), content, kept, *told.get(task_id, (None, False)))
        for task_id, position, key, content, kept in rows
    ]


def _key(text: str | None) -> object:
    return None if text is None else scalar(orjson.loads(text))


def _rewrite(tx: Transaction, lease: int, updated: Sequence[tuple[int, Placed]]) -> None:
    if updated:
        rows = [(*task[1:], position, task.row, task_id) for task_id, (position, task) in updated]
        tx.execute(
            "UPDATE task_rows AS t SET lease = %s, position = u.position, row = u.row, data = u.data,"
            " annotations = u.annotations, predictions = u.predictions, meta = u.meta, extra = u.extra,"
            f" external_id = u.external_id, revision = revision + 1 FROM (SELECT {_PARTS}, u.position, u.row, u.id"
            f" FROM {_UNNEST}, %s::integer[], %s::integer[], %s::bigint[]) AS u (data, annotations, predictions, meta,"
            " extra, external_id, position, row, id)) AS u WHERE t.id = ANY(ARRAY[u.id])",
            (lease, *columns(rows, 9)),
        )


def _move(tx: Transaction, lease: int, places: Sequence[tuple[int, int, int]]) -> None:
    if places:
        tx.execute(
            "UPDATE task_rows AS t SET lease = %s, position = u.position, row = u.row"
            " FROM unnest(%s::bigint[], %s::integer[], %s::integer[]) AS u (id, position, row)"
            " WHERE t.id = ANY(ARRAY[u.id])",
            (lease, *columns(places, 3)),
        )


def _withdraw(tx: Transaction, found: RowMatch) -> None:
    closed = [*found.withdrawn, *(task_id for task_id, _ in found.proposed)]
    if closed:
        tx.execute(
            "UPDATE revisions SET state = 'withdrawn', decided_at = clock_timestamp()"
            " WHERE task_id = ANY(%s) AND state = 'proposed'",
            (closed,),
        )


def _propose_written(tx: Transaction, lease: int, outcome: Outcome, proposed: Sequence[tuple[int, int]]) -> None:
    """Propose of tasks what stands at a position of this import."""
    if proposed:
        tx.execute(
            "INSERT INTO revisions (object_id, task_id, version, data, annotations, predictions, meta, extra,"
            " external_id, state, proposed_at) SELECT %s, u.id, %s, t.data, t.annotations, t.predictions, t.meta,"
            " t.extra, t.external_id, 'proposed', clock_timestamp()"
            " FROM unnest(%s::bigint[], %s::integer[]) AS u (id, position)"
            " CROSS JOIN LATERAL (SELECT * FROM task_rows AS t WHERE t.object_id = %s AND t.lease = %s"
            " AND t.position = u.position LIMIT 1) AS t",
            (outcome.object_id, outcome.version, *columns(proposed, 2), outcome.object_id, lease),
        )
