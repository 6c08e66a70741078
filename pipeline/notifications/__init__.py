"""What stores say of their objects in their own words, read as events: pure, from bytes to `ObjectEvent`s.

Understood: S3 event notifications (AWS, MinIO, versitygw and others), the same from EventBridge, and either
inside an SNS envelope; Azure's events in the schemas of Event Grid and CloudEvents; those of Google Cloud Storage
as Pub/Sub pushes them (`gcs.decode_message` reads those that are pulled). A message may speak of several objects,
or (`s3:TestEvent`, changes of tags) of none.

A store names a bucket and a whole key; which sources that concerns is the business of a `Route`. For Azure the
bucket is `account/container`, for Google `gs://bucket`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.events import ObjectEvent
from pipeline.notifications import azure, gcs, s3
from pipeline.notifications.hints import Hint, Route, Target, events_of, version_name

__all__ = ["Route", "Target", "decode", "version_name"]


def decode(body: bytes | str, route: Route) -> list[ObjectEvent]:
    """The events in a store's message; an empty list where it speaks of nothing that concerns us.

    Raises:
        ValueError: the message is of no form that is known here; its text says what is missing.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return [event for hint in _hints(document) for event in events_of(hint, route)]


def _hints(document: Any) -> Iterator[Hint]:
    if isinstance(document, list) and document:
        # Event Grid may deliver several events as one message; no list is in another.
        return (hint for one in document for hint in _hints_of_one(one))
    return _hints_of_one(document)


def _hints_of_one(document: Any) -> Iterator[Hint]:
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the caller catches one kind
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):
        return _hints(_inner(document["Message"]))
    for hints in (s3.hints, azure.hints, gcs.hints):
        found = hints(document)
        if found is not None:
            return found
    raise ValueError("no notification of S3, EventBridge, Event Grid or Pub/Sub: no Records, detail, data, message")


def _inner(message: str) -> Any:
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
