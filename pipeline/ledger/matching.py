"""Which task of the old version of a file each row of the new one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.tasks import Task


class OldRow(NamedTuple):
    """A live task of the version that is being replaced: its number, its place, its `row_key` (None where it
    has none), and what tells its content from another's.

    `kept` says that it carries annotations, so that nothing may be written over it. `told` is the content of its
    newest revision that waits or was rejected, None where there is none; `open` says that one waits.
    """

    id: int
    position: int
    key: object
    content: object
    kept: bool = False
    told: object = None
    open: bool = False


class Placed(NamedTuple):
    """A task of the new version at its position in it."""

    position: int
    task: Task


@dataclass(frozen=True, slots=True)
class RowMatch:
    """What replacing does: `updated` old id → what it becomes, `added` tasks, `archived` old ids.

    `moved` tasks are as they were, in another place; `proposed` ones keep their content, too, and what they would
    become is to be decided on; of `withdrawn` ones the revision that waits is no longer what the file says.
    """

    updated: list[tuple[int, Placed]] = field(default_factory=list)
    added: list[Placed] = field(default_factory=list)
    archived: list[int] = field(default_factory=list)
    moved: list[tuple[int, Placed]] = field(default_factory=list)
    proposed: list[tuple[int, Placed]] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)


Identity = Callable[[Task], object]
NewRow = tuple[Placed, object]
"""A task of the new version in its place, and what tells its content from another's."""


def content_of(task: Task) -> object:
    """What makes two tasks equal: everything but the row that they stand in."""
    return task[1:]


def match_rows(
    old: Sequence[OldRow], new: Sequence[Task], key_of: Identity | None, content: Identity = content_of
) -> RowMatch:
    """Which task of the old version each row of the new one is; rows that are equal are not rewritten.

    Matched by `key_of` where given, else by content, then by what was proposed of a task, then by position among
    those that are left.
    """
    rows = [(Placed(position, task), content(task)) for position, task in enumerate(new)]
    return match_placed(old, rows, None if key_of is None else [key_of(task) for task in new])


def match_placed(old: Sequence[OldRow], rest: Sequence[NewRow], keys: Sequence[object] | None) -> RowMatch:
    """As `match_rows`, for rows of the new version that are in their places already; `keys` are theirs."""
    match = RowMatch()
    left = {row.id: row for row in old}
    if keys is not None:
        rest = _take(left, rest, lambda row: row.key, keys, match)
    rest = _take(left, rest, lambda row: row.content, [told for _, told in rest], match)
    if any(row.told is not None for row in left.values()):
        rest = _take(left, rest, lambda row: row.told, [told for _, told in rest], match)
    by_position = {row.position: row for row in left.values()} if keys is None else {}
    for placed, told in rest:
        row = by_position.get(placed.position)
        if row is None:
            match.added.append(placed)
        else:
            _put(row, placed, told, match)
            del left[row.id]
    match.archived.extend(sorted(left))
    match.withdrawn.extend(row.id for row in left.values() if row.open)
    return match


def _take(
    left: dict[int, OldRow],
    rest: Sequence[NewRow],
    of_old: Callable[[OldRow], object],
    of_new: Sequence[object],
    match: RowMatch,
) -> list[NewRow]:
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
        _put(row, placed, content, match)
    return unmatched


def _put(row: OldRow, placed: Placed, content: object, match: RowMatch) -> None:
    """Decide what becomes of a task whose row of the new version is known."""
    if content != row.content and not row.kept:
        match.updated.append((row.id, placed))
        return
    if placed.position != row.position:
        match.moved.append((row.id, placed))
    if content == row.content:
        if row.open:
            match.withdrawn.append(row.id)
    elif content != row.told:
        match.proposed.append((row.id, placed))
