"""From a file to a Config: every error says where it stands, in which line, and what was probably meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import document
from pipeline.config.checks import conflicts
from pipeline.config.document import Document
from pipeline.config.models import Config
from pipeline.config.routing import routed
from pipeline.config.shape import at, fields_of, from_file, keys_of, models_in
from pipeline.config.values import Model
from pipeline.errors import ConfigError, UsageError

DEFAULT_NAME = "labelfeed.yaml"
FILE_LIMIT_BYTES = 4 * 1024 * 1024
"""A configuration, a labelling configuration or a secret that is larger than this is a mistake."""

_MESSAGES = {
    "missing": "this key is required",
    "string_type": "this must be text",
    "int_parsing": "this must be a whole number",
    "int_type": "this must be a whole number",
    "float_parsing": "this must be a number",
    "float_type": "this must be a number",
    "bool_parsing": "this must be true or false",
    "bool_type": "this must be true or false",
    "dict_type": "this must be a mapping of names",
    "tuple_type": "this must be a list",
    "model_type": "this must be a mapping of keys",
}


def load(path: str | Path | None = None, *, environment: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file; without a path, `labelfeed.yaml` in the current folder.

    `environment` stands in for the process's own. Labelling configurations that are named by their path
    are read here too, so that `label_config` always holds the XML.

    Raises:
        ConfigError: the file is wrong; further errors, if there are any, are its notes.
        UsageError: the file can't be read.
    """
    place = Path(DEFAULT_NAME if path is None else path)
    try:
        text = _read_file(place)
    except FileNotFoundError:
        advice = "; `labelfeed init` writes one to start from" if path is None else ""
        raise UsageError(f"there is no {place}{advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read: {_why(error)}") from None
    found = document.read(text, str(place), os.environ if environment is None else environment)
    return _build(found, place.absolute().parent)


def build(values: Mapping[str, Any], folder: Path) -> Config:
    """A configuration made in memory, checked in the same way as a file. Raises ConfigError."""
    return _build(Document("", dict(values), {}), folder.absolute())


def _build(found: Document, folder: Path) -> Config:
    values = {} if found.value is None else found.value
    if not isinstance(values, dict):
        raise found.error("a configuration is a mapping of keys", hint="database:, projects:, sources:")
    _complete(found, values, folder)
    _raise(list(_unknown_keys(found, values, Config)))
    try:
        config = Config.model_validate(values | {"folder": folder})
    except ValidationError as error:
        _raise([_explained(found, details) for details in error.errors(include_url=False, include_input=False)])
        raise
    _raise([found.error(message, path, hint=hint) for path, message, hint in conflicts(config)])
    return config.model_copy(update={"sources": tuple(routed(config.sources))})


def _raise(errors: list[ConfigError]) -> None:
    if not errors:
        return
    first, *others = sorted(errors, key=lambda error: error.line or 0)
    for other in others:
        first.add_note(str(other))
    raise first


# --- what stands in other files ------------------------------------------------------------------------


def _complete(found: Document, values: dict[str, Any], folder: Path) -> None:
    for path, mapping, model in models_in(values, Config):
        for key, info in fields_of(model).items():
            if from_file(info):
                _take_file(found, mapping, (*path, key), folder)
    projects = values.get("projects")
    for name, project in projects.items() if isinstance(projects, dict) else ():
        text = project.get("label_config") if isinstance(project, dict) else None
        if isinstance(text, str) and not text.lstrip().startswith("<"):
            path = ("projects", name, "label_config")
            project["label_config"] = _label_config(found, path, folder / Path(text).expanduser())


def _take_file(found: Document, mapping: dict[str, Any], path: document.Path, folder: Path) -> None:
    key = str(path[-1])
    if f"{key}_file" not in mapping:
        return
    place = (*path[:-1], f"{key}_file")
    if key in mapping:
        raise found.error(f"{key} and {key}_file are both given", place, hint="keep one of them")
    name = mapping.pop(f"{key}_file")
    try:
        mapping[key] = _read_file(folder / Path(str(name)).expanduser()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise found.error(f"{name} cannot be read: {_why(error)}", place) from None


def _label_config(found: Document, path: document.Path, place: Path) -> str:
    try:
        text = _read_file(place)
    except (OSError, UnicodeDecodeError) as error:
        raise found.error(
            f"{place.name} cannot be read: {_why(error)}",
            path,
            hint="a file beside the configuration, or the XML itself",
        ) from None
    if not text.lstrip().startswith("<"):
        raise found.error(f"{place.name} holds no XML", path)
    return text


def _read_file(place: Path) -> str:
    with place.open("rb") as file:
        content = file.read(FILE_LIMIT_BYTES + 1)
    if len(content) > FILE_LIMIT_BYTES:
        raise OSError(f"it is larger than {FILE_LIMIT_BYTES} bytes")
    return content.decode("utf-8-sig")


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return (error.strerror or str(error)).lower()


# --- errors ------------------------------------------------------------------------------------------------


def _unknown_keys(found: Document, values: dict[str, Any], root: type[Model]) -> Iterator[ConfigError]:
    for path, mapping, model in models_in(values, root):
        keys = keys_of(model)
        for key in mapping:
            if key not in keys:
                yield found.error("there is no such key", (*path, key), hint=_nearest(key, keys))


def _nearest(word: str, words: list[str]) -> str:
    near = get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(words)}"


def _explained(found: Document, details: Any) -> ConfigError:
    path: document.Path = tuple(part for part in details["loc"] if not str(part).startswith("function-"))
    kind, context = details["type"], details.get("ctx", {})
    if kind == "literal_error":
        words = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        value = str(at(found.value, path))
        return found.error(f"{value!r} is not one of {', '.join(words)}", path, hint=_nearest_only(value, words))
    if kind == "missing":
        return found.error(_MESSAGES[kind], path, hint=_parent(path))
    if kind == "string_pattern_mismatch":
        return found.error(
            "a name is letters, digits, dots, dashes and underscores, at most 63, and begins with a letter or digit",
            path,
        )
    message = _MESSAGES.get(kind) or str(details["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return found.error(message, path)


def _nearest_only(word: str, words: list[str]) -> str:
    near = get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def _parent(path: document.Path) -> str:
    return f"of {document.dotted(path[:-1])}" if len(path) > 1 else "at the top of the file"
