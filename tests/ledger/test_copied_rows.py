"""Rows as COPY reads them: every text comes through, and tasks that have data only are copied without what is empty."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.postgres.rows import BARE_COLUMNS, TASK_COLUMNS, columns_of, task_lines
from pipeline.tasks import Task

TEXTS = st.lists(st.sampled_from(["\\", "\n", "\t", "\r", "N", "é", "😀", '{"a":1}', "\x7f"]), max_size=5).map("".join)
NUMBERS = st.integers(1, 10**9)
BARE = st.tuples(NUMBERS, TEXTS).map(lambda two: Task(*two))
WHOLE = st.tuples(NUMBERS, TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS).map(lambda parts: Task(*parts))
_SIGNS = {"\\\\": "\\", "\\n": "\n", "\\t": "\t", "\\r": "\r"}


def cells(lines: bytes) -> list[list[str | None]]:
    """What COPY makes of its lines; fails for an escape that we don't write."""
    rows = [line.split("\t") for line in lines.decode().split("\n")]
    assert rows.pop() == [""]
    return [
        [None if cell == r"\N" else re.sub(r"\\.?", lambda at: _SIGNS[at[0]], cell) for cell in row] for row in rows
    ]


@given(tasks=st.lists(BARE | WHOLE, max_size=5), first=st.integers(0, 10**6))
def test_every_text_comes_through(tasks: list[Task], first: int) -> None:
    """Whatever its parts hold, a task is read as it was, at its position."""
    found = cells(task_lines(TASK_COLUMNS, 7, 9, enumerate(tasks, first)))
    assert found == [["7", "9", str(n), str(task.row), *task[1:]] for n, task in enumerate(tasks, first)]


@given(tasks=st.lists(BARE, max_size=5), first=st.integers(0, 10**6))
def test_bare_tasks_are_copied_as_whole_ones_are(tasks: list[Task], first: int) -> None:
    """Whatever their data hold, their rows are those of the long form without the cells that hold nothing."""
    columns = columns_of(tasks)
    assert columns == BARE_COLUMNS
    short = cells(task_lines(columns, 7, 9, enumerate(tasks, first)))
    assert [[*row, *[None] * 5] for row in short] == cells(task_lines(TASK_COLUMNS, 7, 9, enumerate(tasks, first)))


@given(tasks=st.lists(BARE | WHOLE, max_size=4), whole=WHOLE)
def test_one_whole_task_makes_all_rows_whole(tasks: list[Task], whole: Task) -> None:
    """Rows of one COPY have the same columns, those that any of its tasks fills."""
    assert columns_of([*tasks, whole]) == TASK_COLUMNS
