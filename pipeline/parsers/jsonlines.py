"""JSON documents one after the other: a line each, back to back, or pretty-printed over many lines.

Lines that are documents by themselves are read in bulk; a window with any other line is read exactly, from
document to document. A bad line is one rejected row, and the next line goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from pipeline.parsers.contract import PIECE_TASKS, BadRow, Rules
from pipeline.parsers.encoding import BLOCK_BYTES, Window
from pipeline.parsers.gathering import Gathered, Places
from pipeline.parsers.items import Doubt, Exact, exact_dump, fast_dump, rejected, task_of, tasks_of, too_deep
from pipeline.parsers.jsonlist import is_definite, why_of
from pipeline.parsers.skipping import Skipper
from pipeline.tasks import EXCERPT_LIMIT, Parsed, RejectedRow, Task

RESCAN_BYTES = 8 * 1024 * 1024
"""After a document that breaks off, its own lines are tried again as documents; so much in a file, not more."""
_SPACE = re.compile(r"[ \t\r\n]*")
_NEWLINE = re.compile(r"\n")
_DEEPEST_INDENT = 1000
_INDENT = re.compile(r"[ \t]*\Z")


class LinesReader:
    """Reads the documents that the window stands before."""

    def __init__(self, window: Window, rules: Rules) -> None:
        self._window = window
        self._rules = rules
        self._exact = Exact()
        self._gathered = Gathered()
        self._rescanned = 0
        self._lost: re.Pattern[str] | None = None

    def pieces(self) -> Iterator[Parsed]:
        """The documents as tasks and rejected rows."""
        window = self._window
        limit = self._rules.limits.item_bytes
        size = block = min(BLOCK_BYTES, limit)
        while True:
            window.more(size)
            if not window.data:
                return
            before = window.base
            if self._lost is not None:
                self._find_again()
            elif not self._bulk():
                self._one_by_one()
            yield from self._gathered.pieces()
            if window.base > before:
                size = block
            elif len(window.data) > limit:
                self._too_large()
            elif window.final:
                return
            else:
                size = min(2 * len(window.data), limit + 1)

    def _bulk(self) -> bool:
        """Read the window's whole lines at once; False if not each is a document or blank."""
        window = self._window
        if len(window.data) > self._rules.limits.item_bytes:
            return False
        end = len(window.data) if window.final else window.data.rfind(b"\n") + 1
        if end == 0:
            return False
        lines = window.data.split(b"\n")
        if not window.final or not lines[-1]:
            lines.pop()
        count = len(lines)
        rows: Sequence[int] = range(window.line, window.line + count)
        try:
            values = list(map(orjson.loads, lines))
        except orjson.JSONDecodeError:
            rows = [row for row, line in zip(rows, lines, strict=True) if line.strip()]
            lines = [line for line in lines if line.strip()]
            try:
                values = list(map(orjson.loads, lines))
            except orjson.JSONDecodeError:
                return False
        for start in range(0, len(values), PIECE_TASKS):
            piece = slice(start, start + PIECE_TASKS)
            self._take(values[piece], rows[piece], lines[piece])
        window.drop_lines(end, count)
        return True

    def _take(self, values: list[Any], rows: Sequence[int], lines: list[bytes]) -> None:
        tasks = tasks_of(values, rows, self._rules)
        if tasks is not None:
            self._gathered.add_piece(tasks)
            return
        for value, row, line in zip(values, rows, lines, strict=True):
            self._gathered.outcomes.append(self._outcome(value, row, line))

    def _outcome(self, value: Any, row: int, line: bytes) -> Task | RejectedRow:
        try:
            return task_of(value, row, self._rules, fast_dump)
        except BadRow as why:
            return rejected(why, row, row, 1, line[: 4 * EXCERPT_LIMIT].decode("utf-8", "replace"))
        except Doubt:
            text = line.decode()
            start = len(text) - len(text.lstrip())
            value, end, bad = self._exact.read(text, start)
            return self._judged(value, bad, row, (row, start + 1), text[start:end])

    def _judged(
        self, value: Any, bad: BadRow | None, row: int, place: tuple[int, int], text: str
    ) -> Task | RejectedRow:
        try:
            if bad is not None:
                raise bad
            return task_of(value, row, self._rules, exact_dump)
        except BadRow as why:
            return rejected(why, row, *place, text[:EXCERPT_LIMIT])

    def _one_by_one(self) -> None:
        """Read the window from document to document."""
        window, final = self._window, self._window.final
        text = window.text()
        places = Places(text, window.line, window.column)
        at = done = 0
        while self._lost is None:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it always matches
            if at == len(text):
                done = at
                break
            try:
                value, end, bad = self._exact.read(text, at)
            except json.JSONDecodeError as error:
                if not final and not is_definite(error, text):
                    break
                at = done = self._bad_line(text, at, places, error.pos, BadRow("syntax", why_of(error)))
                continue
            except RecursionError:
                value, end, bad = None, Skipper().feed(text, at) or -1, too_deep()
                if end < 0:
                    if not final:
                        break
                    at = done = self._bad_line(text, at, places, len(text), bad)
                    continue
            if end == len(text) and not final and text[end - 1] not in '}]"':
                break
            if end - at > self._rules.limits.item_bytes:
                bad = self._larger()
            line, column = places.of(at)
            self._gathered.outcomes.append(self._judged(value, bad, line, (line, column), text[at:end]))
            at = done = end
        window.drop_text(text, done)

    def _bad_line(self, text: str, at: int, places: Places, fault: int, bad: BadRow) -> int:
        """Reject the document at a place, and with it its line: where to go on."""
        line, column = places.of(at)
        outcomes = self._gathered.outcomes
        line_start = text.rfind("\n", 0, at) + 1
        while outcomes and outcomes[-1].row == line:
            outcomes.pop()
        line_end = text.find("\n", at)
        many = text[at] == "{" and 0 <= line_end < fault
        place = Places(text[at:fault], line, column).of(fault - at)
        shown_end = fault if many or line_end < 0 else line_end
        shown = text[line_start : max(shown_end, at + 1)][:EXCERPT_LIMIT]
        outcomes.append(rejected(bad, line, *place, shown))
        if not many:
            return self._seek(text, at, _NEWLINE)
        indent = len(_INDENT.search(text, line_start, at)[0]) if column > 1 else 0  # type: ignore[index]
        again = self._rescanned < RESCAN_BYTES
        self._rescanned += fault - line_end
        outdented = re.compile(r"\n(?=[ \t]{0," + str(min(indent, _DEEPEST_INDENT)) + r"}[^\s\"}\],])")
        return self._seek(text, line_end if again else fault, outdented)

    def _seek(self, text: str, start: int, pattern: re.Pattern[str]) -> int:
        """Where the pattern's match ends, or the text's end; the search goes on in the next window then."""
        found = pattern.search(text, start)
        if found is not None:
            return found.end()
        if not self._window.final:
            self._lost = pattern
            newline = text.rfind("\n")
            if newline > start and not text[newline:].strip():
                return newline
        return len(text)

    def _find_again(self) -> None:
        window, pattern = self._window, self._lost
        text = window.text()
        self._lost = None
        if pattern is not None:
            window.drop_text(text, self._seek(text, 0, pattern))

    def _too_large(self) -> None:
        """Skip a document that is larger than the limit."""
        window = self._window
        bad = self._larger()
        text = window.text()
        self._gathered.outcomes.append(rejected(bad, window.line, window.line, window.column, text[:EXCERPT_LIMIT]))
        if text.lstrip()[:1] not in ("{", "["):
            self._lost = _NEWLINE
            return
        skipper = Skipper()
        while (end := skipper.feed(text)) is None and not window.final:
            window.drop_text(text, len(text))
            window.more(BLOCK_BYTES)
            text = window.text()
        window.drop_text(text, len(text) if end is None else end)

    def _larger(self) -> BadRow:
        return BadRow("too_large", f"the document is larger than {self._rules.limits.item_bytes} bytes")
