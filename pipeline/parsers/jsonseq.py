"""JSON text sequences (RFC 7464): documents that each begin with a record separator, which no JSON holds.

What is wrong with one document says nothing of the next one: a broken or unfinished one is one rejected row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import orjson

from pipeline.parsers.contract import PIECE_TASKS, BadRow, Rules
from pipeline.parsers.encoding import BLOCK_BYTES, Window
from pipeline.parsers.gathering import Gathered
from pipeline.parsers.items import Doubt, Exact, exact_dump, fast_dump, rejected, task_of, tasks_of, too_deep
from pipeline.parsers.jsonlist import why_of
from pipeline.tasks import EXCERPT_LIMIT, Parsed, RejectedRow, Task

SEPARATOR = b"\x1e"
_SPACE = " \t\r\n"


class SequenceReader:
    """Reads the documents of a sequence, before whose first separator the window stands."""

    def __init__(self, window: Window, rules: Rules) -> None:
        self._window = window
        self._rules = rules
        self._exact = Exact()
        self._gathered = Gathered()
        self._row = 0

    def pieces(self) -> Iterator[Parsed]:
        """The documents as tasks and rejected rows."""
        window = self._window
        limit = self._rules.limits.item_bytes
        size = block = min(BLOCK_BYTES, limit)
        while True:
            window.more(size)
            if not window.data:
                return
            end = len(window.data) if window.final else window.data.rfind(SEPARATOR)
            if end > 0:
                self._take(window.data[1:end].split(SEPARATOR))
                window.drop(end)
                size = block
            elif len(window.data) > limit:
                self._too_large()
                size = block
            else:
                size = min(2 * len(window.data), limit + 1)
            yield from self._gathered.pieces()

    def _take(self, records: list[bytes]) -> None:
        for start in range(0, len(records), PIECE_TASKS):
            part = records[start : start + PIECE_TASKS]
            rows = range(self._row + 1, self._row + 1 + len(part))
            self._row += len(part)
            tasks = self._bulk(part, rows)
            if tasks is not None:
                self._gathered.add_piece(tasks)
            else:
                self._gathered.outcomes += map(self._outcome, part, rows)

    def _bulk(self, records: Sequence[bytes], rows: Sequence[int]) -> list[Task] | None:
        try:
            return tasks_of(list(map(orjson.loads, records)), rows, self._rules)
        except orjson.JSONDecodeError:
            return None

    def _outcome(self, record: bytes, row: int) -> Task | RejectedRow:
        try:
            return self._task(record, row)
        except BadRow as why:
            text = record[: 4 * EXCERPT_LIMIT].decode("utf-8", "replace").strip(_SPACE)
            return rejected(why, row, None, None, text)

    def _task(self, record: bytes, row: int) -> Task:
        if len(record) > self._rules.limits.item_bytes:
            raise self._larger()
        try:
            return task_of(orjson.loads(record), row, self._rules, fast_dump)
        except (orjson.JSONDecodeError, Doubt):
            return self._exactly(record, row)

    def _exactly(self, record: bytes, row: int) -> Task:
        try:
            text = record.decode().strip(_SPACE)
        except UnicodeDecodeError as error:
            raise BadRow("syntax", f"byte {error.start} of it is not UTF-8: {error.reason}") from None
        if not text:
            raise BadRow("syntax", "it is empty")
        try:
            value, end, bad = self._exact.read(text)
        except json.JSONDecodeError as error:
            raise BadRow("syntax", f"{why_of(error)} (character {error.pos + 1})") from None
        except RecursionError:
            raise too_deep() from None
        if bad is not None:
            raise bad
        if end < len(text):
            raise BadRow("syntax", f"more follows its end (character {end + 1})")
        return task_of(value, row, self._rules, exact_dump)

    def _too_large(self) -> None:
        """Skip a document that is larger than the limit."""
        window = self._window
        self._row += 1
        shown = window.data[1 : 4 * EXCERPT_LIMIT].decode("utf-8", "replace")
        self._gathered.outcomes.append(rejected(self._larger(), self._row, None, None, shown[:EXCERPT_LIMIT]))
        window.drop(1)
        while (end := window.data.find(SEPARATOR)) < 0 and not window.final:
            window.drop(len(window.data))
            window.more(BLOCK_BYTES)
        window.drop(len(window.data) if end < 0 else end)

    def _larger(self) -> BadRow:
        return BadRow("too_large", f"the document is larger than {self._rules.limits.item_bytes} bytes")
