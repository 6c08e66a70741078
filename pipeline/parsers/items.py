"""Items of task JSON, from text to tasks: exact where orjson is not, and fast where it is.

orjson is quick but turns integers beyond 64 bits into floats, and lets NUL pass. Its output gives both
away (such a float is written with an exponent), so what it made is looked at, and what is in doubt is read
again by `Exact`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import orjson

from pipeline.parsers.contract import MAX_DEPTH, BadRow, Rules
from pipeline.parsers.skipping import depth_of
from pipeline.tasks import RejectedRow, Task, excerpt

MAX_DIGITS = 4300
"""The longest integer that is kept exactly; a longer one is `number`."""
PLACEHOLDER = "$undefined$"

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_BIG = re.compile(r"[0-9]e\+[0-9]")
_ROOT_KEYS = frozenset({"data", "annotations", "predictions", "completions"})
_OWN_KEYS = frozenset({"data", "annotations", "predictions", "meta", "id"})
_SIMPLE_KEYS = frozenset({"data", "meta", "id"})
_DICT = {dict}
_META = frozenset({dict, list, object})
_IDS = frozenset({int, str, type(None)})
_ABSENT = object()
_NOTHING: Iterable[None] = repeat(None)
_make_task: Callable[[tuple[Any, ...]], Task] = partial(tuple.__new__, Task)


class Doubt(Exception):
    """orjson may have changed a number; read the item again with `Exact`. It never leaves the parsers."""


def fast_dump(value: Any) -> str:
    """JSON text of a value that orjson has read.

    Raises:
        Doubt: `Exact` must read the item.
        BadRow: `nul`.
    """
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        raise Doubt from None
    if "+" in text and _BIG.search(text):
        raise Doubt
    if "\\u0000" in text and _NUL.search(text):
        raise BadRow("nul", "it holds a NUL character")
    return text


def exact_dump(value: Any) -> str:
    """JSON text of a value that `Exact` has read.

    Raises:
        BadRow: `nul`, `surrogate`.
    """
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        _check_surrogates(text)
    if "\\u0000" in text and _NUL.search(text):
        raise BadRow("nul", "it holds a NUL character")
    return text


def _check_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("surrogate", f"it holds half a surrogate pair, \\u{ord(text[error.start]):x}") from None


class Exact:
    """Reads one JSON value out of a text with nothing lost; numbers that cannot be kept are remembered."""

    def __init__(self) -> None:
        self._fault = ""
        self._decoder = json.JSONDecoder(
            parse_int=self._integer, parse_float=self._float, parse_constant=self._constant
        )

    def read(self, text: str, start: int = 0) -> tuple[Any, int, BadRow | None]:
        """The value at `start`, where it ends, and why it cannot be kept as it is, if so.

        Raises:
            json.JSONDecodeError: there is no value.
            RecursionError: it is very deep.
        """
        self._fault = ""
        value, end = self._decoder.raw_decode(text, start)
        if self._fault:
            return value, end, BadRow("number", self._fault)
        openings = text.count("[", start, end) + text.count("{", start, end)
        if openings > MAX_DEPTH and depth_of(text[start:end]) > MAX_DEPTH:
            return value, end, too_deep()
        return value, end, None

    def _integer(self, text: str) -> int:
        if len(text) > MAX_DIGITS and len(text.lstrip("-")) > MAX_DIGITS:
            self._fault = f"an integer of more than {MAX_DIGITS:,} digits"
            return 0
        return int(text)

    def _float(self, text: str) -> float:
        value = float(text)
        if math.isinf(value):
            self._fault = f"{text[:40]} is beyond a double"
        return value

    def _constant(self, text: str) -> None:
        self._fault = f"{text} is no number in JSON"


def too_deep() -> BadRow:
    """What an item of too many levels is rejected for."""
    return BadRow("too_deep", f"objects and lists lie more than {MAX_DEPTH} deep")


def tasks_of(values: Sequence[Any], rows: Iterable[int], rules: Rules) -> list[Task] | None:
    """The tasks of plain items that orjson has read; None if any of them needs to be looked at by itself."""
    if set(map(type, values)) != _DICT or not all(values):
        return None
    datas: Sequence[dict[str, Any]] = values
    if not all(map(_ROOT_KEYS.isdisjoint, values)):
        return _documents(values, rows, rules)
    if rules.options.preannotated_from_fields:
        return None
    return plain_tasks(datas, rows, rules, doubtful=True)


def _documents(values: Sequence[dict[str, Any]], rows: Iterable[int], rules: Rules) -> list[Task] | None:
    """The tasks of items that have `data`, and perhaps `meta` and `id`; None if any of them has or needs more."""
    if not _SIMPLE_KEYS.issuperset(set().union(*values)):
        return None
    datas: list[Any] = [value.get("data") for value in values]
    if set(map(type, datas)) != _DICT or not all(datas):
        return None
    texts = _texts(datas, rules, doubtful=True)
    if texts is None or set(map(len, values)) == {1}:
        return None if texts is None else text_tasks(texts, rows)
    metas = _metas(values, rules)
    ids = [value.get("id") for value in values]
    if metas is None or not _IDS.issuperset(map(type, ids)):
        return None
    known = [str(one) if one.__class__ is int else one for one in ids]
    if any("\x00" in one for one in known if one is not None):
        return None
    return text_tasks(texts, rows, metas, known)


def _metas(values: Sequence[dict[str, Any]], rules: Rules) -> list[str | None] | None:
    """The text of each item's `meta`; None if one must be looked at by itself."""
    metas = [value.get("meta", _ABSENT) for value in values]
    kinds = set(map(type, metas))
    if kinds == {object}:
        return [None] * len(metas)
    if not kinds <= _META:
        return None
    there = _dumped([meta for meta in metas if meta is not _ABSENT], rules, doubtful=True)
    if there is None:
        return None
    texts = iter(there)
    return [None if meta is _ABSENT else next(texts) for meta in metas]


def plain_tasks(
    datas: Sequence[dict[str, Any]], rows: Iterable[int], rules: Rules, *, doubtful: bool = False
) -> list[Task] | None:
    """The tasks of these data; None if any of them needs to be looked at by itself.

    `doubtful` says that orjson has read them, so that a float may have been an integer.
    """
    texts = _texts(datas, rules, doubtful=doubtful)
    return None if texts is None else text_tasks(texts, rows)


def _texts(datas: Sequence[dict[str, Any]], rules: Rules, *, doubtful: bool) -> list[str] | None:
    if rules.check is not None and not (rules.label_config and rules.label_config.fits_all(datas)):
        return None
    return _dumped(datas, rules, doubtful=doubtful)


def _dumped(values: Sequence[Any], rules: Rules, *, doubtful: bool) -> list[str] | None:
    """JSON texts of values; None if any of them needs to be looked at by itself."""
    try:
        dumped = list(map(orjson.dumps, values))
    except TypeError:
        return None
    together = b"".join(dumped)
    if doubtful and b"+" in together and b"e+" in together:
        return None
    if b"\\" in together and b"\\u0000" in together:
        return None
    if rules.undefined_key is not None and b"$undefined$" in together:
        return None
    return list(map(bytes.decode, dumped))


def text_tasks(
    texts: Iterable[str],
    rows: Iterable[int],
    metas: Iterable[str | None] = _NOTHING,
    ids: Iterable[str | None] = _NOTHING,
) -> list[Task]:
    """Tasks of data that is JSON text already and has nothing to be looked at."""
    columns = zip(rows, texts, _NOTHING, _NOTHING, metas, _NOTHING, ids, strict=False)
    return list(map(_make_task, columns))


def plain_task(data: dict[str, Any], row: int, rules: Rules) -> Task:
    """The task of data that no JSON was read for.

    Raises:
        BadRow: it does not fit the configuration, or cannot be kept.
    """
    return _flat_task(data, row, rules, exact_dump)


def task_of(value: Any, row: int, rules: Rules, dump: Callable[[Any], str]) -> Task:
    """The task of one item.

    Raises:
        BadRow: it is none.
        Doubt: `dump` is `fast_dump`, and the item must be read by `Exact`.
    """
    if value.__class__ is not dict:
        raise BadRow("not_an_object", f"a task is an object, this is {_kind(value)}")
    if not value:
        raise BadRow("empty_task", "an empty object is no task")
    data = value.get("data")
    if not data:
        return _flat(value, row, rules, dump)
    if data.__class__ is not dict:
        raise BadRow("data_type", f"`data` is {_kind(data)}, not an object")
    annotations, predictions = _lists(value)
    data = _checked(data, rules)
    if rules.level == "strict" and rules.label_config is not None:
        _complain(rules.label_config.check_strict(annotations or (), predictions or ()))
    meta = value.get("meta")
    if meta.__class__ not in (dict, list) and "meta" in value:
        raise BadRow("meta", f"`meta` is {_kind(meta)}, neither an object nor a list")
    extra = {key: part for key, part in value.items() if key not in _OWN_KEYS}
    if "annotations" not in value:
        extra.pop("completions", None)
    identity = value.get("id")
    return Task(
        row,
        dump(data),
        None if annotations is None else dump(annotations),
        None if predictions is None else dump(predictions),
        None if meta is None else dump(meta),
        dump(extra) if extra else None,
        None if identity is None else _identity(identity, dump),
    )


def _identity(value: Any, dump: Callable[[Any], str]) -> str:
    text = dump(value)
    return value if isinstance(value, str) else text


def _flat(value: dict[str, Any], row: int, rules: Rules, dump: Callable[[Any], str]) -> Task:
    for key in ("annotations", "predictions", "completions"):
        if key in value:
            raise BadRow("needs_data", f"an item with `{key}` must have its data under `data`")
    return _flat_task(value, row, rules, dump)


def _flat_task(value: dict[str, Any], row: int, rules: Rules, dump: Callable[[Any], str]) -> Task:
    data = _checked(value, rules)
    names = rules.options.preannotated_from_fields
    predictions = preannotated(data, rules) if names else None
    return Task(row, dump(data), None, dump(predictions) if predictions else None)


def _checked(data: dict[str, Any], rules: Rules) -> dict[str, Any]:
    if rules.undefined_key is not None and PLACEHOLDER in data:
        others = {key: part for key, part in data.items() if key != PLACEHOLDER}
        data = others | {rules.undefined_key: data[PLACEHOLDER]}
    if rules.check is not None:
        _complain(rules.check(data))
    return data


def _complain(why: tuple[str, str] | None) -> None:
    if why is not None:
        raise BadRow(*why)


def preannotated(data: dict[str, Any], rules: Rules) -> list[dict[str, Any]]:
    """The predictions that the fields of a flat task become; an absent or empty field becomes none.

    Raises:
        BadRow: `prediction`, in strict validation.
    """
    predictions = []
    for name in rules.options.preannotated_from_fields:
        control = rules.label_config.control(name) if rules.label_config else None
        value = data.get(name)
        if control is not None and value not in (None, "", [], {}):
            predictions.append({"result": [control.result(value)], "score": 1.0, "model_version": "preannotated"})
    if rules.level == "strict" and rules.label_config is not None:
        _complain(rules.label_config.check_strict((), predictions))
    return predictions


def _lists(value: dict[str, Any]) -> tuple[list[Any] | None, list[Any] | None]:
    annotations: list[Any] | None = None
    for key in ("annotations", "completions"):
        if key in value:
            annotations = [_annotation(item, key, n) for n, item in enumerate(_list(value, key, "annotation"), 1)]
            break
    if "predictions" not in value:
        return annotations, None
    return annotations, [_prediction(item, n) for n, item in enumerate(_list(value, "predictions", "prediction"), 1)]


def _list(value: dict[str, Any], key: str, code: str) -> list[Any]:
    items: list[Any] = value[key]
    if items.__class__ is not list:
        raise BadRow(code, f"`{key}` is {_kind(items)}, not a list")
    return items


def _annotation(item: Any, key: str, place: int) -> dict[str, Any]:
    _check_result(item, "annotation", f"item {place} of `{key}`")
    kept: dict[str, Any] = {"ground_truth": False} | item
    if "id" in kept:
        kept["import_id"] = kept.pop("id")
    return kept


def _prediction(item: Any, place: int) -> dict[str, Any]:
    _check_result(item, "prediction", f"item {place} of `predictions`")
    kept: dict[str, Any] = {"score": None, "model_version": "undefined"} | item
    if kept["score"].__class__ not in (int, float):
        kept["score"] = None
    if kept["model_version"] is None:
        kept["model_version"] = "undefined"
    return kept


def _check_result(item: Any, code: str, where: str) -> None:
    if item.__class__ is not dict:
        raise BadRow(code, f"{where} is {_kind(item)}, not an object")
    if item.get("result").__class__ is not list:
        raise BadRow(code, f"{where} has no list under `result`")


_KINDS = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), "something else")


def rejected(bad: BadRow, row: int, line: int | None, column: int | None, text: str) -> RejectedRow:
    """The rejected row of a bad one."""
    # A message may hold keys of the file, which are as hostile as its text.
    return RejectedRow(row, bad.code, _shown(bad.message), line, column, _shown(text))


def _shown(text: str) -> str:
    return excerpt(text).encode("utf-8", "replace").decode()
