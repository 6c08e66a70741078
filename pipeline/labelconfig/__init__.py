"""The labelling configuration: what it asks of a task's data, and whether a task gives it.

It is read once for each project and looked at once for each task, so `check` and `fits_all` are compiled
into lookups when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pipeline.labelconfig.asks import Ask, asks_of, placed, type_name, variable
from pipeline.labelconfig.controls import Control, complaint, control_of, pattern_of
from pipeline.labelconfig.markup import Element, read, refuse
from pipeline.labelconfig.resolver import Resolver, resolver_of

__all__ = ["Ask", "Control", "Dialogue", "LabelConfig", "Resolver", "type_name"]

_KIND_TAGS = {
    "image": ("Image",),
    "audio": ("Audio", "AudioPlus"),
    "video": ("Video",),
    "document": ("Pdf",),
    "timeseries": ("TimeSeries",),
}
_NO_TYPE = frozenset({type(Ellipsis)})
_FILES = {
    "Image": "image files", "Audio": "audio files", "AudioPlus": "audio files", "Video": "video files",
    "Pdf": ".pdf", "TimeSeries": ".csv, .tsv and .json of columns", "HyperText": ".html .htm .xml",
    "Paragraphs": ".json that is a list of turns",
}  # fmt: skip
_BODIES = ("Text", "Header", "HyperText", "Paragraphs", "Chat", "Taxonomy")
"""Tags that show a text as it is; others take it for the URL of a file."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The Paragraphs tag: the data key, and the keys that each turn must have."""

    key: str
    name_key: str
    text_key: str


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """A labelling configuration. Make it with `parse`; it does not change."""

    xml: str
    asks: tuple[Ask, ...]
    controls: tuple[Control, ...]
    resolvers: tuple[Resolver, ...]
    dialogue: Dialogue | None
    base64_keys: frozenset[str]
    _simple: tuple[tuple[str, frozenset[type], Ask], ...]
    _other: tuple[Ask, ...]
    _plain: dict[str, Control]
    _repeated: tuple[tuple[re.Pattern[str], Control], ...]

    @classmethod
    def parse(cls, xml: str) -> LabelConfig:
        """Read a configuration.

        Raises:
            ConfigError: it is no XML or cannot be used; the message has line and column.
        """
        root = read(xml)
        asks = asks_of(root)
        elements = [element for element, _ in root.walk()]
        controls = tuple(control for element in elements if (control := control_of(element)) is not None)
        _check_names(elements)
        found = (resolver_of(element, variable(element.attributes.get("value", ""))) for element in elements)
        patterns = ((pattern_of(control.name), control) for control in controls)
        return cls(
            xml=xml,
            asks=asks,
            controls=controls,
            resolvers=tuple(resolver for resolver in found if resolver is not None),
            dialogue=_dialogue(elements),
            base64_keys=_base64_keys(elements),
            _simple=tuple((ask.key, ask.types, ask) for ask in asks if ask.simple),
            _other=tuple(ask for ask in asks if not ask.simple),
            _plain={control.name: control for control in controls},
            _repeated=tuple((pattern, control) for pattern, control in patterns if pattern is not None),
        )

    @property
    def data_keys(self) -> tuple[str, ...]:
        """The keys that a task's data must have, in the configuration's order."""
        return tuple(dict.fromkeys(ask.data_key for ask in self.asks))

    def key_of(self, kind: str) -> str | None:
        """The first key of a tag made for this kind of media (`image`, `audio`, `video`, `document`, `timeseries`)."""
        tags = _KIND_TAGS.get(kind, ())
        return next((ask.data_key for ask in self.asks if ask.tag in tags), None)

    @property
    def text_by_url(self) -> bool:
        """Whether the only data tag is a Text or HyperText that shows what a URL leads to."""
        return (
            len(self.asks) == 1
            and self.asks[0].url
            and self.asks[0].tag in ("Text", "HyperText")
            and not self.resolvers
        )

    def takes_number(self, key: str) -> bool:
        """Whether a number may stand under this key; so it may where nothing asks for it."""
        return all(int in ask.types for ask in self.asks if ask.data_key == key)

    def control(self, name: str) -> Control | None:
        """The control of this name."""
        return self._plain.get(name)

    def check(self, data: dict[str, Any]) -> tuple[str, str] | None:
        """Why a task's data does not fit, as (code, message); None if it does.

        Codes: `missing_key`, `wrong_type`. The message speaks of the configuration's tags.
        """
        for key, types, ask in self._simple:
            if type(data.get(key, ask)) not in types:
                return ask.complaint(data)
        for ask in self._other:
            found = ask.complaint(data)
            if found is not None:
                return found
        return None

    def fits_all(self, datas: Sequence[dict[str, Any]]) -> bool:
        """Whether the data of all these tasks fits; False may also mean that `check` must look at each."""
        try:
            for key, types, _ in self._simple:
                if not types.issuperset(map(type, map(itemgetter(key), datas))):
                    return False
        except KeyError:
            return False
        return not self._other or all(self.check(data) is None for data in datas)

    def fits_types(self, types: Mapping[str, frozenset[type]]) -> bool:
        """Whether all data with values of these types under these keys fits; False may also mean that it depends."""
        return not self._other and all(wanted.issuperset(types.get(key, _NO_TYPE)) for key, wanted, _ in self._simple)

    def check_strict(self, annotations: Sequence[Any] = (), predictions: Sequence[Any] = ()) -> tuple[str, str] | None:
        """Why annotations or predictions (lists of objects with `result`) do not fit; None if they do.

        Codes: `annotation`, `prediction`. Held against: from_name, to_name, type and labels.
        """
        for code, items in (("annotation", annotations), ("prediction", predictions)):
            for number, item in enumerate(items, 1):
                for result in item.get("result") or ():
                    why = complaint(result, self._plain, self._repeated)
                    if why is not None:
                        return code, f"{code} {number}: {why}"
        return None

    def told(self) -> list[str]:
        """What the configuration asks for in its own words: each tag's line, and the types that it takes."""
        lines = self.xml.splitlines()
        return [
            f"line {ask.line}: {lines[ask.line - 1].strip()} takes {' or '.join(ask.type_names())} under {ask.key}"
            for ask in self.asks
        ]

    def example(self) -> dict[str, Any]:
        """The data of a task that would fit."""
        data: dict[str, Any] = {}
        for ask in self.asks:
            data = placed(data, ask.steps, ask.example())
        return data

    def feeds(self) -> tuple[str, ...]:
        """The kinds of file that may feed the configuration, in words."""
        keys = self.data_keys
        if not keys:
            return ("task JSON, CSV and TSV with any keys",)
        # A cell of a table is no list and no object.
        flat = all(str in ask.types for ask in self.asks)
        tasks = ("task JSON, CSV and TSV" if flat else "task JSON") + " with " + ", ".join(keys)
        if len(keys) > 1:
            return (tasks,)
        ask = self.asks[0]
        if self.text_by_url:
            return (tasks, ".txt and .html, by their URL")
        lines = (
            ()
            if str not in ask.types
            else (".txt, a line each" if ask.tag in _BODIES else ".txt of URLs, a line each",)
        )
        return (tasks, *[_FILES[one.tag] for one in self.asks if one.tag in _FILES], *lines)


def _check_names(elements: Sequence[Element]) -> None:
    names: set[str] = set()
    for element in elements:
        name = element.attributes.get("name")
        if name and name in names:
            refuse(f"two tags have the name {name!r}", element.line, element.column)
        names.add(name or "")
    for element in elements:
        control = control_of(element)
        if control is None:
            continue
        for target in control.to_names:
            if target not in names:
                refuse(
                    f"<{element.tag} name={control.name!r}> has toName {target!r}, which no tag is called",
                    element.line,
                    element.column,
                )


def _dialogue(elements: Sequence[Element]) -> Dialogue | None:
    for element in elements:
        key = variable(element.attributes.get("value", "")) if element.tag == "Paragraphs" else None
        if key is not None:
            given = element.attributes
            return Dialogue(key, given.get("nameKey", "author"), given.get("textKey", "text"))
    return None


def _base64_keys(elements: Sequence[Element]) -> frozenset[str]:
    keys = (variable(e.attributes.get("value", "")) for e in elements if e.attributes.get("encoding") == "base64")
    return frozenset(key for key in keys if key)
