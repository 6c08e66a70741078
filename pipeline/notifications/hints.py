"""What all notifications have in common: where they lead, and what they say of one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pipeline.events import EventKind, ObjectEvent, Sequencer


class Target(NamedTuple):
    """An object of ours that a store's message concerns.

    `by_version_id` says that its store names contents by version ids; a message without one then names none.
    """

    source: str
    key: str
    by_version_id: bool = False


Route = Callable[[str, str], Iterable[Target]]
"""Bucket and whole key → the objects of ours that this is; none if no source covers it."""


class Hint(NamedTuple):
    """What a message says of one object. `etag` as it came, `size` in bytes, `at` in seconds since 1970."""

    bucket: str
    key: str
    kind: EventKind
    etag: str | None = None
    version_id: str | None = None
    sequencer: Sequencer | None = None
    size: int | None = None
    at: float = 0.0


def events_of(hint: Hint, route: Route) -> Iterator[ObjectEvent]:
    """The events of every object of ours that a hint concerns."""
    for target in route(hint.bucket, hint.key):
        yield ObjectEvent(
            source=target.source,
            key=target.key,
            kind=hint.kind,
            version=None if hint.kind == "deleted" else _version(hint, by_id=target.by_version_id),
            sequencer=hint.sequencer,
            size=hint.size,
            modified=hint.at or None,
            discovered_by="notification",
            time=hint.at,
        )


def _version(hint: Hint, *, by_id: bool) -> str | None:
    if by_id and hint.version_id is None:
        return None
    return version_name(hint.etag, hint.version_id if by_id else None)


def version_name(etag: str | None, version_id: str | None) -> str | None:
    """The name of an object's content: the version id where versioning gave it one, else the ETag, bare.

    An object of S3 from before versioning, or from while it was suspended, has the id `null`, as every later one
    of its kind has: that names nothing.
    """
    if version_id and version_id != "null":
        return version_id
    return (etag or "").removeprefix("W/").strip('"') or None


def part(document: Any, name: str) -> Any:
    """A part that must be there. Raises ValueError."""
    if not isinstance(document, dict) or name not in document:
        raise ValueError(f"a notification without {name}")
    return document[name]


def text(value: Any) -> str:
    """A text that must not be empty. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"a name that is no text: {value!r}")
    return value


def optional(document: Mapping[str, Any], name: str) -> str | None:
    """A text that may be missing."""
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def whole(document: Mapping[str, Any], name: str) -> int | None:
    """A whole number that may be missing."""
    value = document.get(name)
    return value if isinstance(value, int) else None


def seconds(value: Any) -> float:
    """A time in seconds since 1970; 0 if it is none."""
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
