"""The types of a table's columns: integer, number, boolean or text, with nothing lost.

A column has a type only if every one of its cells that is not empty is written as that type is, so that the
cell's text can be had back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import orjson

ColumnType = Literal["empty", "integer", "number", "boolean", "text"]

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
_LONGEST_NUMBER = 1000
"""A longer cell is text: no double needs as many digits."""
_SAFE_DIGITS = 18
"""So many digits fit into 64 bits whatever they are."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": "true", "True": "true", "TRUE": "true", "false": "false", "False": "false", "FALSE": "false"}


def joined(one: ColumnType, other: ColumnType) -> ColumnType:
    """The type of a column of which some cells have one type and some the other."""
    if other in (one, "empty"):
        return one
    if one == "empty":
        return other
    return "number" if {one, other} == {"integer", "number"} else "text"


def classify(cells: Sequence[str]) -> ColumnType:
    """The narrowest type that all the cells have."""
    filled = [cell for cell in cells if cell]
    if not filled:
        return "empty"
    for name in _NARROWEST_FIRST:
        if _CONVERTERS[name](filled) is not None:
            return name
    return "text"


def texts_of(cells: Sequence[str], kind: ColumnType) -> Sequence[str] | None:
    """The cells as JSON text in a type, an empty one as empty text; None if one of them has not that type.

    It is `cells` itself where the cells are JSON as they stand. Not for the type text.
    """
    if "" not in cells:
        return _CONVERTERS[kind](cells)
    values = _CONVERTERS[kind]([cell for cell in cells if cell])
    if values is None:
        return None
    following = iter(values)
    return [next(following) if cell else '""' for cell in cells]


def is_clean(cells: Sequence[str]) -> bool:
    """Whether every cell stands in a JSON text as it is, between quotes."""
    together = "".join(cells)
    length = len(together) if together.isascii() else len(together.encode())
    return len(orjson.dumps(together)) == length + 2


def _integers(cells: Sequence[str]) -> Sequence[str] | None:
    together = "".join(cells)
    if together.isdecimal() and together.isascii() and min(cells) >= "1" and len(max(cells, key=len)) <= _SAFE_DIGITS:
        return cells
    try:
        values = list(map(int, cells))
    except ValueError:
        return None
    if not values:
        return cells
    if min(values) < MIN_INTEGER or max(values) > MAX_INTEGER or list(map(str, values)) != list(cells):
        return None
    return cells


def _numbers(cells: Sequence[str]) -> Sequence[str] | None:
    try:
        values = list(map(float, cells))
    except ValueError:
        return None
    texts = orjson.dumps(values)[1:-1].decode().split(",") if values else []
    if texts == cells:
        return cells
    for cell, text, value in zip(cells, texts, values, strict=True):
        if text != cell and not _only_zeros_more(cell, text) and not _gives_back(cell, value):
            return None
    return texts


def _only_zeros_more(cell: str, text: str) -> bool:
    """Whether the cell is the text of a number with zeros behind its decimals: `_gives_back`, where it is quick."""
    if not len(text) < len(cell) <= _LONGEST_NUMBER:
        return False
    return "." in text and "e" not in text and cell.rstrip("0") == text.rstrip("0")


def _gives_back(cell: str, value: float) -> bool:
    if len(cell) > _LONGEST_NUMBER:
        return False
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return False
    if found[1] is None and found[2] is None:
        return str(int(cell)) == cell and MIN_INTEGER <= int(cell) <= MAX_INTEGER and int(cell) == value
    return value - value == 0 and Decimal(repr(value)) == Decimal(cell)


def _booleans(cells: Sequence[str]) -> Sequence[str] | None:
    try:
        return [_BOOLEANS[cell] for cell in cells]
    except KeyError:
        return None


def _nothing(cells: Sequence[str]) -> Sequence[str] | None:
    return None if cells else cells


_CONVERTERS = {"integer": _integers, "number": _numbers, "boolean": _booleans, "empty": _nothing}
_NARROWEST_FIRST: tuple[ColumnType, ...] = ("integer", "boolean", "number")
