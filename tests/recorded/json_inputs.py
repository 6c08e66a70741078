"""Task JSON: layouts, encodings, numbers, faults, the parts of a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from tests.recorded.case import Case, cases

BOTH: tuple[Any, ...] = ("import", "storage")
_RESULT = {"from_name": "c", "to_name": "o", "type": "choices", "value": {"choices": ["x"]}}
_OTHER = {"from_name": "nobody", "to_name": "o", "type": "choices", "value": {"choices": ["x"]}}

LAYOUTS: dict[str, str | bytes] = {
    "an object": '{"text": "a"}',
    "an object with data": '{"data": {"text": "a"}}',
    "an object in lines": '{\n  "text": "a",\n  "more": [1, 2]\n}\n',
    "a list": '[{"text": "a"}, {"text": "b"}]',
    "a list with data": '[{"data": {"text": "a"}}, {"data": {"text": "b"}}]',
    "a list in lines": '[\n{"text": "a"},\n{"text": "b"}\n]\n',
    "a list of one": '[{"text": "a"}]',
    "flat and data together": '[{"text": "a"}, {"data": {"text": "b"}}]',
    "white space around": ' \n\t[{"text": "a"}] \r\n ',
    "nothing": "",
    "only white space": " \n \n",
    "an empty list": "[]",
    "an empty object": "{}",
    "a list with an empty object": '[{"text": "a"}, {}]',
    "a text": '"a"',
    "a number": "1",
    "null": "null",
    "true": "true",
    "a list of texts": '["a", "b"]',
    "a list of numbers": "[1, 2]",
    "a list with null": '[{"text": "a"}, null]',
    "a list of lists": '[[{"text": "a"}]]',
    "a text among tasks": '[{"text": "a"}, "b", {"text": "c"}]',
    "documents in lines": '{"text": "a"}\n{"text": "b"}\n',
    "documents without a last newline": '{"text": "a"}\n{"text": "b"}',
    "documents with CRLF": '{"text": "a"}\r\n{"text": "b"}\r\n',
    "documents with blank lines": '{"text": "a"}\n\n  \n{"text": "b"}\n',
    "documents back to back": '{"text": "a"}{"text": "b"}',
    "documents over lines": '{\n"text": "a"\n}\n{\n"text": "b"\n}\n',
    "documents with data": '{"data": {"text": "a"}}\n{"data": {"text": "b"}}\n',
    "a bad line": '{"text": "a"}\n{"text": \n{"text": "c"}\n',
    "a bad first line": '{"text": \n{"text": "b"}\n',
    "a bad last line": '{"text": "a"}\n{"text": "b"',
    "a line that is a list": '{"text": "a"}\n[{"text": "b"}]\n',
    "a line that is a number": '{"text": "a"}\n1\n',
    "no JSON": "hello",
    "a comment": '// a comment\n{"text": "a"}',
    "a comment within": '{"text": "a" /* b */}',
    "single quotes": "{'text': 'a'}",
    "keys without quotes": '{text: "a"}',
    "a last comma": '{"text": "a",}',
    "a last comma in a list": '[{"text": "a"},]',
    "a missing comma": '[{"text": "a"} {"text": "b"}]',
    "a list that ends early": '[{"text": "a"}, {"text": "b"}',
    "a list that ends in an item": '[{"text": "a"}, {"text": "b',
    "more after a list": '[{"text": "a"}] x',
    "two lists": '[{"text": "a"}][{"text": "b"}]',
    "an object that ends early": '{"text": "a"',
    "more after an object": '{"text": "a"} x',
    "a fault in a list": '[{"text": "a"}, {"text" "b"}, {"text": "c"}]',
    "a record separator": '\x1e{"text": "a"}\n\x1e{"text": "b"}\n',
    "duplicate keys": '{"text": "a", "text": "b"}',
    "an empty key": '{"text": "a", "": 1}',
    "nested values": '{"text": "a", "x": {"y": [{"z": null}, [], {}]}}',
}
ENCODINGS: dict[str, str | bytes] = {
    "UTF-8": '{"text": "żółw 😀 \u2028"}',
    "escapes": '{"text": "\\u017c\\ud83d\\ude00\\n\\t\\"\\\\\\/"}',
    "a mark": '\ufeff{"text": "a"}',
    "a mark before a list": '\ufeff[{"text": "a"}]',
    "UTF-16 with a mark": '{"text": "a"}'.encode("utf-16"),
    "UTF-32 with a mark": '{"text": "a"}'.encode("utf-32"),
    "UTF-16 without a mark": '{"text": "a"}'.encode("utf-16-le"),
    "bytes that are no UTF-8": b'{"text": "\xff"}',
    "Latin-1": '{"text": "é"}'.encode("latin-1"),
    "an overlong form": b'{"text": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}',
    "half a surrogate pair": '{"text": "\\ud800"}',
    "half a pair among others": '[{"text": "a"}, {"text": "\\ud800"}, {"text": "c"}]',
    "NUL": '{"text": "a\\u0000b"}',
    "NUL among others": '[{"text": "a"}, {"text": "\\u0000"}, {"text": "c"}]',
    "a NUL byte": b'{"text": "a\x00b"}',
    "a tab in a text": '{"text": "a\tb"}',
    "a newline in a text": '{"text": "a\nb"}',
    "a control sign": '{"text": "a\\u0001b"}',
    "a wrong escape": '{"text": "\\x41"}',
    "a no-character": '{"text": "\\uffff"}',
    "an escaped key": '{"te\\u0078t": "a"}',
}
NUMBERS: dict[str, str | bytes] = {
    what: f'{{"text": "a", "n": {number}}}'
    for what, number in {
        "0": "0",
        "minus 0": "-0",
        "1.0": "1.0",
        "1e2": "1e2",
        "1E+2": "1E+2",
        "0.1": "0.1",
        "17 digits": "0.12345678901234568",
        "20 digits after the point": "0.12345678901234567890",
        "2 to the 53 and 1": "9007199254740993",
        "2 to the 63": "9223372036854775808",
        "2 to the 64": "18446744073709551616",
        "30 digits": "123456789012345678901234567890",
        "300 digits": "1" * 300,
        "5,000 digits": "1" * 5000,
        "1e308": "1e308",
        "1e400": "1e400",
        "1e-400": "1e-400",
        "NaN": "NaN",
        "Infinity": "Infinity",
        "minus Infinity": "-Infinity",
        "a leading 0": "007",
        "a leading plus": "+1",
        "a bare point": ".5",
        "a last point": "5.",
        "hexadecimal": "0x10",
        "true": "true",
        "null": "null",
        "True": "True",
    }.items()
}
IN_LISTS: dict[str, str | bytes] = {
    f"{what} in a list": f'[{{"text": "a"}}, {{"text": "b", "n": {number}}}, {{"text": "c"}}]'
    for what, number in {"NaN": "NaN", "1e400": "1e400", "30 digits": "1" * 30, "1.0": "1.0", "minus 0": "-0"}.items()
}
DEPTHS: dict[str, str | bytes] = {
    f"{depth} levels": '{"text": "a", "x": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}" for depth in (20, 500, 600)
} | {"30,000 levels": '{"text": "a", "x": ' + "[" * 29_999 + "]" * 29_999 + "}"}


def _documents(parts: dict[str, dict[str, Any]]) -> dict[str, str | bytes]:
    return {
        what: json.dumps([{"data": {"text": "a"}}, {"data": {"text": "b"}, **part}]) for what, part in parts.items()
    }


ROOTS = _documents({
    "an id": {"id": 7},
    "a text as id": {"id": "t7"},
    "meta": {"meta": {"x": 1}},
    "meta that is a list": {"meta": [1]},
    "meta that is a text": {"meta": "x"},
    "meta that is null": {"meta": None},
    "other root keys": {"extra": 1, "created_at": "2020-01-01T00:00:00Z"},
    "allow_skip": {"allow_skip": False},
    "annotations": {"annotations": [{"result": [_RESULT]}]},
    "two annotations": {"annotations": [{"result": [_RESULT]}, {"result": []}]},
    "no annotations": {"annotations": []},
    "annotations that are null": {"annotations": None},
    "annotations that are an object": {"annotations": {"result": [_RESULT]}},
    "annotations that are a text": {"annotations": "x"},
    "an annotation without result": {"annotations": [{"value": 1}]},
    "an annotation with an object as result": {"annotations": [{"result": {"a": 1}}]},
    "an annotation with null as result": {"annotations": [{"result": None}]},
    "an annotation that is a text": {"annotations": ["x"]},
    "an annotation that is null": {"annotations": [None]},
    "ground truth": {"annotations": [{"result": [_RESULT], "ground_truth": True}]},
    "a cancelled annotation": {"annotations": [{"result": [], "was_cancelled": True}]},
    "lead time": {"annotations": [{"result": [_RESULT], "lead_time": 12.5}]},
    "an annotation with an id": {"annotations": [{"id": 1001, "result": [_RESULT]}]},
    "an annotation for nobody": {"annotations": [{"result": [_OTHER]}]},
    "completions": {"completions": [{"result": [_RESULT]}]},
    "predictions": {"predictions": [{"result": [_RESULT]}]},
    "a score": {"predictions": [{"result": [_RESULT], "score": 0.5}]},
    "a score of 1": {"predictions": [{"result": [_RESULT], "score": 1}]},
    "a score that is a text": {"predictions": [{"result": [_RESULT], "score": "high"}]},
    "a score that is null": {"predictions": [{"result": [_RESULT], "score": None}]},
    "a model version": {"predictions": [{"result": [_RESULT], "model_version": "v1"}]},
    "a model version that is null": {"predictions": [{"result": [_RESULT], "model_version": None}]},
    "no predictions": {"predictions": []},
    "predictions that are null": {"predictions": None},
    "predictions that are an object": {"predictions": {"result": []}},
    "a prediction without result": {"predictions": [{"score": 1}]},
    "a prediction with an object as result": {"predictions": [{"result": {"a": 1}}]},
    "a prediction that is a text": {"predictions": ["x"]},
    "a prediction for nobody": {"predictions": [{"result": [_OTHER]}]},
    "a prediction with an unknown choice": {
        "predictions": [{"result": [{**_RESULT, "value": {"choices": ["unknown"]}}]}]
    },
    "annotations and predictions": {
        "annotations": [{"result": [_RESULT]}],
        "predictions": [{"result": [_RESULT], "score": 0.25, "model_version": "m"}],
    },
})  # fmt: skip
DATA: dict[str, str | bytes] = {
    f"data that is {what}": f'[{{"data": {value}, "text": "a"}}, {{"text": "b"}}]'
    for what, value in {
        "null": "null", "an empty object": "{}", "an empty text": '""', "0": "0", "false": "false",
        "an empty list": "[]", "a text": '"x"', "a number": "1", "true": "true", "a list": '[{"text": "x"}]',
    }.items()
} | {
    "flat with annotations": '{"text": "a", "annotations": [{"result": []}]}',
    "flat with predictions": '{"text": "a", "predictions": [{"result": []}]}',
    "flat with an empty list of annotations": '{"text": "a", "annotations": []}',
    "flat with an id": '{"text": "a", "id": 3}',
    "flat with meta": '{"text": "a", "meta": {"x": 1}}',
    "flat with data within": '{"text": "a", "inner": {"data": {"text": "b"}}}',
    "the placeholder": '{"$undefined$": "a"}',
    "the placeholder and more": '{"$undefined$": "a", "more": 1}',
}  # fmt: skip
PREANNOTATED: dict[str, str | bytes] = {
    "preannotated by a text": '[{"text": "a", "c": "x"}]',
    "preannotated by a list": '[{"text": "a", "c": ["x", "y"]}]',
    "preannotated by an object": '[{"text": "a", "c": {"choices": ["y"]}}]',
    "preannotated by an absent field": '[{"text": "a"}]',
    "preannotated by an empty field": '[{"text": "a", "c": ""}]',
}


def all_cases() -> Iterator[Case]:
    """All of them."""
    return chain(
        cases("a.json", LAYOUTS | ENCODINGS | NUMBERS | IN_LISTS | DEPTHS, "none", *BOTH),
        cases("a.json", ROOTS | DATA, "text", *BOTH),
        cases("a.jsonl", {what: LAYOUTS[what] for what in _JSONL}, "none", "storage"),
        cases("a.json", PREANNOTATED, "text", "import", fields=("c",)),
    )


_JSONL = ("an object", "a list", "documents in lines", "documents with blank lines", "a bad line", "nothing", "no JSON")
