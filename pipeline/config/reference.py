"""The configuration described, from its own models: a JSON Schema for editors and a page for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config.models import Config
from pipeline.config.shape import fields_of, from_file, nested
from pipeline.config.values import Model

_DURATIONS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def schema() -> dict[str, Any]:
    """The JSON Schema of `labelfeed.yaml`."""
    document: dict[str, Any] = Config.model_json_schema(by_alias=True, mode="validation")
    for name, part in [("Config", document), *document.get("$defs", {}).items()]:
        model = next((found for found in _models(Config) if found.__name__ == name), None)
        if model is not None:
            _add_files(part, model)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "labelfeed.yaml"} | {
        key: value for key, value in document.items() if key != "title"
    }


def page() -> str:
    """`docs/configuration.md` after its introduction: a table for each part of the file."""
    return "\n".join(line for model in _models(Config) for line in _table(model))


def _add_files(part: dict[str, Any], model: type[Model]) -> None:
    for key, info in fields_of(model).items():
        if from_file(info):
            part["properties"][f"{key}_file"] = {"type": "string", "description": f"A file that holds `{key}`."}


def _models(root: type[Model]) -> Iterator[type[Model]]:
    yield root
    for info in fields_of(root).values():
        inner = nested(info)
        if inner is not None:
            yield from _models(inner[0])


_TITLES = {
    "Config": "The file",
    "Project": "`projects.<name>`",
    "Throttle": "`projects.<name>.throttle`",
    "Delivery": "`projects.<name>.deliveries[]`",
    "LabelStudio": "`projects.<name>.deliveries[].label_studio`",
    "JsonLines": "`projects.<name>.deliveries[].jsonl`",
    "Source": "`sources[]`",
    "Route": "`sources[].routes[]`",
    "Http": "`sources[].http`",
    "Links": "`links`",
    "Limits": "`limits`",
    "Server": "`server`",
}


_MIXED = {
    ("string", "number"): "duration",
    ("string", "integer"): "size",
    ("integer", "number", "string"): "whole number or share",
    ("boolean", "string", "array"): "true, false or networks",
}


def _table(model: type[Model]) -> Iterator[str]:
    yield f"## {_TITLES[model.__name__]}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
    yield "| key | takes | default | meaning |"
    yield "| --- | --- | --- | --- |"
    properties = Config.model_json_schema(by_alias=True)
    own = properties if model is Config else properties["$defs"][model.__name__]
    for key, info in fields_of(model).items():
        name = f"`{key}`" + (f", `{key}_file`" if from_file(info) else "")
        yield f"| {name} | {_takes(own['properties'][key], info)} | {default(info)} | {info.description} |"
    yield ""


def _takes(part: dict[str, Any], info: FieldInfo) -> str:
    if (inner := nested(info)) is not None:
        return {"one": "keys", "list": "list", "dict": "names"}[inner[1]]
    options = part.get("anyOf", [part])
    words = [word for option in options for word in _words(option, info) if word != "null"]
    return ", ".join(dict.fromkeys(words))


def _words(option: dict[str, Any], info: FieldInfo) -> list[str]:
    if "enum" in option:
        return [f"`{word}`" for word in option["enum"]]
    if "const" in option:
        return [f"`{option['const']}`"]
    kind = option.get("type", "text")
    if isinstance(kind, list):
        return [_MIXED[tuple(kind)]]
    if kind == "array":
        return ["text or list"] if info.description and "lobs" in info.description else ["list"]
    return [{"string": "text", "boolean": "true, false", "integer": "whole number"}.get(str(kind), str(kind))]


def default(info: FieldInfo) -> str:
    """A field's default as it would be written, in Markdown."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=False)
    if value is None or value is PydanticUndefined or value == ():
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_human(value, info)}`"


def _human(value: Any, info: FieldInfo) -> str:
    kind = (info.json_schema_extra or {}).get("type") if isinstance(info.json_schema_extra, dict) else None
    units = {"number": _DURATIONS, "integer": _SIZES}.get(str(kind[-1]) if isinstance(kind, list) else "", ())
    for size, unit in units:
        if value and value % size == 0:
            return f"{value / size:g}{unit}"
    return f"{value:g}" if isinstance(value, float) else str(value)
