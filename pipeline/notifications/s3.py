"""Notifications of S3 (AWS, MinIO, versitygw and others) and of EventBridge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

from pipeline.events import EventKind, Sequencer
from pipeline.notifications.hints import Hint, optional, part, seconds, text, whole

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
_RESTORED = ("ObjectRestore:Completed", "Object Restore Completed")
"""What is restored from an archive has the version that it had there: its event names none, so that the store is
asked, as an object that was skipped stays so while its version does."""
_EVENTBRIDGE: Mapping[str, EventKind] = {
    "Object Created": "created",
    "Object Deleted": "deleted",
    "Object Restore Completed": "updated",
}

_VERSITYGW_ARN = "arn:aws:s3:::/"
"""How versitygw is known: it writes keys as they are, and its sequencers start again when it does."""


def hints(document: Mapping[str, Any]) -> Iterator[Hint] | None:
    """What the document says; None if it is none of S3's. Raises ValueError where something is missing."""
    if document.get("source") == "aws.s3" and "detail" in document:
        return _eventbridge(document)
    if isinstance(document.get("Records"), list):
        return (hint for record in document["Records"] for hint in _s3(record))
    if document.get("Event") == "s3:TestEvent" or document.get("detail-type") == "Test Object":
        return iter(())
    return None


def _s3(record: Any) -> Iterator[Hint]:
    name = text(part(record, "eventName")).removeprefix("s3:")
    if name == "TestEvent" or name.startswith(_S3_UNCHANGED):
        return
    s3 = part(record, "s3")
    bucket, found = part(s3, "bucket"), part(s3, "object")
    name_of_bucket = text(part(bucket, "name"))
    told = {} if name in _RESTORED else found
    gateway = str(bucket.get("arn")).startswith(_VERSITYGW_ARN)
    key = text(part(found, "key"))
    yield Hint(
        bucket=name_of_bucket,
        key=key if gateway else unquote_plus(key, errors="strict"),
        kind=_s3_kind(name),
        etag=optional(told, "eTag"),
        version_id=optional(told, "versionId"),
        sequencer=None if gateway else _sequencer(optional(found, "sequencer")),
        size=whole(found, "size"),
        at=seconds(record.get("eventTime")),
    )


def _s3_kind(name: str) -> EventKind:
    if name.startswith(_S3_DELETIONS):
        return "deleted"
    return "created" if name.startswith("ObjectCreated:") else "updated"


def _eventbridge(document: Mapping[str, Any]) -> Iterator[Hint]:
    name = text(part(document, "detail-type"))
    kind = _EVENTBRIDGE.get(name)
    if kind is None:
        return
    detail = part(document, "detail")
    found = part(detail, "object")
    told = {} if name in _RESTORED else found
    yield Hint(
        bucket=text(part(part(detail, "bucket"), "name")),
        key=text(part(found, "key")),
        kind=kind,
        etag=optional(told, "etag"),
        version_id=optional(told, "version-id"),
        sequencer=_sequencer(optional(found, "sequencer")),
        size=whole(found, "size"),
        at=seconds(document.get("time")),
    )


def _sequencer(value: str | None) -> Sequencer | None:
    if value is None or not all(char in "0123456789abcdefABCDEF" for char in value):
        return None
    return Sequencer("s3", value)
