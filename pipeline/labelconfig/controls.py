"""The controls of a configuration, and whether annotations and predictions speak of controls that exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.labelconfig.asks import variable
from pipeline.labelconfig.markup import Element, refuse

_OPTION_TAGS = frozenset({"Choice", "Label"})
_VALUE_KEYS = {"textarea": "text"}
_PAIRWISE = frozenset({"left", "right"})
_INDEX = re.compile(r"\\\{\\\{\w+\\\}\\\}")
_MANY = 20
"""So many names are shown in a message, not more."""


@dataclass(frozen=True, slots=True)
class Control:
    """A tag by which people label: `name`, the objects it labels, its tag, and what may be chosen.

    `options` is None where the choices come with each task or where anything may be given.
    """

    name: str
    to_names: tuple[str, ...]
    tag: str
    line: int
    options: frozenset[str] | None

    @property
    def type(self) -> str:
        """The `type` of its results."""
        return self.tag.lower()

    @property
    def value_key(self) -> str:
        """The key in a result's value that holds what was chosen."""
        return _VALUE_KEYS.get(self.type, self.type)

    def result(self, value: Any) -> dict[str, Any]:
        """A result of this control: an object is its value as it is, anything else is what was chosen."""
        if isinstance(value, str) and self.value_key not in ("number", "rating", "datetime"):
            value = [value]
        chosen = value if isinstance(value, dict) else {self.value_key: value}
        return {"from_name": self.name, "to_name": self.to_names[0], "type": self.type, "value": chosen}


def control_of(element: Element) -> Control | None:
    """The control that an element is, if it is one."""
    attributes = element.attributes
    name, to_name = attributes.get("name"), attributes.get("toName")
    if not name or not to_name:
        return None
    targets = tuple(part.strip() for part in to_name.split(",") if part.strip())
    if not targets:
        refuse(f"<{element.tag} name={name!r}> has an empty toName", element.line, element.column)
    return Control(name, targets, element.tag, element.line, _options(element))


def _options(element: Element) -> frozenset[str] | None:
    attributes = element.attributes
    if element.tag == "Pairwise":
        return _PAIRWISE
    dynamic = any(variable(attributes.get(name, "")) for name in ("value", "valueList")) or "apiUrl" in attributes
    found: set[str] = set()
    for child, _ in element.walk():
        if child.tag in _OPTION_TAGS:
            texts = [child.attributes[key] for key in ("value", "alias") if child.attributes.get(key)]
            dynamic = dynamic or any(variable(text) for text in texts)
            found.update(texts)
    return frozenset(found) if found and not dynamic else None


def pattern_of(name: str) -> re.Pattern[str] | None:
    """What the names of a repeated tag look like; None for a tag that is not repeated."""
    if "{{" not in name:
        return None
    return re.compile(_INDEX.sub(r"\\d+", re.escape(name)))


def complaint(
    result: object, controls: Mapping[str, Control], repeated: Iterable[tuple[re.Pattern[str], Control]]
) -> str | None:
    """Why one result does not fit the configuration, or None if it does."""
    if not isinstance(result, dict):
        return "a result is no object"
    if result.get("type") == "relation":
        return None
    name = result.get("from_name")
    control = controls.get(name) if isinstance(name, str) else None
    if control is None and isinstance(name, str):
        control = next((known for pattern, known in repeated if pattern.fullmatch(name)), None)
    if control is None:
        return f"from_name {_show(name)} is none of the controls {_listing(controls)}"
    if not _targets(control, result.get("to_name")):
        return f"to_name {_show(result.get('to_name'))}: {control.name!r} labels {', '.join(control.to_names)}"
    if result.get("type") != control.type:
        return f"type {_show(result.get('type'))}: the control {control.name!r} gives {control.type!r}"
    return _options_complaint(control, result.get("value"))


def _targets(control: Control, to_name: object) -> bool:
    if not isinstance(to_name, str):
        return False
    if all(part in control.to_names for part in to_name.split(",")):
        return True
    patterns = (pattern_of(name) for name in control.to_names)
    return any(pattern is not None and pattern.fullmatch(to_name) for pattern in patterns)


def _options_complaint(control: Control, value: object) -> str | None:
    if not isinstance(value, dict):
        return f"the value for {control.name!r} is no object"
    if control.options is None or control.value_key not in value:
        return None
    chosen = value["selected"] if control.tag == "Pairwise" and "selected" in value else value[control.value_key]
    for text in _leaves(chosen):
        if text not in control.options:
            return f"{_show(text)} is none of what {control.name!r} offers: {_listing(control.options)}"
    return None


def _leaves(chosen: object) -> list[object]:
    if not isinstance(chosen, list):
        return [chosen]
    flat: list[object] = []
    for item in chosen:
        flat.extend(item if isinstance(item, list) else [item])
    return [item if isinstance(item, str) else str(item) for item in flat]


def _show(value: object) -> str:
    return repr(value)[:200]


def _listing(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:_MANY]) + (", …" if len(found) > _MANY else "")
