"""The records of a CSV: cells, where quotes, line ends and separators say they end.

A block of text without a quote is split, one with quotes goes through the csv module, and a record that the
csv module refuses is read again by `_Record`, which knows what to make of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Literal

import orjson

from pipeline.parsers.contract import BadRow, Limits
from pipeline.parsers.encoding import BLOCK_BYTES, TextReader
from pipeline.tasks import EXCERPT_LIMIT

SEPARATORS = ",;\t|"
"""The separators that a header line is searched for; a tie goes by this order."""
NO_SEPARATOR = "\U0010fffe"
"""Stands between the cells of a file of one column: a character that no text may hold."""
LINE_FACTOR = 4
"""A line without end is given up when it is so many times as large as one cell may be."""
_LEAST_CELLS = 2
"""A row of fewer cells may be a blank line."""
_QUOTED = re.compile(r'"[^"]*(?:"|$)')
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True)
class Batch:
    """Some records: their cells, their lines (from 1), the bad ones among them, and blank lines left out.

    `numbers` are the 1-based places of `rows` among all records after the header, bad ones included.
    `suspect` says that a cell may hold NUL or be too large, `clean` that every cell stands in JSON as it is.
    """

    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    bad: list[tuple[int, int, BadRow, str]] = field(default_factory=list)
    blank: int = 0
    suspect: bool = False
    clean: bool = False

    def part(self, start: int, stop: int) -> Batch:
        """The rows from `start` to before `stop`, without the bad ones."""
        return Batch(self.rows[start:stop], self.lines[start:stop], self.numbers[start:stop], clean=self.clean)


def blocks_of(reader: TextReader, limits: Limits) -> Iterator[str | None]:
    """The text in blocks that end where a line ends; None stands for a line that is too large."""
    block, limit = min(BLOCK_BYTES, limits.item_bytes), LINE_FACTOR * limits.item_bytes
    held: list[str] = []
    size, lost, carried = 0, False, False
    while text := reader.read(block):
        text = "\r" + text if carried else text
        carried = text.endswith("\r")
        text = text[:-1] if carried else text
        cut = max(text.rfind("\n"), text.rfind("\r")) + 1
        if cut:
            start = 0
            if lost:
                start = _LINE_END.search(text).end()  # type: ignore[union-attr]  # `cut` says that there is one
                yield None
            if cut > start:
                yield "".join(held) + text[start:cut]
            held, size, lost = [], 0, False
        size += len(text) - cut
        lost = lost or size > limit
        held = [] if lost else [*held, text[cut:]]
    rest = "".join(held) + ("\r" if carried else "")
    if lost:
        yield None
    elif rest:
        yield rest


def separator_of(text: str) -> str:
    """The separator that the header line, with which the text begins, is written with."""
    bare = _QUOTED.sub("", text)
    found = _LINE_END.search(bare)
    line = bare[: found.start()] if found else bare
    best = max(SEPARATORS, key=line.count)
    return best if best in line else NO_SEPARATOR


def names_of(header: Sequence[str]) -> list[str]:
    """The columns' names: an empty one is `Unnamed: N`, a second one of a name the next free `name.N`."""
    names: list[str] = []
    taken = set(header)
    used: set[str] = set()
    for place, cell in enumerate(header):
        name = base = cell or f"Unnamed: {place}"
        number = 1
        while name in used or (name != base and name in taken):
            name, number = f"{base}.{number}", number + 1
        used.add(name)
        names.append(name)
    return names


class _Record:
    """Reads one record line by line, whatever is wrong with it, in bounded memory."""

    def __init__(self, separator: str, limit: int) -> None:
        self.cells: list[str] = []
        self.bad: BadRow | None = None
        self._separator = separator
        self._limit = limit
        self._text = StringIO(newline="")
        self._size = 0
        self._state: Literal["start", "plain", "quoted", "closed"] = "start"

    def take(self, line: str) -> bool:
        """Take one more line with its end; whether the record has ended with it."""
        at, end = 0, len(line.rstrip("\r\n"))
        while True:
            if self._state == "quoted":
                at = self._quoted(line, at)
                if at < 0:
                    return False
            elif self._state == "start":
                quoted = line[at : at + 1] == '"'
                self._state, at = ("quoted", at + 1) if quoted else ("plain", at)
            elif self._state == "closed" and at < end and line[at] != self._separator:
                self.bad = self.bad or BadRow("syntax", "text follows a closing quote")
                self._state = "plain"
            else:
                stop = line.find(self._separator, at, end)
                if self._state == "plain":
                    self._add(line[at : end if stop < 0 else stop])
                self._cell()
                if stop < 0:
                    return True
                at = stop + 1

    def _quoted(self, line: str, at: int) -> int:
        """Read on within quotes: where to go on, or -1 if the line ends within them."""
        quote = line.find('"', at)
        if quote < 0:
            self._add(line[at:])
            return -1
        if line[quote + 1 : quote + 2] == '"':
            self._add(line[at : quote + 1])
            return quote + 2
        self._add(line[at:quote])
        self._state = "closed"
        return quote + 1

    def _add(self, text: str) -> None:
        self._size += len(text)
        if self._size <= self._limit:
            self._text.write(text)
            return
        self.bad = self.bad or BadRow("too_large", f"a cell is larger than {self._limit} bytes")

    def _cell(self) -> None:
        self.cells.append(self._text.getvalue())
        self._text, self._size, self._state = StringIO(newline=""), 0, "start"


class Records:
    """The records of blocks of text, in batches; the first record is the header.

    Attributes:
        header: the cells of the first record that is not blank; None where there is none.
        bad_header: why the header cannot be read, if it cannot.
    """

    def __init__(self, blocks: Iterator[str | None], separator: str | None, limits: Limits) -> None:
        self._blocks = blocks
        self._limits = limits
        self._lines: list[str] = []
        self._next = 0
        self._line = 1
        self._row = 0
        self._lost = False
        self._suspect = False
        self.header: list[str] | None = None
        self.bad_header: tuple[int, BadRow, str] | None = None
        self.separator = separator or ""
        self._read_header()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self._next < len(self._lines):
                yield self._quoted_batch()
                continue
            block = next(self._blocks, "")
            if block == "":
                return
            if block is None:
                yield self._lost_line()
            elif '"' in block:
                self._load(block)
            else:
                yield self._plain_batch(block)

    def _is_suspect(self, block: str) -> bool:
        return "\x00" in block or len(block) > self._limits.item_bytes

    def _load(self, block: str) -> None:
        self._suspect = self._is_suspect(block)
        self._lines, self._next = list(StringIO(block, newline="")), 0

    def _read_header(self) -> None:
        for block in self._blocks:
            if block is None:
                self.bad_header = (self._line, BadRow("too_large", "the header line is too large"), "")
                return
            body = block.lstrip()
            if not body:
                self._line += _count_lines(block)
                continue
            self._load(block)
            while not self._lines[self._next].strip():
                self._next += 1
                self._line += 1
            self.separator = self.separator or separator_of("".join(self._lines[self._next :]))
            start, line = self._next, self._line
            record = self._slow_record()
            if record.bad is not None:
                self.bad_header = (line, record.bad, self._lines[start] if start < len(self._lines) else "")
            self.header = record.cells
            return

    def _plain_batch(self, block: str) -> Batch:
        """The records of a block without quotes."""
        suspect = self._is_suspect(block)
        if "\r" in block:
            block = block.replace("\r\n", "\n").replace("\r", "\n")
        lines = block.split("\n")
        if not lines[-1]:
            lines.pop()
        clean = _is_clean(block, len(lines), self.separator)
        first, self._line = self._line, self._line + len(lines)
        separator = self.separator
        blank = [at for at, line in enumerate(lines) if not line or (line.isspace() and separator not in line)]
        numbers_of_lines: list[int] = list(range(first, first + len(lines)))
        if blank:
            left = set(blank)
            numbers_of_lines = [number for at, number in enumerate(numbers_of_lines) if at not in left]
            lines = [line for at, line in enumerate(lines) if at not in left]
        rows = [line.split(separator) for line in lines]
        numbers = list(range(self._row + 1, self._row + 1 + len(rows)))
        self._row += len(rows)
        return Batch(rows, numbers_of_lines, numbers, blank=len(blank), suspect=suspect, clean=clean)

    def _quoted_batch(self) -> Batch:
        """The records of the loaded lines, of which any may hold quotes."""
        return self._line_batch() or self._slow_batch()

    def _line_batch(self) -> Batch | None:
        """The loaded lines, if each is one record by itself."""
        lines = self._lines[self._next :]
        try:
            rows = list(csv.reader(lines, delimiter=self.separator, strict=True))
        except csv.Error:
            return None
        count = len(rows)
        if count != len(lines) or min(map(len, rows)) < _LEAST_CELLS:
            return None
        batch = Batch(rows, list(range(self._line, self._line + count)), suspect=self._suspect)
        batch.numbers = list(range(self._row + 1, self._row + 1 + count))
        self._next += count
        self._line += count
        self._row += count
        return batch

    def _slow_batch(self) -> Batch:
        """The loaded lines record by record; a record may go on in the next block."""
        batch = Batch()
        reader = csv.reader(self._feed(), delimiter=self.separator, strict=True)
        while self._next < len(self._lines):
            start, line = self._next, self._line
            try:
                row = next(reader)
            except csv.Error:
                self._next, self._line = start, line
                self._slow(batch)
                reader = csv.reader(self._feed(), delimiter=self.separator, strict=True)
                continue
            if not "".join(row).strip() and not row[1:] and '"' not in self._lines[start]:
                batch.blank += 1
                continue
            self._row += 1
            batch.rows.append(row)
            batch.lines.append(line)
            batch.numbers.append(self._row)
        batch.suspect = self._suspect
        return batch

    def _feed(self) -> Iterator[str]:
        """The loaded lines; a record that goes on in the next block gets that block's lines too."""
        while True:
            while self._next < len(self._lines):
                line = self._lines[self._next]
                self._next += 1
                self._line += 1
                yield line
            if not self._extend():
                return

    def _extend(self) -> bool:
        """Load the next block behind the lines that are loaded; False at the end or before a lost line."""
        if self._lost:
            return False
        block = next(self._blocks, "")
        if block is None:
            self._lost = True
            return False
        if block:
            self._suspect = self._suspect or self._is_suspect(block)
            self._lines += StringIO(block, newline="")
        return bool(block)

    def _slow(self, batch: Batch) -> None:
        line, shown = self._line, self._lines[self._next][:EXCERPT_LIMIT]
        record = self._slow_record()
        self._row += 1
        if record.bad is not None:
            batch.bad.append((self._row, line, record.bad, shown))
            return
        batch.rows.append(record.cells)
        batch.lines.append(line)
        batch.numbers.append(self._row)

    def _slow_record(self) -> _Record:
        record = _Record(self.separator, self._limits.item_bytes)
        for taken, line in enumerate(self._feed(), 1):
            if record.take(line):
                return record
            if taken % 1000 == 0 or len(line) > BLOCK_BYTES:
                self._forget()
        if self._lost:
            record.bad = BadRow("too_large", "a line is too large")
            self._lost = False
            self._line += 1
        else:
            record.bad = BadRow("syntax", "a quote never closes")
        return record

    def _forget(self) -> None:
        """Let go of lines that have been read, so that a record without end does not pile them up."""
        del self._lines[: self._next]
        self._next = 0

    def _lost_line(self) -> Batch:
        self._row += 1
        batch = Batch(bad=[(self._row, self._line, BadRow("too_large", "the line is too large"), "")])
        self._line += 1
        return batch


def _is_clean(block: str, newlines: int, separator: str) -> bool:
    """Whether nothing in a block without quotes must be escaped in JSON but its newlines and separators."""
    expected = len(block) if block.isascii() else len(block.encode())
    escapes = newlines - (not block.endswith("\n")) + (block.count("\t") if separator == "\t" else 0)
    return separator != "\\" and len(orjson.dumps(block)) == expected + escapes + 2


def _count_lines(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
