"""Text, hypertext, media, extensions, and what each labelling configuration takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from tests.recorded.case import Case, cases

LINES: dict[str, str | bytes] = {
    "two lines": "a\nb\n",
    "no last newline": "a\nb",
    "CRLF": "a\r\nb\r\n",
    "CR": "a\rb\r",
    "mixed ends": "a\nb\r\nc\rd",
    "a blank line": "a\n\nb\n",
    "a line of spaces": "a\n  \nb\n",
    "blank lines at the end": "a\n\n\n",
    "spaces around": "  a  \n\tb\n",
    "nothing": "",
    "one newline": "\n",
    "only spaces": "   ",
    "VT": "a\x0bb\n",
    "FF": "a\x0cb\n",
    "FS": "a\x1cb\n",
    "NEL": "a\x85b\n",
    "U+2028": "a\u2028b\n",
    "U+2029": "a\u2029b\n",
    "NUL": "a\x00b\nc\n",
    "a mark": "\ufeffa\nb\n",
    "UTF-16": "a\nb\n".encode("utf-16"),
    "UTF-8": "żółw 😀\n",
    "Latin-1": "é\n".encode("latin-1"),
    "a control sign": "a\x01b\n",
    "JSON": '{"text": "a"}\n',
    "links": "https://example.com/a.jpg\nhttps://example.com/b.jpg\n",
}
PAGES: dict[str, str | bytes] = {
    "a page": "<html><body><p>a</p></body></html>",
    "a piece": "<b>a</b>",
    "white space": "<p>\n  a   b\n</p>\n",
    "a comment": "<p>a<!-- b --></p>",
    "no tags": "a",
    "nothing": "",
    "UTF-8": "<p>żółw 😀</p>",
    "a mark": "\ufeff<p>a</p>",
    "a declared charset": '<meta charset="latin-1"><p>é</p>'.encode("latin-1"),
    "UTF-16": "<p>a</p>".encode("utf-16"),
    "bytes that are no text": b"<p>\xff</p>",
    "NUL": "<p>a\x00b</p>",
    "CRLF": "<p>a</p>\r\n<p>b</p>\r\n",
}
_SVG = '<svg xmlns="http://www.w3.org/2000/svg"><rect width="1" height="1"/></svg>'
MEDIA = {
    "image": ("bmp", "gif", "jpg", "jpeg", "png", "svg", "webp"),
    "audio": ("flac", "m4a", "mp3", "ogg", "wav"),
    "video": ("mp4", "webm"),
    "pdf": ("pdf",),
}
UNKNOWN = ("jsonl", "ndjson", "parquet", "arrow", "feather", "avif", "tiff", "docx", "zip", "json.gz", "md", "JSON",
           "CSV", "TXT", "HTML", "Png")  # fmt: skip

VALUES: dict[str, Any] = {
    "a text": "x",
    "an empty text": "",
    "a link": "https://example.com/x",
    "an integer": 1,
    "a number": 1.5,
    "true": True,
    "null": None,
    "a list": ["x"],
    "an empty list": [],
    "a list of objects": [{"author": "A", "text": "x", "role": "user", "content": "y"}],
    "an object": {"a": 1},
}
KEYS = {
    "text": "text", "html": "html", "image": "image", "audio": "audio", "video": "video", "paragraphs": "turns",
    "chat": "messages", "timeseries": "series", "table": "row", "list": "items", "both": "media", "linked": "text",
    "within": "name", "pdf": "pdf",
}  # fmt: skip
NESTED: dict[str, Any] = {
    "nested": {"a": {"b": "x"}},
    "a flat key": {"a.b": "x"},
    "both forms": {"a": {"b": "x"}, "a.b": "y"},
    "a missing part": {"a": {"c": "x"}},
    "a text where an object should be": {"a": "x"},
    "null where an object should be": {"a": None},
    "an object where a text should be": {"a": {"b": {"c": "x"}}},
}
OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deep", {"nested twice": {"a": {"b": {"c": "x"}}}, "once": {"a": {"b": "x"}}}),
    ("first", {"a list": {"images": ["x"]}, "an empty list": {"images": []}, "a text": {"images": "x"}, "none": {}}),
    ("repeater", {
        "a list": {"pages": [{"url": "x"}], "title": "t"},
        "an empty list": {"pages": [], "title": "t"},
        "an object": {"pages": {"url": "x"}, "title": "t"},
        "no list": {"title": "t"},
        "no title": {"pages": [{"url": "x"}]},
    }),
    ("images", {"a list": {"images": ["x", "y"]}, "a text": {"images": "x"}, "none": {"other": 1}}),
    ("two", {"both": {"a": "x", "b": "y"}, "one": {"a": "x"}, "none": {"c": "x"}}),
    ("mixed", {"both": {"image": "x", "note": "y"}, "one": {"image": "x"}}),
    ("header", {
        "both": {"title": "t", "text": "x"}, "a number": {"title": 1, "text": "x"}, "a list": {"title": [], "text": ""},
    }),
    ("dynamic", {
        "a list": {"text": "x", "options": [{"value": "a"}]}, "a text": {"text": "x", "options": "a"},
        "an object": {"text": "x", "options": {}}, "none": {"text": "x"},
    }),
    ("taxonomy", {
        "a list": {"text": "x", "tree": [{"value": "a"}]}, "null": {"text": "x", "tree": None},
        "an object": {"text": "x", "tree": {"a": 1}}, "none": {"text": "x"},
    }),
    ("constant", {"its key": {"text": "x"}, "none": {"other": "x"}}),
    ("text", {
        "no key of its own": {"other": "x"}, "a key in capitals": {"Text": "x"}, "more keys": {"text": "x", "o": 1},
    }),
)  # fmt: skip
TURNS = '[{"author": "A", "text": "x"}, {"author": "B", "text": "y"}]'


def _written(parts: dict[str, Any]) -> dict[str, str | bytes]:
    return {what: json.dumps([part]) for what, part in parts.items()}


def _media() -> Iterator[Case]:
    for config, extensions in MEDIA.items():
        for extension in extensions:
            content = {"a file": _SVG if extension == "svg" else b"bytes"}
            yield from cases(f"a.{extension}", content, config)
            yield from cases(f"a.{extension}", content, "none")
            yield from cases(f"a.{extension}", content, config, "files", "storage")
    yield from cases("a b ż.png", {"a name with spaces": b"bytes"}, "image", "import", "files")
    yield from cases("a.png", {"two keys": b"bytes"}, "mixed", "import", "files")
    yield from cases("a.png", {"another kind's tag": b"bytes"}, "audio", "import", "files")


def all_cases() -> Iterator[Case]:
    """All of them."""
    typed = (cases("a.json", _written({w: {key: v} for w, v in VALUES.items()}), name) for name, key in KEYS.items())
    return chain(
        cases("a.txt", LINES, "text"),
        cases("a.txt", {"no configuration": "a\nb\n"}),
        cases("a.txt", {"two keys": "a\n", "links": LINES["links"]}, "two"),
        cases("a.txt", {"links": LINES["links"], "no links": "a\n"}, "image"),
        cases("a.txt", {"links": LINES["links"]}, "audio"),
        cases("a.txt", {"a body by its link": "a\nb\n"}, "linked"),
        cases("a.txt", {"from a storage": "a\nb\n"}, "text", "storage", "files"),
        cases("a.html", PAGES, "html"),
        cases("a.htm", {"a page": PAGES["a page"]}, "html"),
        cases("a.xml", {"a page": "<a><b>x</b></a>"}, "html"),
        cases("a.html", {"no configuration": "<b>a</b>"}),
        cases("a.html", {"two keys": "<b>a</b>"}, "two"),
        cases("a.html", {"from a storage": "<b>a</b>"}, "html", "storage", "files"),
        _media(),
        chain.from_iterable(cases(f"a.{extension}", {"an extension": '{"text": "a"}'}) for extension in UNKNOWN),
        cases("a", {"no extension": '{"text": "a"}', "no extension, no JSON": "x"}, "none", "import", "storage"),
        chain.from_iterable(typed),
        cases("a.json", _written(NESTED), "nested", "import", "storage"),
        chain.from_iterable(cases("a.json", _written(parts), name) for name, parts in OTHERS),
        cases("a.json", _written(dict(OTHERS[-1][1])), "text", "storage"),
        cases("a.json", {"turns": TURNS, "turns under their key": f'{{"turns": {TURNS}}}'}, "paragraphs"),
        cases("a.json", {"columns": '{"time": [1, 2], "v": [3, 4]}'}, "timeseries", "import", "storage"),
        cases("a.json", {"one good and one without its key": '[{"text": "a"}, {"o": 1}]'}, "text", "import", "storage"),
    )
