"""Objects and what may have happened to them: `ObjectRef`, `ObjectEvent` and its CloudEvents 1.0 form.

An event is a hint: "this key may have changed". What the store holds is the truth.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import Any, Literal, NamedTuple

import orjson

KEY_LIMIT_BYTES = 1024
"""A key longer than this (in UTF-8) is refused: no store we know allows more, and no index holds it."""

TRACES_TOLD = 8
"""A line of the log names no more traces than this."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

EventKind = Literal["created", "updated", "deleted", "seen"]
DiscoveredBy = Literal["listing", "notification", "replay", "import"]

_TYPE_PREFIX = "labelfeed.object."
_TYPE_SUFFIX = ".v1"


class ObjectRef(NamedTuple):
    """An object's identity: the name of its source and its key, as text."""

    source: str
    key: str


class Sequencer(NamedTuple):
    """A store's own order of the versions of one key; only two of the same `kind` can be compared.

    `s3`: hexadecimal, compared after padding to one length (AWS's rule). `gcs`: a generation, a number.
    `azure`: compared as text.
    """

    kind: str
    value: str

    def after(self, other: Sequencer | None) -> bool | None:
        """Whether this one is newer; None where there is no order between the two."""
        if other is None or other.kind != self.kind or other.kind not in ("s3", "gcs", "azure"):
            return None
        if self.kind == "azure":
            return self.value > other.value
        width = max(len(self.value), len(other.value))
        return self.value.rjust(width, "0").upper() > other.value.rjust(width, "0").upper()

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @classmethod
    def parse(cls, text: str | None) -> Sequencer | None:
        """The inverse of `str()`; None for None."""
        if text is None:
            return None
        kind, _, value = text.partition(":")
        return cls(kind, value)


class ObjectEvent(NamedTuple):
    """One hint that an object may have changed.

    `version` is the store's opaque name of the content (an ETag, a generation, a hash), None where the
    hint did not carry one. `size` in bytes and `modified` in seconds since 1970 are what the hint said.
    """

    source: str
    key: str
    kind: EventKind = "created"
    version: str | None = None
    sequencer: Sequencer | None = None
    size: int | None = None
    modified: float | None = None
    discovered_by: DiscoveredBy = "listing"
    time: float = 0.0
    id: str = ""
    traceparent: str | None = None

    @property
    def ref(self) -> ObjectRef:
        """The object that the event speaks of."""
        return ObjectRef(self.source, self.key)


@dataclass(frozen=True, slots=True)
class UndecodableEvent:
    """A record of the log that is no event of ours: its bytes and why, for the dead letters."""

    body: bytes
    reason: str


def refusal(error: Exception) -> str:
    """Why a record is put aside, by what reading it raised: ValueError says it itself, all else with its type."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def check_key(key: str) -> str | None:
    """Why a key cannot be kept in the ledger, or None if it can."""
    if "\x00" in key:
        return "the key holds a NUL character"
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "the key is not valid text"
    if length > KEY_LIMIT_BYTES:
        return f"the key is {length} bytes long, more than {KEY_LIMIT_BYTES}"
    return None if key else "the key is empty"


def usable(events: Iterable[ObjectEvent]) -> tuple[list[ObjectEvent], str | None]:
    """The events whose keys can be kept in the ledger, and why the first of the others cannot; None where all can."""
    kept: list[ObjectEvent] = []
    first = None
    for event in events:
        reason = check_key(event.key)
        if reason is None:
            kept.append(event)
        first = first or reason
    return kept, first


def to_attributes(event: ObjectEvent) -> dict[str, Any]:
    """The CloudEvents context attributes of an event, in their JSON types."""
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id or new_id(),
        "type": f"{_TYPE_PREFIX}{event.kind}{_TYPE_SUFFIX}",
        "source": event.source,
        "subject": event.key,
        "time": _moment(event.time or time.time()),
        "discoveredby": event.discovered_by,
    }
    if event.sequencer is not None:
        attributes["sequencer"] = str(event.sequencer)
    if event.traceparent is not None:
        attributes["traceparent"] = event.traceparent
    return attributes


def to_data(event: ObjectEvent) -> dict[str, Any]:
    """The CloudEvents data of an event: what the hint said of the object."""
    return {"version": event.version, "size": event.size, "modified": event.modified}


def to_wire(event: ObjectEvent) -> bytes:
    """The event as a CloudEvents 1.0 JSON document (structured mode)."""
    return orjson.dumps(to_document(event))


def to_document(event: ObjectEvent) -> dict[str, Any]:
    """The event as a CloudEvents 1.0 JSON document, not yet encoded."""
    document = to_attributes(event)
    document["data"] = to_data(event)
    return document


def from_wire(body: bytes | str) -> ObjectEvent:
    """The inverse of `to_wire`.

    Raises:
        ValueError: the body is not a CloudEvents document of ours; the message says why.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return from_document(document)


def from_document(document: object) -> ObjectEvent:
    """The inverse of `to_document`. Raises ValueError as `from_wire`."""
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the caller catches one kind
    return from_attributes(document, document.get("data"))


def from_attributes(attributes: Mapping[str, Any], data: Any) -> ObjectEvent:
    """An event from CloudEvents attributes and data, wherever the two were carried.

    Raises:
        ValueError: an attribute is missing or no attribute of ours; the message names it.
    """
    get = attributes.get
    kind = _kind(str(get("type", "")))
    source, subject = get("source"), get("subject")
    if not isinstance(source, str) or not isinstance(subject, str):
        raise ValueError("source or subject is missing")  # noqa: TRY004 - the caller catches one kind
    if not isinstance(data, dict):
        data = {}
    version, size, modified = data.get("version"), data.get("size"), data.get("modified")
    discovered_by: Any = _text(attributes, "discoveredby")
    return ObjectEvent(
        source,
        subject,
        kind,
        version if isinstance(version, str) else None,
        Sequencer.parse(_text(attributes, "sequencer")),
        size if isinstance(size, int) else None,
        float(modified) if isinstance(modified, int | float) else None,
        discovered_by or "notification",
        _seconds(str(get("time"))),
        str(get("id", "")),
        _text(attributes, "traceparent"),
    )


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    """An attribute that may be missing. Raises ValueError if it is no text."""
    value = attributes.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


_KINDS: dict[str, EventKind] = {
    f"{_TYPE_PREFIX}{kind}{_TYPE_SUFFIX}": kind for kind in ("created", "updated", "deleted", "seen")
}


def _kind(name: str) -> EventKind:
    kind = _KINDS.get(name)
    if kind is not None:
        return kind
    if name.startswith(_TYPE_PREFIX) and name.endswith(_TYPE_SUFFIX):
        raise ValueError(f"type names no event of ours: {name[len(_TYPE_PREFIX) : -len(_TYPE_SUFFIX)]!r}")
    raise ValueError(f"type {name!r} is none of ours")


# The events of a page have one time: it is read and written once.
@lru_cache(maxsize=64)
def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=64)
def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


_ids = count()
_RUN = uuid.uuid4().hex


def new_id() -> str:
    """An event id that no other process and no other call gives."""
    return f"{_RUN}-{next(_ids)}"


def new_traceparent() -> str:
    """A W3C traceparent that begins a trace."""
    return f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"


@lru_cache(maxsize=1024)
def trace_of(traceparent: str | None) -> str | None:
    """The trace id in a W3C traceparent, 32 hexadecimal digits; None where there is none that is valid."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1] if found and found[1].strip("0") else None


def traced(events: Sequence[ObjectEvent]) -> list[ObjectEvent]:
    """The events, those without a trace together in a new one."""
    begun = new_traceparent()
    return [event if event.traceparent else event._replace(traceparent=begun) for event in events]


def traces_of(events: Iterable[ObjectEvent | None]) -> list[str]:
    """The different traces of some events, the first few of them: for a line of the log."""
    found = {trace_of(parent): None for parent in {event.traceparent: None for event in events if event is not None}}
    return [trace for trace in found if trace][:TRACES_TOLD]


def fold(events: Iterable[ObjectEvent]) -> list[ObjectEvent]:
    """One event a key, sorted by (source, key); safe whatever the order the events came in.

    Of several for one key: the newest where their sequencers say which that is; one of them where they
    agree; else a hint without a version, for which the store is asked.
    """
    folded: dict[tuple[str, str], ObjectEvent] = {}
    for event in events:
        ref = (event.source, event.key)
        known = folded.get(ref)
        folded[ref] = event if known is None else _merge(known, event)
    return [folded[ref] for ref in sorted(folded)]


def _merge(first: ObjectEvent, second: ObjectEvent) -> ObjectEvent:
    if first.sequencer is not None and second.sequencer is not None:
        if first.sequencer == second.sequencer:
            agree = (first.kind == "deleted", first.version) == (second.kind == "deleted", second.version)
            return first if agree else second._replace(kind="updated", version=None)
        newer = second.sequencer.after(first.sequencer)
        if newer is not None:
            return second if newer else first
    # Where only one has an order, it must not decide against a third event: then the store is asked.
    if first.sequencer is None and second.sequencer is None:
        deleted = (first.kind == "deleted", second.kind == "deleted")
        if deleted == (True, True) or (deleted == (False, False) and first.version == second.version is not None):
            return second
    return second._replace(kind="updated", version=None, sequencer=None)
