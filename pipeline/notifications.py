"""What stores say of their objects in their own words, read as events: pure, from bytes to `ObjectEvent`s.

Understood: S3 event notifications (AWS, MinIO, versitygw and others), the same from EventBridge, and either
inside an SNS envelope. A message may speak of several objects, or (`s3:TestEvent`, changes of tags) of none.

A store names a bucket and a whole key; which sources that concerns is the business of a `Route`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import orjson

from pipeline.events import EventKind, ObjectEvent, Sequencer

_S3_DELETIONS = ("ObjectRemoved:", "LifecycleExpiration:")
_S3_UNCHANGED = (
    "ObjectTagging:",
    "ObjectAcl:",
    "ObjectAccessed:",
    "ObjectRestore:Post",
    "ObjectRestore:Delete",
    "Replication:",
    "ReducedRedundancyLostObject",
    "LifecycleTransition",
    "IntelligentTiering",
    "Scanner:",
    "BucketCreated:",
    "BucketRemoved:",
)
"""Names of what happens without a change of an object's bytes."""
_EVENTBRIDGE: Mapping[str, EventKind] = {
    "Object Created": "created",
    "Object Deleted": "deleted",
    "Object Restore Completed": "updated",
}

_VERSITYGW_ARN = "arn:aws:s3:::/"
"""How versitygw is known: it writes keys as they are, and its sequencers start again when it does."""


class Target(NamedTuple):
    """An object of ours that a store's message concerns.

    `by_version_id` says that its store names contents by version ids; a message without one then names none.
    """

    source: str
    key: str
    by_version_id: bool = False


Route = Callable[[str, str], Iterable[Target]]
"""Bucket and whole key → the objects of ours that this is; none if no source covers it."""


class _Hint(NamedTuple):
    bucket: str
    key: str
    kind: EventKind
    etag: str | None
    version_id: str | None
    sequencer: str | None
    size: int | None
    at: float


def decode(body: bytes | str, route: Route) -> list[ObjectEvent]:
    """The events in a store's message; an empty list where it speaks of nothing that concerns us.

    Raises:
        ValueError: the message is of no form that is known here; its text says what is missing.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the caller catches one kind
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):
        return decode(document["Message"], route)
    return [event for hint in _hints(document) for event in _events(hint, route)]


def _hints(document: Mapping[str, Any]) -> Iterator[_Hint]:
    if document.get("source") == "aws.s3" and "detail" in document:
        return _eventbridge(document)
    if isinstance(document.get("Records"), list):
        return (hint for record in document["Records"] for hint in _s3(record))
    if document.get("Event") == "s3:TestEvent" or document.get("detail-type") == "Test Object":
        return iter(())
    raise ValueError("neither a notification of S3 nor of EventBridge: no Records, no detail")


def _s3(record: Any) -> Iterator[_Hint]:
    name = _text(_part(record, "eventName")).removeprefix("s3:")
    if name == "TestEvent" or name.startswith(_S3_UNCHANGED):
        return
    s3 = _part(record, "s3")
    bucket, found = _part(s3, "bucket"), _part(s3, "object")
    name_of_bucket = _text(_part(bucket, "name"))
    gateway = str(bucket.get("arn")).startswith(_VERSITYGW_ARN)
    key = _text(_part(found, "key"))
    yield _Hint(
        bucket=name_of_bucket,
        key=key if gateway else unquote_plus(key, errors="strict"),
        kind=_s3_kind(name),
        etag=_optional(found, "eTag"),
        version_id=_optional(found, "versionId"),
        sequencer=None if gateway else _optional(found, "sequencer"),
        size=_size(found),
        at=_seconds(record.get("eventTime")),
    )


def _s3_kind(name: str) -> EventKind:
    if name.startswith(_S3_DELETIONS):
        return "deleted"
    return "created" if name.startswith("ObjectCreated:") else "updated"


def _eventbridge(document: Mapping[str, Any]) -> Iterator[_Hint]:
    kind = _EVENTBRIDGE.get(_text(_part(document, "detail-type")))
    if kind is None:
        return
    detail = _part(document, "detail")
    found = _part(detail, "object")
    yield _Hint(
        bucket=_text(_part(_part(detail, "bucket"), "name")),
        key=_text(_part(found, "key")),
        kind=kind,
        etag=_optional(found, "etag"),
        version_id=_optional(found, "version-id"),
        sequencer=_optional(found, "sequencer"),
        size=_size(found),
        at=_seconds(document.get("time")),
    )


def _events(hint: _Hint, route: Route) -> Iterator[ObjectEvent]:
    for target in route(hint.bucket, hint.key):
        yield ObjectEvent(
            source=target.source,
            key=target.key,
            kind=hint.kind,
            version=None if hint.kind == "deleted" else _version(hint, by_id=target.by_version_id),
            sequencer=_sequencer(hint.sequencer),
            size=hint.size,
            modified=hint.at or None,
            discovered_by="notification",
            time=hint.at,
        )


def _version(hint: _Hint, *, by_id: bool) -> str | None:
    if not by_id:
        return s3_version(hint.etag, None)
    return None if hint.version_id is None else s3_version(hint.etag, hint.version_id)


def s3_version(etag: str | None, version_id: str | None) -> str | None:
    """The name of an S3 object's content: the version id where versioning gave it one, else the ETag, bare.

    An object from before versioning, or from while it was suspended, has the id `null`, as every later one
    of its kind has: that names nothing.
    """
    if version_id and version_id != "null":
        return version_id
    return (etag or "").removeprefix("W/").strip('"') or None


def _part(document: Any, name: str) -> Any:
    if not isinstance(document, dict) or name not in document:
        raise ValueError(f"a notification without {name}")
    return document[name]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"a name that is no text: {value!r}")
    return value


def _optional(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def _size(document: Mapping[str, Any]) -> int | None:
    size = document.get("size")
    return size if isinstance(size, int) else None


def _sequencer(text: str | None) -> Sequencer | None:
    if text is None or not all(char in "0123456789abcdefABCDEF" for char in text):
        return None
    return Sequencer("s3", text)


def _seconds(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
