"""What the configuration's values may be: durations, sizes, secrets and their like, and what all its models share."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from ipaddress import ip_network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr, WithJsonSchema

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "b": 1,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4,
}  # fmt: skip


def parse_duration(value: object) -> float:
    """Seconds of `30s`, `1h30m`, `250ms` or a plain number of seconds.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)|\s", "", text):
        raise ValueError(f"{value!r} is no duration; write it like 30s, 5m or 1h30m")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def parse_size(value: object) -> int:
    """Bytes of `50MB` (1000s), `64MiB` (1024s) or a plain number of bytes.

    Raises:
        ValueError: the text is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b)?", str(value).strip().lower())
    if not found:
        raise ValueError(f"{value!r} is no size; write it like 50MB or 64MiB")
    return int(float(found[1]) * _SIZE_UNITS[found[2] or "b"])


def parse_age(value: object) -> float | datetime:
    """Seconds of a duration such as `30d`, or the moment of a date (or date and time) such as `2026-01-31`, in UTC
    where it names no zone.

    Raises:
        ValueError: the text is neither.
    """
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, str) and re.match(r"\s*\d{4}-", value):
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return parse_duration(value)


def parse_bound(value: object) -> int | float:
    """A number of rows, or as a fraction of 1 the share that a text like `5%` means.

    Raises:
        ValueError: the text is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, int) or 0 < value <= 1):
        found = value
    else:
        text = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", str(value).strip())
        if not text or float(text[2] or 0) > 100:  # noqa: PLR2004 - all of them
            raise ValueError(f"{value!r} is no number of rows and no share; write it like 100 or 5%")
        found = int(text[1]) if text[1] else float(text[2]) / 100
    if found < 0:
        raise ValueError(f"{value!r} is less than none")
    return found


def parse_networks(value: object) -> bool | tuple[str, ...]:
    """What `allow_private` says: all of them or none, or the networks that are meant.

    Raises:
        ValueError: a text is no address and no network.
    """
    if isinstance(value, bool):
        return value
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (str(value),)
    for text in texts:
        try:
            ip_network(str(text), strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network; write it like 10.1.0.0/16, or say true") from None
    return tuple(str(text) for text in texts)


def parse_headers(value: object) -> object:
    """Headers of a mapping, or of text with a `Name: value` in each line, as `headers_file` holds it."""
    if not isinstance(value, str):
        return value
    rows = (line.partition(":") for line in value.splitlines() if line.strip())
    return {name.strip(): text.strip() for name, _, text in rows}


Duration = Annotated[float, BeforeValidator(parse_duration), Field(json_schema_extra={"type": ["string", "number"]})]
Age = Annotated[float | datetime, BeforeValidator(parse_age), WithJsonSchema({"type": ["string", "number"]})]
Size = Annotated[int, BeforeValidator(parse_size), Field(json_schema_extra={"type": ["string", "integer"]})]
RowBound = Annotated[
    int | float, BeforeValidator(parse_bound), WithJsonSchema({"type": ["integer", "number", "string"]})
]
Networks = Annotated[
    bool | tuple[str, ...], BeforeValidator(parse_networks), WithJsonSchema({"type": ["boolean", "string", "array"]})
]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Globs = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class FromFile:
    """Marks a field that a file may hold instead: the key `NAME_file` names the file."""


LINK_KEY_CHARACTERS = 16
Secret = Annotated[SecretStr, PlainSerializer(lambda _: "***", return_type=str), FromFile()]
Secrets = Annotated[
    tuple[Secret, ...], BeforeValidator(lambda value: value.split() if isinstance(value, str) else value)
]
SecretURL = Annotated[str, FromFile()]
"""A URL that may hold a password."""


class Model(BaseModel):
    """What all parts of the configuration share: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
