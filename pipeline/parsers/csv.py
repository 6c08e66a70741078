"""Tables as text: CSV and TSV, one task a row, with the types of whole columns.

The types are guessed from the first rows. If later ones are wider, the rest of the file is read for its
types alone, and then all of it once more: one restart at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import repeat
from json.encoder import encode_basestring

import orjson

from pipeline.errors import ObjectSkipped
from pipeline.parsers.columns import ColumnType, classify, is_clean, joined, texts_of
from pipeline.parsers.contract import PIECE_TASKS, BadRow, Body, Parser, Rules
from pipeline.parsers.encoding import TextReader
from pipeline.parsers.items import PLACEHOLDER, plain_task, rejected, text_tasks
from pipeline.parsers.records import NO_SEPARATOR, Batch, Records, blocks_of, names_of
from pipeline.tasks import EXCERPT_LIMIT, Parsed

Types = tuple[ColumnType, ...]


_PYTHON_TYPES: dict[ColumnType, frozenset[type]] = {
    "empty": frozenset({str}),
    "integer": frozenset({int, str}),
    "number": frozenset({float, str}),
    "boolean": frozenset({bool, str}),
    "text": frozenset({str}),
}
"""What the values of a column may be: an empty cell is text in any of them."""


class _Wider(Exception):
    """A row does not fit the types that were guessed; it never leaves this module."""


class Table:
    """One reading of a file: its columns, and its rows as pieces or as types.

    Raises:
        ObjectFailed: `encoding`, from any method.
    """

    def __init__(self, records: Records, rules: Rules) -> None:
        self._records = records
        self._rules = rules
        self.names = names_of(records.header or [])
        self._odd_names = any("\x00" in name or name == PLACEHOLDER for name in self.names)
        self._na = frozenset(rules.options.na_values)
        config = rules.label_config
        text = rules.options.types == "text"
        self.texts = tuple(text or (config is not None and not config.takes_number(name)) for name in self.names)

    def pieces(self, types: Types | None) -> Iterator[Parsed]:
        """All rows as tasks and rejected rows.

        Raises:
            _Wider: `types` is None, and a row is wider than those before it.
        """
        if self._records.bad_header is not None:
            line, why, text = self._records.bad_header
            yield Parsed([], [rejected(why, 1, line, None, text)])
            return
        known: Types = types or tuple("text" if text else "empty" for text in self.texts)
        for batch in self._records:
            self._fit(batch)
            yield from _bad_pieces(batch)
            for start in range(0, len(batch.rows), PIECE_TASKS):
                some = batch.part(start, start + PIECE_TASKS)
                known, texts = self._columns(some, known, fixed=types is not None)
                yield self._piece(texts, some, known)

    def types(self) -> Types:
        """The types of all columns over all rows."""
        known: Types = tuple("text" if text else "empty" for text in self.texts)
        for batch in self._records:
            self._fit(batch)
            if batch.rows:
                cells = zip(*batch.rows, strict=True)
                known = tuple(
                    kind if kind == "text" else joined(kind, classify(column))
                    for kind, column in zip(known, cells, strict=True)
                )
        return known

    def _columns(self, batch: Batch, known: Types, *, fixed: bool) -> tuple[Types, list[str]]:
        """The types of the columns, and the rows as JSON text."""
        found: list[ColumnType] = []
        columns: list[Sequence[str]] = list(zip(*batch.rows, strict=True))
        bare: list[bool] = []
        for place, kind in enumerate(known):
            if kind == "text" and batch.clean:
                found.append(kind)
                bare.append(True)
                continue
            cells = list(columns[place])
            kind, columns[place] = self._column(cells, kind, fixed=fixed)  # noqa: PLW2901 - its type from here on
            bare.append(kind == "text" and (batch.clean or is_clean(cells)))
            if kind == "text" and not bare[-1]:
                columns[place] = list(map(encode_basestring, cells))
            found.append(kind)
        return tuple(found), self._joined(columns, bare)

    @staticmethod
    def _column(cells: list[str], kind: ColumnType, *, fixed: bool) -> tuple[ColumnType, Sequence[str]]:
        """The type of a column that was of `kind` so far, and its JSON texts in it, or the cells of a text."""
        if kind == "text":
            return kind, cells
        if kind != "empty":
            texts = texts_of(cells, kind)
            if texts is None:
                raise _Wider
            return kind, texts
        kind = "empty" if fixed else classify(cells)
        if kind == "text":
            return kind, cells
        return kind, texts_of(cells, kind) or []

    def _joined(self, columns: Sequence[Sequence[str]], bare: Sequence[bool]) -> list[str]:
        """The rows' JSON texts; the cells of a bare column bring no quotes of their own."""
        between, parts = "{", list[Iterable[str]]()
        for name, cells, quoted in zip(self.names, columns, bare, strict=True):
            mark = '"' if quoted else ""
            parts += [repeat(f"{between}{orjson.dumps(name).decode()}:{mark}"), cells]
            between = f"{mark},"
        parts.append(repeat(between[:-1] + "}"))
        return list(map("".join, zip(*parts, strict=False)))

    def _fits(self, types: Types) -> bool:
        """Whether rows of these types fit the configuration, so that none must be looked at by itself."""
        rules = self._rules
        if rules.options.preannotated_from_fields or self._odd_names:
            return False
        if rules.check is None or rules.label_config is None:
            return True
        return rules.label_config.fits_types(
            {name: _PYTHON_TYPES[kind] for name, kind in zip(self.names, types, strict=True)}
        )

    def _piece(self, texts: list[str], batch: Batch, types: Types) -> Parsed:
        if self._fits(types):
            return Parsed(text_tasks(texts, batch.numbers))
        tasks, bad = [], []
        for text, number, line, row in zip(texts, batch.numbers, batch.lines, batch.rows, strict=True):
            try:
                tasks.append(plain_task(orjson.loads(text), number, self._rules))
            except BadRow as why:
                bad.append(rejected(why, number, line, None, self._shown(row)))
        return Parsed(tasks, bad)

    def _shown(self, row: Sequence[str]) -> str:
        separator = self._records.separator
        return ("" if separator == NO_SEPARATOR else separator).join(cell[:EXCERPT_LIMIT] for cell in row)

    def _fit(self, batch: Batch) -> None:
        """Bring all rows to the table's width, and put those aside that cannot be brought to it."""
        width, limit = len(self.names), self._rules.limits.item_bytes
        if self._na:
            batch.rows = [["" if cell in self._na else cell for cell in row] for row in batch.rows]
        if not batch.suspect and not set(map(len, batch.rows)) - {width}:
            return
        kept = Batch(bad=batch.bad, blank=batch.blank)
        for row, line, number in zip(batch.rows, batch.lines, batch.numbers, strict=True):
            why = self._fault(row, width, limit)
            if why is not None:
                kept.bad.append((number, line, why, self._shown(row)))
                continue
            kept.rows.append(row[:width] + [""] * (width - len(row)))
            kept.lines.append(line)
            kept.numbers.append(number)
        batch.rows, batch.lines, batch.numbers = kept.rows, kept.lines, kept.numbers

    @staticmethod
    def _fault(row: list[str], width: int, limit: int) -> BadRow | None:
        if any(row[width:]):
            return BadRow("too_many_cells", f"the row has {len(row)} cells, the header {width}")
        if any("\x00" in cell for cell in row):
            return BadRow("nul", "a cell holds a NUL character")
        if any(len(cell) > limit for cell in row):
            return BadRow("too_large", f"a cell is larger than {limit} bytes")
        return None


def _bad_pieces(batch: Batch) -> Iterator[Parsed]:
    """The bad rows and blank lines of a batch, of which a block of short lines may have many."""
    bad = [rejected(why, n, line, None, text) for n, line, why, text in sorted(batch.bad, key=lambda bad: bad[0])]
    if batch.blank:
        yield Parsed([], [], batch.blank)
    for start in range(0, len(bad), PIECE_TASKS):
        yield Parsed([], bad[start : start + PIECE_TASKS])


@contextmanager
def _opened(body: Body, rules: Rules, separator: str | None) -> Iterator[Table]:
    with closing(body.open()) as stream:
        blocks = blocks_of(TextReader(stream, rules.options.encoding), rules.limits)
        yield Table(Records(blocks, rules.options.separator or separator, rules.limits), rules)


def _pieces(body: Body, rules: Rules, separator: str | None, types: Types | None) -> Iterator[Parsed]:
    empty = True
    with _opened(body, rules, separator) as table:
        for piece in table.pieces(types):
            empty = empty and not piece.tasks and not piece.rejected
            yield piece
    if empty:
        raise ObjectSkipped("no_tasks", "the table has no row")


def _parse(body: Body, rules: Rules, separator: str | None) -> Iterator[Parsed]:
    try:
        yield from _pieces(body, rules, separator, None)
    except _Wider:
        with _opened(body, rules, separator) as table:
            types = table.types()
        yield Parsed(restart=True)
        yield from _pieces(body, rules, separator, types)


parser = Parser("csv", 1, partial(_parse, separator=None))
tsv_parser = Parser("tsv", 1, partial(_parse, separator="\t"))
