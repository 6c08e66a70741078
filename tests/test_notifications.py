"""What stores say of their objects, as they really write it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus.kafka.codec import decode_message
from pipeline.events import ObjectEvent, Sequencer, UndecodableEvent, fold, traces_of
from pipeline.notifications import Target, decode, version_name

AT = 1_795_368_201.0


def inbox(bucket: str, key: str) -> list[Target]:
    """A route: all of `bucket1` is the source `inbox`."""
    return [Target("inbox", key)] if bucket == "bucket1" else []


def by_id(_bucket: str, key: str) -> list[Target]:
    """A route to a store with versioning."""
    return [Target("inbox", key, by_version_id=True)]


def record(name: str = "ObjectCreated:Put", **found: Any) -> dict[str, Any]:
    """One record of an S3 event, as AWS writes it."""
    body = {"key": "in%2Fnew+file%2B%C3%BC.json", "size": 2, "eTag": "99914b93", "sequencer": "0055AED6DCD90281E5"}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-22T17:23:21.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": "bucket1", "arn": "arn:aws:s3:::bucket1"}, "object": body | found},
    }


def message(*records: dict[str, Any]) -> bytes:
    """A message of several records."""
    return orjson.dumps({"Records": records})


def test_an_s3_event_is_read_whole() -> None:
    """Key (URL-decoded), version, sequencer, size and time of an S3 event become the event's."""
    (event,) = decode(message(record()), inbox)

    assert event == ObjectEvent(
        source="inbox",
        key="in/new file+ü.json",
        kind="created",
        version="99914b93",
        sequencer=Sequencer("s3", "0055AED6DCD90281E5"),
        size=2,
        modified=AT,
        discovered_by="notification",
        time=AT,
    )


def test_several_records_become_several_events() -> None:
    """One message may speak of many objects, in order."""
    events = decode(message(record(key="a"), record(key="b"), record("ObjectRemoved:Delete", key="c")), inbox)

    assert [(event.key, event.kind) for event in events] == [("a", "created"), ("b", "created"), ("c", "deleted")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ObjectCreated:CompleteMultipartUpload", "created"),
        ("s3:ObjectCreated:Copy", "created"),
        ("ObjectRemoved:DeleteMarkerCreated", "deleted"),
        ("LifecycleExpiration:Delete", "deleted"),
        ("ObjectRestore:Completed", "updated"),
        ("ObjectSomething:New", "updated"),
    ],
)
def test_what_happened_decides_the_kind(name: str, kind: str) -> None:
    """Creations, deletions and what isn't known yet are told apart; the unknown is a hint to look."""
    assert [event.kind for event in decode(message(record(name)), inbox)] == [kind]


QUIET = ("ObjectTagging:Put", "ObjectAcl:Put", "s3:ObjectAccessed:Get", "Replication:OperationFailedReplication")


@pytest.mark.parametrize("name", [*QUIET, "TestEvent"])
def test_what_leaves_the_bytes_alone_is_no_event(name: str) -> None:
    """A change of tags, an access, a replication say nothing of an object's content."""
    assert decode(message(record(name)), inbox) == []


def test_a_deletion_names_no_version() -> None:
    """Which version is gone doesn't say what is there now."""
    (event,) = decode(message(record("ObjectRemoved:Delete", versionId="v1")), by_id)

    assert event.version is None


def test_what_is_restored_names_no_version() -> None:
    """It has the version that it was skipped with, so that only a look at the store tells what can be read now."""
    detail = {"bucket": {"name": "bucket1"}, "object": {"key": "a", "size": 5, "etag": "e1", "version-id": "v1"}}
    bridge = orjson.dumps({"source": "aws.s3", "detail-type": "Object Restore Completed", "detail": detail})
    for body in (message(record("ObjectRestore:Completed", versionId="v1")), bridge):
        for route in (inbox, by_id):
            (event,) = decode(body, route)
            assert (event.kind, event.version) == ("updated", None)


def test_versions_are_those_of_the_store() -> None:
    """With versioning the version is its id, and a message without one names none; without, it is the ETag."""
    with_id, without = message(record(versionId="v1")), message(record())

    assert [event.version for event in decode(with_id, by_id)] == ["v1"]
    assert [event.version for event in decode(without, by_id)] == [None]
    assert [event.version for event in decode(with_id, inbox)] == ["99914b93"]


def test_the_null_version_names_nothing() -> None:
    """Objects from before versioning all have the id `null`: their ETag tells them apart."""
    assert version_name('"e1"', "null") == "e1"
    assert version_name('W/"e1"', None) == "e1"
    assert version_name(None, None) is None


def test_what_no_source_covers_is_left_out() -> None:
    """A message on another bucket is read, and concerns nobody."""
    other = record()
    other["s3"]["bucket"]["name"] = "other"

    assert decode(message(other), inbox) == []


def test_an_object_may_be_in_several_sources() -> None:
    """Each source that covers an object gets an event of its own."""
    events = decode(message(record(key="a")), lambda _bucket, key: [Target("one", key), Target("two", key)])

    assert [event.source for event in events] == ["one", "two"]


def test_eventbridge_does_not_encode_keys() -> None:
    """EventBridge's form holds the key as it is."""
    body = {
        "version": "0",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "time": "2026-11-22T17:23:21Z",
        "detail": {
            "bucket": {"name": "bucket1"},
            "object": {"key": "a+b %20.json", "size": 5, "etag": "e1", "version-id": "v1", "sequencer": "00AB"},
            "reason": "PutObject",
        },
    }
    (event,) = decode(orjson.dumps(body), by_id)

    assert (event.key, event.version, event.sequencer, event.time) == (
        "a+b %20.json",
        "v1",
        Sequencer("s3", "00AB"),
        AT,
    )
    assert decode(orjson.dumps(body | {"detail-type": "Object Tags Added"}), by_id) == []
    assert [event.kind for event in decode(orjson.dumps(body | {"detail-type": "Object Deleted"}), by_id)] == [
        "deleted"
    ]


def test_versitygw_is_read_as_it_writes() -> None:
    """Its keys are not encoded, it quotes ETags twice, and its sequencers begin at 1 at each start."""
    body = record(key="in/new file+ü.json", eTag='"99914b93"', sequencer="1", versionId=None)
    body["s3"]["bucket"]["arn"] = "arn:aws:s3:::/bucket1/in/new file+ü.json"
    (event,) = decode(message(body), inbox)

    assert (event.key, event.version, event.sequencer) == ("in/new file+ü.json", "99914b93", None)


def test_an_sns_envelope_is_opened() -> None:
    """A notification that went through SNS is inside its Message."""
    body = orjson.dumps({"Type": "Notification", "Message": message(record(key="a")).decode()})

    assert [event.key for event in decode(body, inbox)] == ["a"]


@pytest.mark.parametrize(
    "body", [b'{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"bucket1"}', b'{"Records":[]}']
)
def test_test_messages_are_no_events(body: bytes) -> None:
    """What a bucket sends when notifications are set up concerns no object."""
    assert decode(body, inbox) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"Records":[{}]}',
        b'{"Records":[7]}',
        b'{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{}}}]}',
        b'{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":[],"object":{"key":"k"}}}]}',
        b'{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"%FF"}}}]}',
        b'{"source":"aws.s3","detail-type":"Object Created","detail":null}',
    ],
)
def test_what_cannot_be_read_says_why(body: bytes) -> None:
    """A message of no known form is refused with a reason."""
    with pytest.raises(ValueError, match=r".+"):
        decode(body, inbox)


DEEP = 1000
"""About as far as a JSON text may be nested."""


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP + b"]" * DEEP,
        b'[[{"eventType":"Microsoft.Storage.BlobCreated"}]]',
        b'{"Type":"Notification","Message":"' + b"[" * DEEP + b"]" * DEEP + b'"}',
        b'{"eventType":"Microsoft.Storage.BlobCreated","subject":"/containers/c/blobs/b","data":{"api":[]}}',
    ],
)
def test_what_is_nested_or_of_another_type_says_why(body: bytes) -> None:
    """A message with lists where none belong is refused with a reason, as any other of no known form."""
    with pytest.raises(ValueError, match=r".+"):
        decode(body, inbox)


WORDS = st.sampled_from(["Records", "s3", "object", "bucket", "name", "key", "eventName", "detail", "source", "Type"])
SCALARS = st.none() | st.booleans() | st.integers(0, 9) | st.text()


DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner))


@given(DOCUMENTS)
def test_no_message_does_more_than_be_refused(document: Any) -> None:
    """Whatever JSON comes, the answer is events or ValueError."""
    with contextlib.suppress(ValueError):
        decode(json.dumps(document), inbox)


OURS = {"type": "labelfeed.object.created.v1", "source": "inbox", "subject": "a"}
ATTRIBUTES = ("specversion", "id", "type", "source", "subject", "time", "discoveredby", "sequencer", "traceparent")
NAMES = st.sampled_from(["content-type", "traceparent", "other", *(f"ce_{name}" for name in ATTRIBUTES)])
VALUES = st.none() | st.binary() | st.sampled_from([b"application/cloudevents+json", OURS["type"].encode(), b"x"])
STRUCTURED = ("content-type", b"application/cloudevents+json")


def handled(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> list[ObjectEvent] | UndecodableEvent:
    """What a message becomes, after all that is done with its events before they are recorded."""
    found = decode_message(value, headers, inbox)
    if isinstance(found, UndecodableEvent):
        assert found.body == value
        assert found.reason
    else:
        traces_of(fold(found))
    return found


@given(st.binary() | DOCUMENTS.map(lambda document: json.dumps(document).encode()), st.lists(st.tuples(NAMES, VALUES)))
def test_no_message_on_kafka_does_more_than_become_a_dead_letter(
    value: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    """Whatever value and headers come, null ones too, the answer is events, or the bytes and why they are none."""
    handled(value, headers)


PARTS = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(WORDS, SCALARS, max_size=2)


@given(st.dictionaries(st.sampled_from([*ATTRIBUTES, "data"]), PARTS))
def test_attributes_of_any_type_do_no_more_either(attributes: dict[str, Any]) -> None:
    """An event in structured mode whose attributes are any JSON becomes an event that can be used, or a dead letter."""
    handled(json.dumps(OURS | attributes).encode(), [STRUCTURED])


@pytest.mark.parametrize("name", ["sequencer", "traceparent", "discoveredby"])
def test_attributes_that_are_no_text_are_named(name: str) -> None:
    """An attribute of another type than ours is what the dead letter's reason names."""
    for value in (7, [], {}, True):
        found = handled(json.dumps(OURS | {name: value}).encode(), [STRUCTURED])
        assert isinstance(found, UndecodableEvent)
        assert found.reason == f"{name} is no text"


@pytest.mark.parametrize("name", ["content-type", "traceparent", "ce_type", "ce_subject"])
def test_a_null_header_is_named(name: str) -> None:
    """A header that is read here and has no value makes a dead letter that names it; any other null does no harm."""
    found = handled(message(record()), [(name, None)])

    assert isinstance(found, UndecodableEvent)
    assert found.reason == f"the header {name} is null"
    assert isinstance(handled(message(record()), [("other", None)]), list)


def test_what_reading_did_not_foresee_is_a_dead_letter() -> None:
    """Any error of reading a message is the reason of its dead letter, with its type."""

    def broken(_bucket: str, _key: str) -> list[Target]:
        raise ZeroDivisionError("by zero")

    found = decode_message(message(record()), [], broken)
    assert found == UndecodableEvent(message(record()), "ZeroDivisionError: by zero")
