"""Tasks and rejected rows as lines of COPY's text format, made outside the transaction."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.tasks import RejectedRow, Task

TASK_COLUMNS = "object_id, lease, position, row, data, annotations, predictions, meta, extra, external_id"
BARE_COLUMNS = "object_id, lease, position, row, data"
REJECTED_COLUMNS = 'object_id, lease, n, row, line, "column", code, message, excerpt'


_PLAIN = (None,) * 5


def _text(value: str | None) -> str:
    if value is None:
        return "\\N"
    return _escaped(value) if _special(value) else value


def _special(text: str) -> bool:
    """Whether COPY reads something in a text in a way of its own."""
    # Four looks for one sign each are a hundred times quicker than any one look at all signs.
    return "\\" in text or "\n" in text or "\t" in text or "\r" in text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def columns_of(tasks: Iterable[Task]) -> str:
    """The columns of `task_rows` that tasks fill. Mostly all have data only: then neither side of a COPY looks at
    what is not there."""
    return BARE_COLUMNS if all(task[2:] == _PLAIN for task in tasks) else TASK_COLUMNS


def task_lines(columns: str, object_id: int, lease: int, placed: Iterable[tuple[int, Task]]) -> bytes:
    """Rows of `task_rows` in these columns, for tasks with their positions. Raises UnicodeEncodeError."""
    head = f"{object_id}\t{lease}\t"
    rows = [(f"{head}{position}\t{task.row}\t", task) for position, task in placed]
    datas = [task.data for _, task in rows]
    if _special("".join(datas)):
        datas = list(map(_text, datas))
    both = zip(rows, datas, strict=True)
    if columns == BARE_COLUMNS:
        return "".join([f"{start}{data}\n" for (start, _), data in both]).encode()
    return "".join(
        [f"{start}{data}\t" + "\t".join(map(_text, task[2:])) + "\n" for (start, task), data in both]
    ).encode()


def rejected_lines(object_id: int, lease: int, rejected: Iterable[RejectedRow], first: int = 0) -> bytes:
    """Rows of `rejected_rows`, counted from `first`. Raises UnicodeEncodeError."""
    lines = []
    for n, row in enumerate(rejected, first):
        place = "\t".join("\\N" if each is None else str(each) for each in (row.row, row.line, row.column))
        told = "\t".join(map(_text, (row.code, row.message, row.excerpt)))
        lines.append(f"{object_id}\t{lease}\t{n}\t{place}\t{told}\n")
    return "".join(lines).encode()
