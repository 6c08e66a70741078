"""What a sender holds of a delivery's tasks at a time, on every database."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from pipeline.errors import UnavailableError
from pipeline.ledger.deliveries import PAGE_BYTES, PAGE_TASKS, Item
from pipeline.tasks import Task
from tests.deliveries.desk import Desk, raising
from tests.ledger.bench import Bench, done

MANY = 24
LARGE = 1_000_000
"""Bytes of each of them: together more than a page."""


def large(kind: str, text: str, row: int) -> Task:
    """A task that a database stores in much less than its length, or in nearly as much."""
    dice = random.Random(row)
    more = "x" * LARGE if kind == "repeated" else dice.randbytes(LARGE // 2).hex()
    return Task(row, f'{{"text":"{text}","zzzz":"{more}"}}')


def some(items: Sequence[Item]) -> list[int]:
    """The numbers of a page of tasks, of which there are more than it may hold."""
    sizes = [len(one.task.data) for one in items]
    assert LARGE <= sum(sizes) <= PAGE_BYTES + max(sizes)
    assert len(items) < MANY
    return [one.id for one in items]


class PagesContract:
    """A page of tasks ends with the one that fills it."""

    @pytest.mark.parametrize("kind", ["repeated", "random"])
    def test_large_tasks_are_read_a_page_at_a_time(self, bench: Bench, kind: str) -> None:
        """Of the outbox, of a batch and of changes no more than a page and one task are read at once; all arrives."""
        desk = Desk(bench)
        texts = [f"t{number:02}" for number in range(MANY)]
        bench.policy["inbox"] = "replace"
        bench.imported("a", texts=[large(kind, text, row) for row, text in enumerate(texts, 1)])
        page = desk.ledger.peek(desk.row.id, PAGE_TASKS)
        some([one.item for one in page.waiting])
        assert not page.complete

        desk.remote.mishaps.append(raising(UnavailableError("down")))
        desk.step()
        ((batch,),) = bench.execute("SELECT id FROM batches")
        first = some(desk.ledger.items(batch, 0, PAGE_TASKS))
        assert first + some(desk.ledger.items(batch, first[-1], PAGE_TASKS)) == sorted(
            row[0] for row in bench.execute("SELECT id FROM task_rows")
        )
        desk.overdue("due")
        desk.steps()
        assert (desk.remote.texts(), len(desk.remote.batches)) == (texts, 2)

        again = [large(kind, text.upper(), row) for row, text in enumerate(texts, 1)]
        bench.again("a", lambda work: done(work, again, mode="replace"), version="v2")
        desk.step()
        some([one.item for one in desk.ledger.changes(desk.row.id, PAGE_TASKS)])
        desk.steps()
        assert desk.remote.texts() == [text.upper() for text in texts]

    def test_a_task_that_is_larger_than_a_page(self, bench: Bench) -> None:
        """A page holds one task at least, and small ones are not held up by it."""
        desk = Desk(bench)
        huge = Task(1, f'{{"text":"huge","zzzz":"{"x" * (PAGE_BYTES + 1)}"}}')
        bench.imported("a", texts=[huge, Task(2, '{"text":"small"}')])
        page = desk.ledger.peek(desk.row.id, PAGE_TASKS)
        assert ([one.item.task.row for one in page.waiting], page.complete) == ([1], False)
        desk.steps()
        assert desk.remote.texts() == ["huge", "small"]
