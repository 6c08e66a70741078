"""What a file becomes: labelling tasks, and rows that were rejected. No input or output here.

The parts of a task are JSON text already, because the parsers often have just that text in hand, and
encoding a value a second time is most of the cost of importing it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from pipeline.errors import beginning

EXCERPT_LIMIT = 1024
"""Bytes of the offending text, as UTF-8, that a rejected row keeps."""
_LONGEST_SIGN = 4

ROW_CODES = frozenset({
    "syntax", "not_an_object", "empty_task", "needs_data", "data_type", "meta", "annotation", "prediction",
    "number", "nul", "surrogate", "too_deep", "too_large", "too_many_cells", "missing_key", "wrong_type",
    "several_keys",
})  # fmt: skip
"""Why a row can be rejected. The same word stands in the ledger, the metrics and the log."""

OBJECT_CODES = frozenset({
    "encoding", "compressed", "no_tasks", "unsupported_format", "archived", "gone", "worker_lost",
    "permission", "unavailable", "unsettled", "key_too_long", "left_out", "not_a_file", "too_many_bad_rows", "internal",
    "too_large", "length", "html_page", "bad_url", "bad_redirect", "private_address", "http_status",
})  # fmt: skip
"""Why a whole object can end `failed`, `skipped` or `gone`, besides the codes of its first rejected row."""


class Task(NamedTuple):
    """One labelling task, its parts as JSON text.

    `row` is the 1-based place in the file: the item of a JSON list, the line of a text or JSON Lines
    file, the data row of a table. `data` is a JSON object, `annotations` and `predictions` are JSON
    lists, `meta` is an object or a list, `extra` an object of root keys that are none of ours.
    """

    row: int
    data: str
    annotations: str | None = None
    predictions: str | None = None
    meta: str | None = None
    extra: str | None = None
    external_id: str | None = None

    def size(self) -> int:
        """About how many bytes the task takes in memory and in the database."""
        return (
            len(self.data)
            + len(self.annotations or "")
            + len(self.predictions or "")
            + len(self.meta or "")
            + len(self.extra or "")
            + 64
        )


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that did not become a task: where it stands, why, and what it looks like.

    `row` as in `Task`; `line` and `column` count from 1 and are None where the kind of file has none.
    """

    row: int
    code: str
    message: str
    line: int | None = None
    column: int | None = None
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A bounded piece of a file's tasks and rejected rows, in the file's order.

    `restart` says: forget every piece of this file so far, what follows begins at its first row again
    (a column turned out to be wider than its first rows told). `blank` counts lines that hold nothing.
    """

    tasks: list[Task] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    blank: int = 0
    restart: bool = False


def to_json(value: Any) -> str:
    """JSON text of a value; integers of any length survive (orjson alone stops at 64 bits)."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, TypeError):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def excerpt(text: str) -> str:
    """The text cut to what a rejected row may keep, free of NUL, which PostgreSQL cannot hold."""
    return beginning(text[:EXCERPT_LIMIT].replace("\x00", "\ufffd"), EXCERPT_LIMIT)


def is_whole(kept: str) -> bool:
    """Whether an excerpt is certainly all of its text. One that is as long as it may be, or but for a sign, is not."""
    return len(kept.encode()) < EXCERPT_LIMIT - (0 if kept.isascii() else _LONGEST_SIGN - 1)
