"""The shape of the models: which keys stand where. Errors, hints and the reference page are made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.config.models import Config
from pipeline.config.values import FromFile, Model

Path = tuple[str | int, ...]


def fields_of(model: type[Model]) -> dict[str, FieldInfo]:
    """The keys of a model, its own before those that it inherits, each with its field."""
    own = sorted(model.model_fields, key=lambda name: name not in model.__annotations__)
    return {
        model.model_fields[name].alias or name: model.model_fields[name]
        for name in own
        if not (model is Config and name == "folder")
    }


def from_file(info: FieldInfo) -> bool:
    """Whether the value may also stand in a file of its own, which `NAME_file` names."""
    return any(isinstance(mark, FromFile) for mark in info.metadata) or _marked(info.annotation)


def keys_of(model: type[Model]) -> list[str]:
    """All keys that a mapping of this model may have."""
    fields = fields_of(model)
    return [*fields, *(f"{key}_file" for key, info in fields.items() if from_file(info))]


def nested(info: FieldInfo) -> tuple[type[Model], str] | None:
    """The model that a field holds, and how: `one`, `list` or `dict`; None where it holds none."""
    origin, arguments = get_origin(info.annotation), get_args(info.annotation)
    for candidate in (info.annotation, *arguments):
        if isinstance(candidate, type) and issubclass(candidate, Model):
            return candidate, {tuple: "list", dict: "dict"}.get(origin, "one")  # type: ignore[arg-type]  # any origin
    return None


def models_in(value: Any, model: type[Model], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any], type[Model]]]:
    """Every mapping of a document that stands for a model, however wrong the values around it are."""
    if not isinstance(value, dict):
        return
    yield path, value, model
    for key, info in fields_of(model).items():
        inner = nested(info)
        if inner is None or key not in value:
            continue
        below, here = value[key], (*path, key)
        if inner[1] == "one":
            yield from models_in(below, inner[0], here)
        elif inner[1] == "dict" and isinstance(below, dict):
            for name, item in below.items():
                yield from models_in(item, inner[0], (*here, name))
        elif inner[1] == "list" and isinstance(below, list | tuple):
            for index, item in enumerate(below):
                yield from models_in(item, inner[0], (*here, index))


def at(value: Any, path: Path) -> Any:
    """What stands at a path of a document; None where nothing does."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _marked(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return any(isinstance(mark, FromFile) for mark in annotation.__metadata__)
    return any(_marked(part) for part in get_args(annotation))
