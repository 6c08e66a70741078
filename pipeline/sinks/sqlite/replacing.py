"""Putting a new version's tasks in the place of the old ones, on SQLite. What is annotated is never written over:
what the new version would make of it is proposed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from pipeline.ledger import NewRow, OldRow, Outcome, Placed, RowMatch, content_of, match_placed, match_rows
from pipeline.sinks.outcomes import annotated, key_of
from pipeline.sqlitefile import now
from pipeline.tasks import Task

LIVE = (
    "t.object_id = ? AND t.archived_at IS NULL AND EXISTS"
    " (SELECT 1 FROM imports AS i WHERE i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live')"
)
_TASK = "t.row, t.data, t.annotations, t.predictions, t.meta, t.extra, t.external_id"


def match(connection: sqlite3.Connection, lease: int, outcome: Outcome) -> RowMatch:
    """Rewrite, move, archive and propose, row by row; what is `added` is left to the caller."""
    old = list(_old_rows(connection, outcome, f"SELECT t.id, t.position, {_TASK} FROM task_rows AS t WHERE {LIVE}"))
    found = match_rows(old, outcome.tasks, key_of(outcome.row_key))
    executemany = connection.executemany
    executemany(
        "UPDATE task_rows SET lease = ?, position = ?, row = ?, data = ?, annotations = ?, predictions = ?, meta = ?,"
        " extra = ?, external_id = ?, revision = revision + 1 WHERE id = ?",
        [(lease, position, *task, task_id) for task_id, (position, task) in found.updated],
    )
    _move(connection, lease, [(task_id, position, task.row) for task_id, (position, task) in found.moved])
    executemany("UPDATE task_rows SET archived_at = ? WHERE id = ?", [(now(), row) for row in found.archived])
    _propose(connection, outcome, found)
    return found


def adopt(connection: sqlite3.Connection, lease: int, outcome: Outcome) -> None:
    """Before the rows of this import take the place of all older ones: put the annotated among those into it, each
    instead of the row that it is."""
    old = [row for row in _old_rows(connection, outcome, _older(lease)) if row.kept]
    if not old:
        return
    new, keys = _candidates(connection, lease, outcome, old)
    contents = {content for _, content in new}
    # What is another task's content is that task, wherever it stands.
    old += [row for row in _old_rows(connection, outcome, _older(lease)) if not row.kept and row.content in contents]
    found = match_placed(old, new, keys)
    moved = dict(found.moved)
    rows = {placed.position: placed.task.row for placed, _ in new}
    gone = set(found.archived)
    places = [
        (row.id, moved[row.id].position if row.id in moved else row.position)
        for row in old
        if row.kept and row.id not in gone
    ]
    connection.executemany(
        "DELETE FROM task_rows WHERE object_id = ? AND lease = ? AND position = ?",
        [(outcome.object_id, lease, position) for _, position in places],
    )
    _move(connection, lease, [(task_id, position, rows[position]) for task_id, position in places])
    _propose(connection, outcome, found)


def _older(lease: int) -> str:
    return f"SELECT t.id, t.position, {_TASK} FROM task_rows AS t WHERE {LIVE} AND t.lease <> {lease:d}"


def _candidates(
    connection: sqlite3.Connection, lease: int, outcome: Outcome, kept: Sequence[OldRow]
) -> tuple[list[NewRow], list[object] | None]:
    """The rows of this import that may be one of these tasks, and their keys, where rows have any."""
    key = key_of(outcome.row_key)
    contents = {row.content for row in kept} | {row.told for row in kept}
    positions, wanted = {row.position for row in kept}, {row.key for row in kept} - {None}
    new: list[NewRow] = []
    keys: list[object] = []
    for position, *parts in connection.execute(
        f"SELECT t.position, {_TASK} FROM task_rows AS t WHERE t.object_id = ? AND t.lease = ? ORDER BY t.position",
        (outcome.object_id, lease),
    ):
        task = Task(*parts)
        content = content_of(task)
        mine = key(task) if key is not None else None
        if content in contents or (position in positions if key is None else mine in wanted):
            new.append((Placed(position, task), content))
            keys.append(mine)
    return new, None if key is None else keys


def _old_rows(connection: sqlite3.Connection, outcome: Outcome, statement: str) -> Iterator[OldRow]:
    key = key_of(outcome.row_key)
    # One that was accepted is the task itself by now.
    told: dict[int, tuple[object, bool]] = {
        row[0]: (None if row[1] == "accepted" else tuple(row[2:]), row[1] == "proposed")
        for row in connection.execute(
            "SELECT task_id, state, data, annotations, predictions, meta, extra, external_id FROM revisions"
            " WHERE object_id = ? AND state <> 'withdrawn' ORDER BY id",
            (outcome.object_id,),
        )
    }
    for task_id, position, *parts in connection.execute(statement, (outcome.object_id,)):
        task = Task(*parts)
        newest, waits = told.get(task_id, (None, False))
        yield OldRow(task_id, position, key and key(task), content_of(task), annotated(task.annotations), newest, waits)


def _move(connection: sqlite3.Connection, lease: int, places: Sequence[tuple[int, int, int]]) -> None:
    connection.executemany(
        "UPDATE task_rows SET lease = ?, position = ?, row = ? WHERE id = ?",
        [(lease, position, row, task_id) for task_id, position, row in places],
    )


def _propose(connection: sqlite3.Connection, outcome: Outcome, found: RowMatch) -> None:
    at = now()
    closed = [*found.withdrawn, *(task_id for task_id, _ in found.proposed)]
    connection.executemany(
        "UPDATE revisions SET state = 'withdrawn', decided_at = ? WHERE task_id = ? AND state = 'proposed'",
        [(at, task_id) for task_id in closed],
    )
    connection.executemany(
        "INSERT INTO revisions (object_id, task_id, version, proposed_at, data, annotations, predictions, meta, extra,"
        " external_id, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'proposed')",
        [(outcome.object_id, task_id, outcome.version, at, *placed.task[1:]) for task_id, placed in found.proposed],
    )
