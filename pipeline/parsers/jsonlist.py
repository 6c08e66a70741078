"""A file that is one JSON list, of any size, item by item.

A window over the bytes is read by one call of orjson up to the last boundary between two items: closing
the list at a place and reading it succeeds only if the place is such a boundary, so that a guess (the text
that stood between two earlier items) is proved by the reading itself. What is not proved so, and every
window with an item out of the ordinary, is read item by item, exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import orjson

from pipeline.parsers.contract import PIECE_TASKS, BadRow, Rules
from pipeline.parsers.encoding import BLOCK_BYTES, Window
from pipeline.parsers.gathering import Gathered, Places
from pipeline.parsers.items import Doubt, Exact, exact_dump, fast_dump, rejected, task_of, tasks_of, too_deep
from pipeline.parsers.skipping import Skipper
from pipeline.tasks import EXCERPT_LIMIT, Parsed, Task

FIRST_BYTES = 16 * 1024
"""The first window, read item by item, from which the text between two items is learnt."""
_GUESSES = 4
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r'([ \t\r\n]*,[ \t\r\n]*)\{[ \t\r\n]*(?:"(?:[^"\\]|\\.)*"|\})')
_CUT_OFF = 16
"""An error so near to the end of what has been read may be no error, but a word that goes on."""


_WHY = {
    "Expecting value": "a value is missing here, or this is none",
    "Expecting ',' delimiter": "a comma, or a closing bracket or brace, is missing",
    "Expecting ':' delimiter": "a colon is missing after a key",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Unterminated string starting at": "a text that begins here never ends",
    "Invalid control character at": "a control character stands in a text",
    "Invalid \\escape": "a backslash in a text is followed by a sign that it cannot stand before",
    "Invalid \\uXXXX escape": "four hexadecimal digits are missing after \\u",
    "Illegal trailing comma before end of object": "a comma stands before a closing brace",
    "Illegal trailing comma before end of array": "a comma stands before a closing bracket",
}


def why_of(error: json.JSONDecodeError) -> str:
    """What is wrong with a document, as a sentence of its own."""
    return _WHY.get(error.msg.partition(": ")[0], error.msg)


def is_definite(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text could not mend the error."""
    return error.pos < len(text) - _CUT_OFF and not error.msg.startswith("Unterminated string")


class ListReader:
    """Reads the list that the window stands before."""

    def __init__(self, window: Window, rules: Rules) -> None:
        self._window = window
        self._rules = rules
        self._exact = Exact()
        self._gathered = Gathered()
        self._row = 0
        self._between = b""
        self._skip = 0
        self._ended = False

    def pieces(self) -> Iterator[Parsed]:
        """The list's items as tasks and rejected rows."""
        window = self._window
        window.drop(1)
        limit = self._rules.limits.item_bytes
        block = min(BLOCK_BYTES, limit)
        size = min(FIRST_BYTES, block)
        while not self._ended:
            window.more(size)
            before = window.base
            if not self._bulk():
                self._one_by_one()
            if window.base > before or self._ended:
                size = block
            elif len(window.data) > limit:
                self._too_large()
            else:
                size = min(2 * len(window.data), limit + 1)
            yield from self._gathered.pieces()
        window.drain()

    def _bulk(self) -> bool:
        """Read all whole items of the window at once; False if that is not to be had."""
        window = self._window
        if window.final:
            return self._take(window.data, len(window.data), last=True)
        if not self._between:
            return False
        cut = len(window.data)
        for _ in range(_GUESSES):
            cut = window.data.rfind(self._between, 0, cut)
            if cut < 0:
                return False
            if self._take(window.data[: cut + 1] + b"]", cut + self._skip, last=False):
                return True
        return False

    def _take(self, items: bytes, count: int, *, last: bool) -> bool:
        if len(items) > self._rules.limits.item_bytes:
            return False
        try:
            values = orjson.loads(b"[" + items)
        except orjson.JSONDecodeError:
            return False
        if not values and self._row:
            return False
        pieces: list[list[Task]] = []
        for start in range(0, len(values), PIECE_TASKS):
            some = values[start : start + PIECE_TASKS]
            row = self._row + start + 1
            found = tasks_of(some, range(row, row + len(some)), self._rules)
            if found is None:
                try:
                    found = [task_of(v, n, self._rules, fast_dump) for n, v in enumerate(some, row)]
                except (BadRow, Doubt):
                    return False
            pieces.append(found)
        for piece in pieces:
            self._gathered.add_piece(piece)
        self._row += len(values)
        self._window.drop(count)
        self._ended = last
        return True

    def _one_by_one(self) -> None:
        """Read the window's whole items exactly, and learn what stands between two of them."""
        window = self._window
        text = window.text()
        places = Places(text, window.line, window.column)
        done = at = self._space(text, 0)
        while not self._ended:
            if at < len(text) and text[at] == "]" and self._row == 0:
                done = self._end(text, at + 1, places)
                break
            item_end = self._item(text, at, places)
            if item_end is None:
                break
            at = self._space(text, item_end)
            if text[at : at + 1] == ",":
                self._learn(text, item_end)
                done = at = self._space(text, at + 1)
            elif text[at : at + 1] == "]":
                done = self._end(text, at + 1, places)
            else:
                self._remainder(text, at, places, "a comma or ] is missing after an item")
        window.drop_text(text, done)

    def _item(self, text: str, at: int, places: Places) -> int | None:
        """Read the item at a place and gather its outcome: where it ends; None if there is no whole one."""
        final = self._window.final
        try:
            value, end, bad = self._exact.read(text, at)
        except json.JSONDecodeError as error:
            if final or is_definite(error, text):
                early = at >= len(text) or error.pos >= len(text.rstrip())
                self._remainder(text, at, places, "the list ends too early" if early else why_of(error), error.pos)
            return None
        except RecursionError:
            value, end, bad = None, Skipper().feed(text, at) or -1, too_deep()
            if end < 0:
                if final:
                    self._remainder(text, at, places, "the list ends too early")
                return None
        if not final and self._space(text, end) >= len(text):
            return None
        self._row += 1
        if end - at > self._rules.limits.item_bytes:
            bad = self._larger()
        try:
            if bad is not None:
                raise bad
            self._gathered.outcomes.append(task_of(value, self._row, self._rules, exact_dump))
        except BadRow as why:
            line, column = places.of(at)
            shown = text[at : min(end, at + EXCERPT_LIMIT)]
            self._gathered.outcomes.append(rejected(why, self._row, line, column, shown))
        return end

    @staticmethod
    def _space(text: str, at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it always matches

    def _learn(self, text: str, item_end: int) -> None:
        if self._between or text[item_end - 1] != "}":
            return
        found = _BETWEEN.match(text, item_end)
        if found is not None:
            self._between = b"}" + found[0].encode()
            self._skip = 1 + len(found[1])

    def _end(self, text: str, at: int, places: Places) -> int:
        """The list has ended before `at`; nothing but white space may follow."""
        self._ended = True
        at = self._space(text, at)
        window = self._window
        if at == len(text) and not window.final:
            window.drop_text(text, at)
            at = 0
            self._blank_to_end()
            text = window.text()
            places = Places(text, window.line, window.column)
        if at < len(text):
            self._remainder(text, at, places, "something follows the list's ]")
        return at

    def _blank_to_end(self) -> None:
        """Slide over white space, to the end or to what else there is."""
        window = self._window
        while not window.data and not window.final:
            window.more(BLOCK_BYTES)
            window.drop(len(window.data) - len(window.data.lstrip(b" \t\r\n")))

    def _remainder(self, text: str, at: int, places: Places, why: str, where: int | None = None) -> None:
        """All from `at` on is one rejected row; the fault itself stands at `where`."""
        self._ended = True
        shown = text[at : at + EXCERPT_LIMIT]
        line, column = places.of(at if where is None else max(at, where))
        self._gathered.outcomes.append(rejected(BadRow("syntax", why), self._row + 1, line, column, shown))

    def _too_large(self) -> None:
        """Skip an item that is larger than the limit, and what separates it from the next."""
        window = self._window
        self._row += 1
        bad = self._larger()
        text = window.text()
        self._gathered.outcomes.append(rejected(bad, self._row, window.line, window.column, text[:EXCERPT_LIMIT]))
        if text.lstrip()[:1] not in ("{", "[", '"'):
            self._ended = True
            return
        skipper = Skipper()
        while (end := skipper.feed(text)) is None and not window.final:
            window.drop_text(text, len(text))
            window.more(BLOCK_BYTES)
            text = window.text()
        window.drop_text(text, len(text) if end is None else end)
        self._after_skipped(ended=end is None)

    def _larger(self) -> BadRow:
        return BadRow("too_large", f"the item is larger than {self._rules.limits.item_bytes} bytes")

    def _after_skipped(self, *, ended: bool) -> None:
        window = self._window
        while not (window.data.strip(b" \t\r\n") or window.final):
            window.more(len(window.data) + BLOCK_BYTES)
        text = window.text()
        at = self._space(text, 0)
        places = Places(text, window.line, window.column)
        if ended:
            self._ended = True
        elif text[at : at + 1] == ",":
            window.drop_text(text, at + 1)
        elif text[at : at + 1] == "]":
            window.drop_text(text, self._end(text, at + 1, places))
        else:
            self._remainder(text, at, places, "a comma or ] is missing after an item")
