"""The labelling configuration's XML as a tree of elements that know where they stand.

Entities and everything external are refused, so that no configuration can read a file, reach a network or
grow in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from pipeline.errors import ConfigError

MAX_BYTES = 4 * 1024 * 1024
"""A configuration larger than this is refused."""
MAX_DEPTH = 200
"""Elements that may lie within each other."""


@dataclass(slots=True)
class Element:
    """One element: its tag, attributes, place (both from 1) and children."""

    tag: str
    attributes: dict[str, str]
    line: int
    column: int
    children: list[Element] = field(default_factory=list)

    def walk(self, repeated: Element | None = None) -> Iterator[tuple[Element, Element | None]]:
        """This element and all below in document order, each with the Repeater that it stands in."""
        yield self, repeated
        within = self if self.tag == "Repeater" else repeated
        for child in self.children:
            yield from child.walk(within)


def refuse(message: str, line: int, column: int, hint: str = "") -> NoReturn:
    """Raise the ConfigError of a place in the configuration."""
    raise ConfigError(f"line {line}, column {column}: {message}", path="label_config", line=line, hint=hint)


def read(xml: str) -> Element:
    """The root element.

    Raises:
        ConfigError: it is no XML, declares entities, or is too large or too deep; with line and column.
    """
    try:
        content = xml.encode()
    except UnicodeEncodeError:
        raise ConfigError("line 1, column 1: not valid text", path="label_config", line=1) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"line 1, column 1: larger than {MAX_BYTES} bytes", path="label_config", line=1)
    return _Reader().read(content)


class _Reader:
    """Builds the tree from expat's calls."""

    def __init__(self) -> None:
        self.top = Element("", {}, 1, 1)
        self.open = [self.top]
        self.expat = expat.ParserCreate("utf-8")
        self.expat.buffer_text = True
        self.expat.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.EntityDeclHandler = self._entity
        self.expat.ExternalEntityRefHandler = self._entity
        self.expat.SkippedEntityHandler = self._entity

    def read(self, content: bytes) -> Element:
        try:
            self.expat.Parse(content, True)  # noqa: FBT003 - its parameters have no names
        except expat.ExpatError as error:
            refuse(f"not XML: {expat.ErrorString(error.code)}", error.lineno, error.offset + 1)
        return self.top.children[0]

    def _place(self) -> tuple[int, int]:
        return self.expat.CurrentLineNumber, self.expat.CurrentColumnNumber + 1

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self.open) > MAX_DEPTH:
            refuse(f"elements lie deeper than {MAX_DEPTH}", *self._place())
        element = Element(tag, attributes, *self._place())
        self.open[-1].children.append(element)
        self.open.append(element)

    def _end(self, _: str) -> None:
        self.open.pop()

    def _entity(self, *_: object) -> NoReturn:
        refuse("entities and external references are switched off", *self._place())
