"""Which tasks of which objects deliveries have to look at, after a commit. Both databases write what is told here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.ledger import Outcome
from pipeline.ledger.deliveries import OUTBOX_TASKS
from pipeline.sinks.outcomes import Before

LAST_LEASE = 2**62
"""Beyond the number of any import."""
ROWS = 2_000
"""Rows of the outbox that one page looks at, at most."""


class Range(NamedTuple):
    """Tasks of an object from a position of one import up to, not with, another; about how many they are."""

    object_id: int
    lease: int
    position: int
    to_lease: int
    to_position: int
    tasks: int


def whole(object_id: int, tasks: int) -> Range:
    """All tasks that an object ever had: some have changed, or are archived, or have come back."""
    return Range(object_id, 0, 0, LAST_LEASE, 0, max(tasks, 1))


def enough(rows: Iterable[tuple[int, int]], limit: int) -> list[int]:
    """The first rows of an outbox (number, tasks) that have at least `limit` tasks together, or all."""
    found, tasks = [], 0
    for row, some in rows:
        found.append(row)
        tasks += some
        if tasks >= limit:
            break
    return found


def ranges(lease: int, outcomes: Sequence[Outcome], owned: Mapping[int, Before]) -> Iterator[Range]:
    """What the outcomes that a commit writes mean for the project's deliveries."""
    for outcome in outcomes:
        before = owned[outcome.object_id]
        if outcome.state == "done":
            yield from _done(lease, outcome, before)
        elif outcome.state == "gone" and outcome.archive and before.tasks:
            yield whole(before.id, before.tasks)


def _done(lease: int, outcome: Outcome, before: Before) -> Iterator[Range]:
    if outcome.mode == "ignored" or (outcome.mode == "unchanged" and before.tasks):
        return
    earlier = before.imported is not None and outcome.mode != "append"
    if earlier and not outcome.staged:
        yield whole(before.id, max(before.tasks, outcome.task_count))
        return
    if earlier:
        yield Range(before.id, 0, 0, lease, 0, max(before.tasks, 1))
    for first in range(0, outcome.task_count, OUTBOX_TASKS):
        upto = min(first + OUTBOX_TASKS, outcome.task_count)
        yield Range(before.id, lease, first, lease, upto, upto - first)
