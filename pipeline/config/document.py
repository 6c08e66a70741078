"""A YAML file as plain values, and the line that each of them stands in.

Scalars follow YAML 1.2's core schema: `no`, `on`, `1:30` and `2026-11-01` are text. Only a whole quoted or
plain text is ever interpolated, once, after it was read: no environment variable can add a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import ConfigError

Path = tuple[str | int, ...]
"""Where a value stands: `("sources", 0, "url")`."""

DEPTH_LIMIT = 50
"""Deeper than any configuration; an alias that holds itself ends here."""
VALUES_LIMIT = 100_000
"""More than any configuration holds; aliases of aliases end here."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{([^}]*)\}?")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(slots=True)
class Document:
    """A file's values, and the line (from 1) of each path in it."""

    file: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """The line of a path, or of the nearest thing around it that is there."""
        for length in range(len(path), -1, -1):
            if (found := self.lines.get(path[:length])) is not None:
                return found
        return None

    def error(self, message: str, path: Path = (), *, hint: str = "", line: int | None = None) -> ConfigError:
        """A ConfigError at a path of this document."""
        return ConfigError(message, path=dotted(path), line=line or self.line(path), file=self.file, hint=hint)


def dotted(path: Path) -> str:
    """`sources.0.url`."""
    return ".".join(str(part) for part in path)


def read(text: str, file: str, environment: Mapping[str, str]) -> Document:
    """Read YAML text.

    Raises:
        ConfigError: it is no YAML, has a key twice, or names a variable that is not set.
    """
    document = Document(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise document.error(error.problem or "this is no YAML", line=line, hint=_tab_hint(text, line)) from None
    except yaml.YAMLError as error:
        raise document.error(f"this is no YAML: {error}") from None
    except RecursionError:
        raise document.error("this is nested too deeply") from None
    if root is not None:
        document.value = _Reader(document, environment).value(root, ())
    return document


def _tab_hint(text: str, line: int | None) -> str:
    lines = text.splitlines()
    if line is not None and line <= len(lines) and "\t" in lines[line - 1]:
        return "YAML is indented with spaces, not tabs"
    return ""


class _Reader:
    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._values = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if len(path) > DEPTH_LIMIT or self._values > VALUES_LIMIT:
            raise self._document.error("this is nested too deeply, or an alias holds itself", path[:3])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._document.error("a key must be a word", path, line=key.start_mark.line + 1)
            if key.value == "<<" and key.style is None:
                continue
            if key.value in values:
                first = self._document.lines[(*path, key.value)]
                raise self._document.error(
                    f"the key stands here a second time; the first is in line {first}",
                    (*path, key.value),
                    line=key.start_mark.line + 1,
                )
            self._document.lines[(*path, key.value)] = key.start_mark.line + 1
            values[key.value] = self.value(item, (*path, key.value))
        for merged in _merged(node):
            if not isinstance(merged, yaml.MappingNode):
                raise self._document.error("<< takes a mapping", path, line=merged.start_mark.line + 1)
            for key, item in self._mapping(merged, path).items():
                values.setdefault(key, item)
        return values

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        if node.style is not None:  # type: ignore[attr-defined]  # a node of this kind has a style
            return self._interpolated(text, path)
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return self._interpolated(text, path)

    def _interpolated(self, text: str, path: Path) -> str:
        def replace(found: re.Match[str]) -> str:
            name, default, wrong = found.groups()
            if found[0] == "$${":
                return "${"
            if name is None:
                raise self._document.error(
                    f"${{{wrong}}} is no variable", path, hint="write ${NAME}, ${NAME:-default}, or $${ for the text ${"
                )
            value = self._environment.get(name)
            value = default if default is not None and not value else value
            if value is None:
                raise self._document.error(
                    f"the environment has no {name}", path, hint=f"set it, or write ${{{name}:-default}}"
                )
            return value

        return _VARIABLE.sub(replace, text)


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    for key, item in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None:
            yield from item.value if isinstance(item, yaml.SequenceNode) else (item,)
