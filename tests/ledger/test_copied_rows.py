"""Rows as COPY reads them: the short form of tasks that have data only says the same as the whole one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.postgres.rows import BARE_COLUMNS, TASK_COLUMNS, staged_lines, task_lines
from pipeline.tasks import Task, to_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
BARE = st.tuples(st.integers(1, 10**9), st.dictionaries(TEXTS, TEXTS, max_size=2).map(to_json)).map(
    lambda two: Task(*two)
)
WHOLE = st.builds(Task, st.integers(1, 10**9), st.just("{}"), st.none() | st.just("[]"), meta=st.none() | st.just("{}"))


def cells(lines: bytes) -> list[list[str]]:
    """The cells of COPY's lines."""
    return [line.split("\t") for line in lines.decode().split("\n")[:-1]]


@given(tasks=st.lists(BARE, min_size=1, max_size=5), first=st.integers(0, 10**6))
def test_bare_tasks_are_copied_as_whole_ones_are(tasks: list[Task], first: int) -> None:
    """Whatever their data hold, their rows are those of the long form without the cells that hold nothing."""
    columns, lines = staged_lines(7, 9, tasks, first)
    assert columns == BARE_COLUMNS
    assert [[*row, *[r"\N"] * 5] for row in cells(lines)] == cells(task_lines(7, 9, tasks, first))


@given(tasks=st.lists(BARE | WHOLE, max_size=4), whole=WHOLE.filter(lambda task: task.annotations or task.meta))
def test_one_whole_task_makes_all_rows_whole(tasks: list[Task], whole: Task) -> None:
    """Rows of one COPY have the same columns, those that any of its tasks fills."""
    columns, lines = staged_lines(7, 9, [*tasks, whole], 0)
    assert (columns, lines) == (TASK_COLUMNS, task_lines(7, 9, [*tasks, whole], 0))
