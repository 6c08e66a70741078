"""Notifications of Google Cloud Storage, as Pub/Sub brings them: attributes that say what happened to which
generation of an object, and the object's description as data, or none."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from pipeline.events import EventKind, ObjectEvent, Sequencer
from pipeline.notifications.hints import Hint, Route, events_of, optional, part, seconds, text

SCHEME = "gs://"
"""A bucket is told to routes with it: one of another cloud may have the same name."""

_SIZE_DIGITS = 18
"""A size of more of them is none, and no database's integer holds it."""

_KINDS: Mapping[str, EventKind] = {
    "OBJECT_FINALIZE": "created",
    "OBJECT_METADATA_UPDATE": "updated",
    "OBJECT_DELETE": "deleted",
    "OBJECT_ARCHIVE": "deleted",
}
"""What a bucket with versioning calls archived is no longer the live version, and so gone for us."""


def decode_message(attributes: Mapping[str, Any], data: bytes, route: Route) -> list[ObjectEvent]:
    """The events in a message of Pub/Sub; an empty list where it speaks of nothing that concerns us.

    Raises:
        ValueError: it is no notification of Google Cloud Storage; its text says what is missing.
    """
    return [*events_of(_hint(attributes, data), route)]


def to_document(attributes: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """A message as the JSON document that Pub/Sub pushes, which `hints` reads."""
    return {"message": {"attributes": dict(attributes), "data": base64.b64encode(data).decode()}}


def hints(document: Mapping[str, Any]) -> Iterator[Hint] | None:
    """What the document says; None if it is no message that Pub/Sub pushes. Raises ValueError if it says nothing."""
    message = document.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("attributes"), dict):
        return None
    try:
        data = base64.b64decode(str(message.get("data") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a message whose data is no base64") from None
    return iter([_hint(message["attributes"], data)])


def _hint(attributes: Mapping[str, Any], data: bytes) -> Hint:
    """An overwritten generation is told of twice, in either order: the new one is finalized, and the old one is
    deleted or archived. Both lead to the new one."""
    name = text(part(attributes, "eventType"))
    bucket, key = SCHEME + text(part(attributes, "bucketId")), text(part(attributes, "objectId"))
    at = seconds(attributes.get("eventTime"))
    kind = _KINDS.get(name)
    if kind is None:
        return Hint(bucket, key, "updated", at=at)
    generation = _generation(part(attributes, "objectGeneration"))
    follower = optional(attributes, "overwrittenByGeneration") if kind == "deleted" else None
    if follower is not None:
        kind, generation = "updated", _generation(follower)
    size = _size(data) if kind != "deleted" and follower is None else None
    return Hint(bucket, key, kind, generation, generation, Sequencer("gcs", generation), size, at)


def _generation(value: Any) -> str:
    found = text(value)
    if not found.isascii() or not found.isdigit():
        raise ValueError(f"a generation that is no number: {found!r}")
    return found


def _size(data: bytes) -> int | None:
    """Bytes, as the object's description says them: as text."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    said = str(document.get("size")) if isinstance(document, dict) else ""
    return int(said) if said.isascii() and said.isdigit() and len(said) <= _SIZE_DIGITS else None
