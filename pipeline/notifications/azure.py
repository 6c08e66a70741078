"""Notifications of Azure Storage, as Event Grid sends them: in its own schema or as CloudEvents 1.0."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import orjson

from pipeline.events import Sequencer
from pipeline.notifications.hints import Hint, optional, part, seconds, text, whole

_TYPES = ("Microsoft.Storage.", "Microsoft.EventGrid.")
_OF_FOLDERS = frozenset({"Microsoft.Storage.DirectoryDeleted", "Microsoft.Storage.DirectoryRenamed"})
"""One event for all blobs in a folder, which have none of their own."""
_UNFINISHED = frozenset({"CreateFile", "SftpCreate"})
"""Calls that only open a file of a hierarchical account: FlushWithClose or SftpCommit follow when it is whole."""
_ACCOUNTS = "/storageaccounts/"
_CONTAINERS, _BLOBS = "/containers/", "/blobs/"
_BROKEN = "\ufffd"
"""Event Grid puts it into subjects in the place of characters beyond the basic plane."""


class _Place(NamedTuple):
    bucket: str
    key: str


def hints(document: Mapping[str, Any]) -> Iterator[Hint] | None:
    """What the document says; None if it is none of Azure's. Raises ValueError where something is missing."""
    name = _type(document)
    return None if name is None else _of(name, document)


def unwrapped(body: str) -> str | bytes:
    """The JSON text of a queue's message, which Event Grid encodes in base64 and others don't. Raises ValueError."""
    plain = body.strip()
    if plain.startswith(("{", "[")):
        return plain
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("neither JSON nor base64") from None


def folders(body: str | bytes) -> set[str]:
    """The `account/container`s of which a message that `decode` has read says that a whole folder was moved or
    deleted: which blobs that concerns only a listing can tell."""
    document = orjson.loads(body)
    found = document if isinstance(document, list) else [document]
    return {_place(one).bucket for one in found if _type(one) in _OF_FOLDERS}


def _type(document: Mapping[str, Any]) -> str | None:
    name = document.get("type") if "specversion" in document else document.get("eventType")
    return name if isinstance(name, str) and name.startswith(_TYPES) else None


def _of(name: str, document: Mapping[str, Any]) -> Iterator[Hint]:
    at = seconds(document.get("time") or document.get("eventTime"))
    if name == "Microsoft.Storage.BlobRenamed":
        yield from _renamed(document, at)
        return
    kind = _KINDS.get(name)
    if kind is None:
        return
    data = part(document, "data")
    if not isinstance(data, dict):
        raise ValueError("a notification whose data is no object")  # noqa: TRY004 - the caller catches one kind
    if optional(data, "api") in _UNFINISHED:
        return
    place = _place(document)
    if kind == "deleted":
        yield Hint(place.bucket, place.key, "deleted", sequencer=_sequencer(data), at=at)
    elif kind == "created":
        size = whole(data, "contentLength")
        yield Hint(place.bucket, place.key, "created", optional(data, "eTag"), None, _sequencer(data), size, at)
    else:
        # Another tier is the same content under the same ETag, which now may be readable: the store is asked.
        yield Hint(place.bucket, place.key, "updated", at=at)


_KINDS: Mapping[str, str] = {
    "Microsoft.Storage.BlobCreated": "created",
    "Microsoft.Storage.BlobDeleted": "deleted",
    "Microsoft.Storage.BlobTierChanged": "updated",
}


def _renamed(document: Mapping[str, Any], at: float) -> Iterator[Hint]:
    """The old name is gone; what is under the new one has no ETag in the event, so that the store is asked."""
    data = part(document, "data")
    source = _path(text(part(data, "sourceUrl"))).lstrip("/")
    # Whether the URL is percent-encoded is told nowhere; the store is asked for either name before it is gone.
    for path in sorted({source, unquote(source)}):
        container, _, key = path.partition("/")
        if key:
            yield Hint(f"{_account(document)}/{container}", key, "deleted", at=at)
    place = _place(document)
    yield Hint(place.bucket, place.key, "updated", sequencer=_sequencer(data), at=at)


def _place(document: Mapping[str, Any]) -> _Place:
    """Where a blob is, by the event's subject, whose name is as it is; or by its URL where that was broken."""
    subject = text(part(document, "subject"))
    _, _, rest = subject.partition(_CONTAINERS)
    container, found, key = rest.partition(_BLOBS)
    if not container or not found or not key:
        raise ValueError(f"a subject that names no blob: {subject!r}")
    url = document["data"].get("url") if isinstance(document.get("data"), dict) else None
    if _BROKEN in key and isinstance(url, str):
        key = unquote(_path(url)).lstrip("/").partition("/")[2] or key
    return _Place(f"{_account(document)}/{container}", key)


def _account(document: Mapping[str, Any]) -> str:
    topic = text(document.get("topic") or document.get("source"))
    at = topic.lower().find(_ACCOUNTS)
    if at < 0:
        raise ValueError(f"a notification of no storage account: {topic!r}")
    return topic[at + len(_ACCOUNTS) :].partition("/")[0].lower()


def _path(url: str) -> str:
    return urlsplit(url, allow_fragments=False).path


def _sequencer(data: Mapping[str, Any]) -> Sequencer | None:
    found = optional(data, "sequencer")
    return None if found is None else Sequencer("azure", found)
