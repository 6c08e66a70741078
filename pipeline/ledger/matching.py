"""Which task of the old version of a file each row of the new one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.tasks import Task


class OldRow(NamedTuple):
    """A live task of the version that is being replaced: its number, its place, its `row_key` (None where it
    has none), and what tells its content from another's."""

    id: int
    position: int
    key: object
    content: object


class Placed(NamedTuple):
    """A task of the new version at its position in it."""

    position: int
    task: Task


@dataclass(frozen=True, slots=True)
class RowMatch:
    """What replacing does: `updated` old id → what it becomes, `added` tasks, `archived` old ids."""

    updated: list[tuple[int, Placed]] = field(default_factory=list)
    added: list[Placed] = field(default_factory=list)
    archived: list[int] = field(default_factory=list)


Identity = Callable[[Task], object]


def content_of(task: Task) -> object:
    """What makes two tasks equal: everything but the row that they stand in."""
    return task[1:]


def match_rows(
    old: Sequence[OldRow], new: Sequence[Task], key_of: Identity | None, content: Identity = content_of
) -> RowMatch:
    """Which task of the old version each row of the new one is; rows that are equal are not touched.

    Matched by `key_of` where given, else by content, then by position among those that are left.
    """
    match = RowMatch()
    left = {row.id: row for row in old}
    rest = [(Placed(position, task), content(task)) for position, task in enumerate(new)]
    if key_of is not None:
        rest = _take(left, rest, lambda row: row.key, [key_of(task) for task in new], match)
    rest = _take(left, rest, lambda row: row.content, [told for _, told in rest], match)
    by_position = {row.position: row.id for row in left.values()} if key_of is None else {}
    for placed, _ in rest:
        old_id = by_position.get(placed.position)
        if old_id is None:
            match.added.append(placed)
        else:
            match.updated.append((old_id, placed))
            del left[old_id]
    match.archived.extend(sorted(left))
    return match


def _take(
    left: dict[int, OldRow],
    rest: list[tuple[Placed, object]],
    of_old: Callable[[OldRow], object],
    of_new: Sequence[object],
    match: RowMatch,
) -> list[tuple[Placed, object]]:
    """Match rows that have the same identity, the first with the first; gives those that stay unmatched."""
    waiting: dict[object, list[OldRow]] = {}
    for row in sorted(left.values(), key=lambda row: -row.position):
        waiting.setdefault(of_old(row), []).append(row)
    unmatched = []
    for (placed, content), identity in zip(rest, of_new, strict=True):
        found = waiting.get(identity) if identity is not None else None
        if not found:
            unmatched.append((placed, content))
            continue
        row = found.pop()
        del left[row.id]
        if row.content != content:
            match.updated.append((row.id, placed))
    return unmatched
