"""Tasks and rejected rows as lines of COPY's text format, made outside the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.tasks import RejectedRow, Task

TASK_COLUMNS = "object_id, lease, position, row, data, annotations, predictions, meta, extra, external_id"
BARE_COLUMNS = "object_id, lease, position, row, data"
REJECTED_COLUMNS = 'object_id, lease, n, row, line, "column", code, message, excerpt'


def _text(value: str | None) -> str:
    if value is None:
        return "\\N"
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if not value.isprintable():
        value = value.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return value


def task_line(object_id: int, lease: int, position: int, task: Task) -> str:
    """One row of `task_rows`."""
    head = f"{object_id}\t{lease}\t{position}\t{task.row}\t{_text(task.data)}\t"
    if task[2:] == _PLAIN:
        return head + _NOTHING
    return head + "\t".join(map(_text, task[2:])) + "\n"


_PLAIN = (None,) * 5
_NOTHING = "\t".join(["\\N"] * 5) + "\n"


def task_lines(object_id: int, lease: int, tasks: Iterable[Task], first: int = 0) -> bytes:
    """Rows of `task_rows`, positions counted from `first`. Raises UnicodeEncodeError."""
    return "".join([task_line(object_id, lease, position, task) for position, task in enumerate(tasks, first)]).encode()


def staged_lines(object_id: int, lease: int, tasks: Sequence[Task], first: int) -> tuple[str, bytes]:
    """The columns that a large file's tasks fill, and their rows. Mostly all have data only, and nothing in it that
    COPY reads in a way of its own: then neither side looks at what is not there. Raises UnicodeEncodeError."""
    if not all(task[2:] == _PLAIN for task in tasks):
        return TASK_COLUMNS, task_lines(object_id, lease, tasks, first)
    datas = [task.data for task in tasks]
    together = "".join(datas)
    if "\\" in together or not together.isprintable():
        datas = list(map(_text, datas))
    head = f"{object_id}\t{lease}\t"
    places = enumerate(tasks, first)
    lines = [f"{head}{at}\t{task.row}\t{data}\n" for (at, task), data in zip(places, datas, strict=True)]
    return BARE_COLUMNS, "".join(lines).encode()


def rejected_lines(object_id: int, lease: int, rejected: Iterable[RejectedRow], first: int = 0) -> bytes:
    """Rows of `rejected_rows`, counted from `first`. Raises UnicodeEncodeError."""
    lines = []
    for n, row in enumerate(rejected, first):
        place = "\t".join("\\N" if each is None else str(each) for each in (row.row, row.line, row.column))
        told = "\t".join(map(_text, (row.code, row.message, row.excerpt)))
        lines.append(f"{object_id}\t{lease}\t{n}\t{place}\t{told}\n")
    return "".join(lines).encode()
