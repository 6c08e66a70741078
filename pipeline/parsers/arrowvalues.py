"""Arrow's types as JSON. What JSON has no word for becomes text, with nothing lost.

Timestamps, dates, times and durations are ISO 8601 (an instant in UTC, with `Z`), decimals are written digit
by digit, binary is base64, a dictionary gives its values, a map is an object where its keys are text and a
list of pairs where they are not.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import types

from pipeline.parsers.contract import BadRow

Converter = Callable[[Any], Any]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_SECONDS = 86400


def storage_of(kind: pa.DataType) -> pa.DataType:
    """The type that a column is cast to before its values are taken: counts for times, values for dictionaries."""
    kind = _bare(kind)
    for matches, storage in _STORAGE:
        if matches(kind):
            return storage(kind)
    return kind


def converter_of(kind: pa.DataType) -> Converter | None:
    """What makes a value of the column JSON; None where it is so already. Never called with None.

    The converter raises BadRow (`number`) for a number that is not finite.
    """
    kind = _bare(kind)
    for matches, converter in _CONVERTERS:
        if matches(kind):
            return converter(kind)
    return None if any(matches(kind) for matches in _PLAIN) else _other


def _bare(kind: pa.DataType) -> pa.DataType:
    """The type below extensions and dictionaries."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


_PLAIN = (
    types.is_boolean,
    types.is_integer,
    types.is_string,
    types.is_large_string,
    types.is_string_view,
    types.is_null,
)


def _applied(converter: Converter | None, value: Any) -> Any:
    return value if converter is None or value is None else converter(value)


def _struct(kind: pa.DataType) -> Converter | None:
    converters = {field.name: converter_of(field.type) for field in kind}
    if not any(converters.values()):
        return None
    return lambda value: {name: _applied(converters.get(name), part) for name, part in value.items()}


def _list_of(kind: pa.DataType) -> Converter | None:
    item = converter_of(kind.value_type)
    return None if item is None else partial(_list, item=item)


def _view_of(kind: pa.DataType) -> Converter | None:
    # pyarrow cannot cast views of lists: what is not stored as it is shown stays Python's text.
    return _list_of(kind) if storage_of(kind.value_type) == kind.value_type else _other


def _map_of(kind: pa.DataType) -> Converter:
    return partial(_map, key=converter_of(kind.key_type), item=converter_of(kind.item_type))


def _list(value: list[Any], item: Converter) -> list[Any]:
    return [_applied(item, part) for part in value]


def _map(value: list[tuple[Any, Any]], key: Converter | None, item: Converter | None) -> Any:
    pairs = [(_applied(key, name), _applied(item, part)) for name, part in value]
    return dict(pairs) if all(isinstance(name, str) for name, _ in pairs) else [list(pair) for pair in pairs]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise BadRow("number", f"{value} is no number in JSON")
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _other(value: Any) -> Any:
    return value if isinstance(value, str | int | bool) else str(value)


def _fraction(count: int, digits: int) -> str:
    return f".{count:0{digits}d}" if digits and count else ""


def _timestamp(value: int, unit: str, *, instant: bool) -> str:
    seconds, count = divmod(value, _PER_SECOND[unit])
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        raise BadRow("number", f"a timestamp of {seconds} seconds is beyond the calendar") from None
    text = moment.replace(tzinfo=None).isoformat() + _fraction(count, _DIGITS[unit])
    return text + "Z" if instant else text


def _date(value: int, per_day: int) -> str:
    return _timestamp(value * _DAY_SECONDS // per_day, "s", instant=False)[:10]


def _time(value: int, unit: str) -> str:
    seconds, count = divmod(value, _PER_SECOND[unit])
    hours, rest = divmod(seconds, 3600)
    return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}" + _fraction(count, _DIGITS[unit])


def _duration(value: int, unit: str) -> str:
    seconds, count = divmod(abs(value), _PER_SECOND[unit])
    return f"{'-' if value < 0 else ''}PT{seconds}{_fraction(count, _DIGITS[unit])}S"


_Matches = Callable[[pa.DataType], bool]
_STORAGE: tuple[tuple[_Matches, Callable[[pa.DataType], pa.DataType]], ...] = (
    (types.is_timestamp, lambda _: pa.int64()),
    (types.is_duration, lambda _: pa.int64()),
    (types.is_time64, lambda _: pa.int64()),
    (types.is_date64, lambda _: pa.int64()),
    (types.is_date32, lambda _: pa.int32()),
    (types.is_time32, lambda _: pa.int32()),
    (types.is_struct, lambda kind: pa.struct([field.with_type(storage_of(field.type)) for field in kind])),
    (types.is_map, lambda kind: pa.map_(storage_of(kind.key_type), storage_of(kind.item_type))),
    (types.is_fixed_size_list, lambda kind: pa.list_(storage_of(kind.value_type), kind.list_size)),
    (types.is_large_list, lambda kind: pa.large_list(storage_of(kind.value_type))),
    (types.is_list, lambda kind: pa.list_(storage_of(kind.value_type))),
)
_CONVERTERS: tuple[tuple[_Matches, Callable[[pa.DataType], Converter | None]], ...] = (
    (types.is_floating, lambda _: _finite),
    (types.is_decimal, lambda _: "{:f}".format),
    (types.is_timestamp, lambda kind: partial(_timestamp, unit=kind.unit, instant=kind.tz is not None)),
    (types.is_date32, lambda _: partial(_date, per_day=1)),
    (types.is_date64, lambda _: partial(_date, per_day=_DAY_SECONDS * 1000)),
    (types.is_time, lambda kind: partial(_time, unit=kind.unit)),
    (types.is_duration, lambda kind: partial(_duration, unit=kind.unit)),
    (types.is_binary, lambda _: _base64),
    (types.is_large_binary, lambda _: _base64),
    (types.is_binary_view, lambda _: _base64),
    (types.is_fixed_size_binary, lambda _: _base64),
    (types.is_struct, _struct),
    (types.is_map, _map_of),
    (types.is_fixed_size_list, _list_of),
    (types.is_large_list, _list_of),
    (types.is_list_view, _view_of),
    (types.is_large_list_view, _view_of),
    (types.is_list, _list_of),
)
