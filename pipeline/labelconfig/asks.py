"""What a configuration asks of a task's data: variables, the tags they stand in, the types they may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.labelconfig.markup import Element

_STR = frozenset({str})
_NUMBER = frozenset({int, float, bool})
_LIST = frozenset({list})
_STR_LIST = _STR | _LIST

TYPES: dict[str, frozenset[type]] = {
    "Text": _STR | _NUMBER | _LIST,
    "Header": _STR | _NUMBER,
    "HyperText": _STR,
    "Image": _STR_LIST,
    "Paragraphs": _STR_LIST,
    "Chat": _STR_LIST,
    "Table": frozenset({dict, list, str}),
    "TimeSeries": frozenset({dict, list, str}),
    "List": _STR_LIST,
    "Ranker": _STR_LIST,
    "Choices": _STR_LIST,
    "Taxonomy": frozenset({str, list, type(None)}),
    "Repeater": _LIST,
}
"""The types that a tag's value may have; a bool counts as an int."""

_TYPE_NAMES = {
    str: "text", int: "integer", float: "number", list: "list", dict: "object", type(None): "null", bool: "boolean",
}  # fmt: skip
_EXAMPLES: dict[str, Any] = {
    "Text": "Some text to label.", "Header": "A heading", "HyperText": "<p>Some text to label.</p>",
    "Image": "https://example.com/image.jpg", "Audio": "https://example.com/audio.mp3",
    "AudioPlus": "https://example.com/audio.mp3", "Video": "https://example.com/video.mp4",
    "Pdf": "https://example.com/document.pdf", "TimeSeries": "https://example.com/series.csv",
    "Paragraphs": [{"author": "Ann", "text": "Hello."}, {"author": "Bob", "text": "Hello, Ann."}],
    "Chat": [{"role": "user", "content": "Hello."}], "Table": {"name": "value"},
    "List": [{"id": "1", "title": "First", "body": "Text"}], "Ranker": [{"id": "1", "title": "First", "body": "Text"}],
    "Choices": [{"value": "One"}, {"value": "Two"}], "Taxonomy": [{"value": "One"}],
}  # fmt: skip

_WHOLE = re.compile(r"\$([^\s$]+)")
_WORD = re.compile(r"\$(\w+)")
_STEP = re.compile(r"\[(\d{1,4})\]|\[(\{\{\w+\}\})\]|\.?([^.\[\]]+)")
Steps = tuple[str | int, ...]
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|/)[^\s]+")

EACH = -1
"""The step of a path that stands for every item of a Repeater's list."""
ABSENT: Any = object()


def type_name(value: object) -> str:
    """The type of a value of JSON, in a word."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def types_of(tag: str) -> frozenset[type]:
    """The types that the value of this tag may have."""
    return TYPES.get(tag) or (_STR_LIST if tag.endswith("Labels") else _STR)


def variable(text: str) -> str | None:
    """The variable in an attribute, without its `$`; None in text that is a constant."""
    whole = _WHOLE.fullmatch(text.strip())
    if whole:
        return whole[1]
    word = _WORD.search(text)
    return word[1] if word else None


def steps_of(name: str) -> Steps:
    """The path of a variable: keys, indexes, and EACH for the index of a Repeater."""
    steps: list[str | int] = []
    for index, repeated, key in _STEP.findall(name):
        steps.append(int(index) if index else EACH if repeated else key)
    return tuple(steps) or (name,)


@dataclass(frozen=True, slots=True)
class Ask:
    """One demand: `tag` (called `name`, in `line`) wants `key` to be there and of one of `types`.

    `steps` is the way from the data to the value; it ends where a Repeater's list begins.
    """

    key: str
    steps: Steps
    tag: str
    name: str
    line: int
    types: frozenset[type]
    url: bool = False
    each: tuple[tuple[Steps, str], ...] = ()
    """What tags ask of every item of a Repeater's list: the way to it, and the tag."""

    @property
    def data_key(self) -> str:
        """The key under which data that has none of its own satisfies this."""
        return self.key if all(isinstance(step, str) for step in self.steps) else str(self.steps[0])

    @property
    def simple(self) -> bool:
        """Whether a look at the key and its type is all there is to check."""
        return len(self.steps) == 1 and not self.url

    def find(self, data: dict[str, Any]) -> Any:
        """The value in the data, or ABSENT; a flat key `a.b` serves where no nested one exists."""
        value: Any = data
        for step in self.steps:
            if isinstance(step, str):
                value = value.get(step, ABSENT) if isinstance(value, dict) else ABSENT
            else:
                value = value[step] if isinstance(value, list) and step < len(value) else ABSENT
            if value is ABSENT:
                return data.get(self.key, ABSENT)
        return value

    def complaint(self, data: dict[str, Any]) -> tuple[str, str] | None:
        """Why the data does not give what is asked for, as (code, message); None if it does."""
        value = self.find(data)
        if value is ABSENT:
            return self._absent(data)
        if type(value) not in self.types:
            wanted = " or ".join(sorted({_TYPE_NAMES[kind] for kind in self.types} - {"boolean"}))
            found = _TYPE_NAMES.get(type(value), type(value).__name__)
            return "wrong_type", f"{self} wants {wanted} under {self.key!r}, not {found}"
        if self.url and not _URL.fullmatch(value):
            return "wrong_type", f'{self} has valueType="url" and wants a URL under {self.key!r}'
        return None

    def _absent(self, data: dict[str, Any]) -> tuple[str, str]:
        root = data.get(str(self.steps[0]), ABSENT)
        if len(self.steps) > 1 and isinstance(self.steps[1], int) and root is not ABSENT:
            if not isinstance(root, list):
                found = _TYPE_NAMES.get(type(root), type(root).__name__)
                return "wrong_type", f"{self} wants a list under {str(self.steps[0])!r}, not {found}"
            if self.steps[1] >= len(root):
                return (
                    "wrong_type",
                    f"{self} wants item {self.steps[1]} of {str(self.steps[0])!r}, a list of {len(root)}",
                )
        there = ", ".join(list(data)[:20]) or "none"
        return "missing_key", f"{self} asks for the key {self.key!r}; the keys that are there: {there}"

    def example(self) -> Any:
        """A value that would fit."""
        if self.url:
            return "https://example.com/text.txt"
        if self.tag == "Repeater":
            item: Any = {}
            for steps, tag in self.each:
                item = placed(item, steps, _example(tag, types_of(tag)))
            return [item]
        return _example(self.tag, self.types)

    def type_names(self) -> tuple[str, ...]:
        """The types that fit, in words."""
        return tuple(sorted({_TYPE_NAMES[kind] for kind in self.types} - {"boolean"}))

    def __str__(self) -> str:
        return f"<{self.tag}{f' name={self.name!r}' if self.name else ''}> (line {self.line})"


def _example(tag: str, types: frozenset[type]) -> Any:
    return _EXAMPLES.get(tag, [{"value": "One"}] if list in types else "https://example.com/file")


def placed(whole: Any, steps: Sequence[str | int], value: Any) -> Any:
    """A value of JSON with another one put where a path leads; what is missing on the way is made."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        parts = whole if isinstance(whole, dict) else {}
        return parts | {step: placed(parts.get(step), rest, value)}
    items = list(whole) if isinstance(whole, list) else []
    items += [placed(None, rest, value) for _ in range(step + 1 - len(items))]
    return [*items[:step], placed(items[step], rest, value), *items[step + 1 :]]


def asks_of(root: Element) -> tuple[Ask, ...]:
    """All that the configuration asks for, one for each variable, in the document's order."""
    found: dict[str, Ask] = {}
    for element, repeater in root.walk():
        ask = _ask(element, repeater)
        if ask is None:
            continue
        known = found.get(ask.key)
        if known is not None and known.tag == ask.tag == "Repeater":
            found[ask.key] = replace(known, each=known.each + ask.each)
        elif known is None or known.tag not in ("Video", "Repeater"):
            found[ask.key] = ask
    return tuple(found.values())


def _ask(element: Element, repeater: Element | None) -> Ask | None:
    attributes = element.attributes
    name = attributes.get("name", "")
    if element.tag == "Repeater":
        text = attributes.get("on", "")
    elif name:
        text = attributes.get("value") or attributes.get("valueList") or ""
    else:
        return None
    key = variable(text)
    if key is None:
        return None
    steps = steps_of(key)
    if not isinstance(steps[0], str):
        return None  # a path that begins with an index leads to no key
    if EACH in steps:
        return _repeated(element, repeater, steps)
    url = element.tag in ("Text", "HyperText") and attributes.get("valueType") == "url"
    types = types_of(element.tag)
    if "valueList" in attributes and "value" not in attributes:
        types |= _LIST
    if url or "resolver" in attributes:
        url, types = True, _STR
    return Ask(key, steps, element.tag, name, element.line, types, url)


def _repeated(element: Element, repeater: Element | None, steps: Steps) -> Ask:
    before, inner = steps[: steps.index(EACH)], steps[steps.index(EACH) + 1 :]
    source = repeater or element
    return Ask(
        ".".join(str(step) for step in before),
        before,
        "Repeater",
        source.attributes.get("name", ""),
        source.line,
        _LIST,
        each=() if EACH in inner else ((inner, element.tag),),
    )
