"""`resolver="csv|…"`: a tag whose value is the URI of a CSV, of which one cell is shown."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from itertools import islice

from pipeline.labelconfig.markup import Element, refuse

_SEPARATORS = ",;\t|"
_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "pipe": "|"}
_PIPE = re.compile(r"separator=\|(?=\||$)")
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Resolver:
    """How to find the cell: the separator (None: the header line decides), and the column.

    `column` is a name, or with `headless` a zero-based index; None is the first column.
    """

    tag: str
    name: str
    key: str
    headless: bool = False
    separator: str | None = None
    column: str | None = None

    def pick(self, text: str) -> str | None:
        """The column's value in the first row of a CSV's text; None if it has no such row or column."""
        first_line = text.lstrip("\ufeff").partition("\n")[0]
        separator = self.separator or _most_frequent(first_line)
        try:
            rows = list(islice(csv.reader(StringIO(text.lstrip("\ufeff")), delimiter=separator), 2))
        except csv.Error:
            return None
        return self._cell(rows)

    def _cell(self, rows: list[list[str]]) -> str | None:
        if self.headless:
            index = int(self.column or 0)
            return rows[0][index] if rows and index < len(rows[0]) else None
        if not rows[1:]:
            return None
        header, row = rows
        if self.column is not None and self.column not in header:
            return None
        index = header.index(self.column) if self.column is not None else 0
        return row[index] if index < len(row) else None


def _most_frequent(line: str) -> str:
    bare = _QUOTED.sub("", line)
    return max(_SEPARATORS, key=bare.count)


def resolver_of(element: Element, key: str | None) -> Resolver | None:
    """The resolver of an element, if it has one.

    Raises:
        ConfigError: its syntax is wrong; with line and column.
    """
    text = element.attributes.get("resolver")
    if text is None:
        return None
    if key is None:
        refuse(f"<{element.tag}> has a resolver, but its value names no variable", element.line, element.column)
    kind, *options = _PIPE.sub("separator=pipe", text).split("|")
    if kind.strip() != "csv":
        refuse(f"resolver {kind!r}: only csv is known", element.line, element.column)
    given = _options(options, element)
    return Resolver(element.tag, element.attributes.get("name", ""), key, **given)  # type: ignore[arg-type]


def _options(options: list[str], element: Element) -> dict[str, str | bool]:
    given: dict[str, str | bool] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if name == "headless" and not equals:
            given["headless"] = True
        elif name == "separator" and equals and len(_NAMED_SEPARATORS.get(value, value)) == 1:
            given["separator"] = _NAMED_SEPARATORS.get(value, value)
        elif name == "column" and value:
            given["column"] = value
        else:
            refuse(
                f"resolver option {option!r}: write headless, separator=; or column=name", element.line, element.column
            )
    if given.get("headless") and not str(given.get("column", "0")).isdecimal():
        refuse("with headless, column is a zero-based index", element.line, element.column)
    return given
