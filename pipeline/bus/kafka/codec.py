"""Events as Kafka messages and back: CloudEvents 1.0 in binary mode, structured mode, and stores' own bodies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from pipeline.bus.kafka.records import Garbled
from pipeline.errors import RetriableError
from pipeline.events import ObjectEvent, UndecodableEvent, from_attributes, from_wire, new_id, refusal, to_data, traced
from pipeline.notifications import Route, decode

Headers = list[tuple[str, bytes]]
Received = Sequence[tuple[str, bytes | None]]
"""Headers as they come: a value may be null."""

_PREFIX = "ce_"
_JSON = ("content-type", b"application/json")
_STRUCTURED = "application/cloudevents+json"
_READ = frozenset({"content-type", "traceparent"})
_NAME_SHOWN = 100
"""Characters of a header's name that a reason quotes."""
_VERSION = ("ce_specversion", b"1.0")
_TYPES = {
    kind: ("ce_type", f"labelfeed.object.{kind}.v1".encode()) for kind in ("created", "updated", "deleted", "seen")
}


class Message(NamedTuple):
    """What goes into Kafka: key, value and headers."""

    key: bytes
    value: bytes
    headers: Headers


def encode(event: ObjectEvent) -> Message:
    """An event in binary mode: its attributes are headers, its data the value, its key source and object key."""
    at = datetime.fromtimestamp(event.time or time.time(), UTC).isoformat()
    headers = [
        _VERSION,
        ("ce_id", (event.id or new_id()).encode()),
        _TYPES[event.kind],
        ("ce_source", event.source.encode()),
        ("ce_subject", event.key.encode()),
        ("ce_time", at.encode()),
        ("ce_discoveredby", event.discovered_by.encode()),
        _JSON,
    ]
    if event.sequencer is not None:
        headers.append(("ce_sequencer", str(event.sequencer).encode()))
    if event.traceparent is not None:
        headers.append(("ce_traceparent", event.traceparent.encode()))
    return Message(f"{event.source}/{event.key}".encode(), orjson.dumps(to_data(event)), headers)


def writable(headers: Received) -> Headers:
    """Headers as the client writes them: it knows no null, which becomes empty."""
    return [(name, text or b"") for name, text in headers]


def decode_message(value: bytes | None, headers: Received, route: Route) -> list[ObjectEvent] | UndecodableEvent:
    """The events of a message, whoever wrote it: several where a store put several into one, or none at all."""
    try:
        return _decode(value or b"", _readable(headers), route)
    except RetriableError:
        raise
    except Exception as error:  # noqa: BLE001 - the outer boundary of a record: else nothing behind it was ever read
        return UndecodableEvent(value or b"", refusal(error))


def _readable(headers: Received) -> dict[str, bytes]:
    """Headers by name. Raises ValueError where a name is not UTF-8, or one that is read here is null."""
    garbled = [name for name, _ in headers if isinstance(name, Garbled)]
    if garbled:
        raise ValueError(f"the header name {garbled[0][:_NAME_SHOWN]} is not UTF-8")
    found = dict(headers)
    null = [name for name, text in found.items() if text is None and (name in _READ or name.startswith(_PREFIX))]
    if null:
        raise ValueError(f"the header {null[0]} is null")
    return {name: text for name, text in found.items() if text is not None}


def _decode(value: bytes, headers: dict[str, bytes], route: Route) -> list[ObjectEvent]:
    if "ce_type" in headers:
        return [_binary(value, headers)]
    if headers.get("content-type", b"").decode().startswith(_STRUCTURED):
        return [from_wire(value)]
    # A store writes no trace, but what stands between may.
    parent = headers.get("traceparent", b"").decode("ascii", "replace")
    events = decode(value, route)
    return [event._replace(traceparent=parent) for event in events] if parent else traced(events)


def _binary(value: bytes, headers: dict[str, bytes]) -> ObjectEvent:
    attributes = {name[3:]: text.decode() for name, text in headers.items() if name.startswith(_PREFIX)}
    try:
        data = orjson.loads(value) if value else None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"its data is not JSON: {error}") from None
    return from_attributes(attributes, data)
