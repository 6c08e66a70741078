"""How large Arrow's values are. Rows may share what they refer to, so that a column's bytes tell little of them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

OBJECT_BYTES = 32
"""What a value in a list takes at least while it is an object of Python's."""
_VARIABLE = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_VIEWS = (pa.string_view(), pa.binary_view())
_VIEW_NUMBERS = 4
"""What a view is made of, of 32 bits each; the first is its length."""


def bytes_of(column: pa.Array) -> int:
    """The bytes that a column's values take once nothing is shared, about; of few rows, as each is looked at."""
    column = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
    kind = column.type
    if pa.types.is_dictionary(kind):
        taken = _referred(column.dictionary, column.indices)
    elif pa.types.is_run_end_encoded(kind):
        runs = column.values.slice(column.find_physical_offset(), column.find_physical_length())
        taken = len(column) * _longest_of(runs)
    elif kind in _VIEWS:
        taken = sum(_view_lengths(column))
    elif kind in _VARIABLE:
        taken = _sum(pc.binary_length(column))
    elif pa.types.is_struct(kind):
        taken = sum(bytes_of(column.field(place)) for place in range(kind.num_fields))
    elif pa.types.is_map(kind):
        first, past = column.offsets[0].as_py(), column.offsets[-1].as_py()
        taken = sum(bytes_of(part.slice(first, past - first)) for part in (column.keys, column.items))
    elif pa.types.is_nested(kind) and hasattr(column, "flatten"):
        taken = bytes_of(column.flatten())
    else:
        taken = int(column.nbytes)
    return taken


def _sum(lengths: pa.Array) -> int:
    return int(pc.sum(lengths).as_py() or 0)


def _referred(values: pa.Array, places: pa.Array) -> int:
    if values.type not in _VARIABLE:
        return len(places) * _mean(values)
    return _sum(pc.take(pc.binary_length(values), places))


def longest(column: pa.Array) -> int:
    """The longest of a column's values that rows can share, however deep they lie; 0 where it has none."""
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _longest_of(column.dictionary if pa.types.is_dictionary(kind) else column.values)
    if kind in _VIEWS or _is_list_view(kind):
        return _longest_view(column) if kind in _VIEWS else _longest_list(column)
    if pa.types.is_struct(kind):
        return max((longest(column.field(place)) for place in range(kind.num_fields)), default=0)
    if pa.types.is_map(kind):
        return max(longest(column.keys), longest(column.items))
    return longest(column.values) if pa.types.is_nested(kind) and hasattr(column, "values") else 0


def _longest_of(values: pa.Array) -> int:
    known = values.type in _VARIABLE and pc.max(pc.binary_length(values)).as_py()
    return max(longest(values), int(known or _mean(values)))


def _longest_view(column: pa.Array) -> int:
    return max(_view_lengths(column), default=0)


def _view_lengths(column: pa.Array) -> Sequence[int]:
    views = column.buffers()[1]
    if views is None:
        return ()
    first, past = column.offset * _VIEW_NUMBERS, (column.offset + len(column)) * _VIEW_NUMBERS
    return memoryview(views).cast("i")[first:past:_VIEW_NUMBERS]


def _longest_list(column: pa.Array) -> int:
    return int(pc.max(pc.list_value_length(column)).as_py() or 0) * max(OBJECT_BYTES, _mean(column.values))


def _mean(values: pa.Array) -> int:
    return int(values.nbytes // max(1, len(values)))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def elements(column: pa.Array) -> int:
    """How many values there are in lists, maps and objects, of all rows together."""
    kind = column.type
    if pa.types.is_struct(kind):
        return sum(elements(column.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return 2 * len(column.items)
    if _is_list_view(kind):
        return int(pc.sum(pc.list_value_length(column)).as_py() or 0)
    return elements(column.flatten()) if pa.types.is_nested(kind) and hasattr(column, "flatten") else len(column)
