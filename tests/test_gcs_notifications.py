"""What Google Cloud Storage says of its objects through Pub/Sub."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.events import ObjectEvent, Sequencer, fold
from pipeline.ledger.rules import Known, on_event
from pipeline.notifications import Target, decode
from pipeline.notifications.gcs import decode_message, to_document

AT = 1_795_368_201.0


def inbox(bucket: str, key: str) -> list[Target]:
    """A route: all of `gs://bucket1` is the source `inbox`."""
    return [Target("inbox", key)] if bucket == "gs://bucket1" else []


def attributes(kind: str = "OBJECT_FINALIZE", generation: int = 7, **more: str) -> dict[str, str]:
    """The attributes of a notification, as Google writes them."""
    return {
        "notificationConfig": "projects/_/buckets/bucket1/notificationConfigs/3",
        "eventType": kind,
        "payloadFormat": "JSON_API_V1",
        "bucketId": "bucket1",
        "objectId": "in/a b+ü%41.json",
        "objectGeneration": str(generation),
        "eventTime": "2026-11-22T17:23:21.000000Z",
        **more,
    }


def read(kind: str = "OBJECT_FINALIZE", generation: int = 7, data: bytes = b"", **more: str) -> ObjectEvent:
    """The one event of a message."""
    (event,) = decode_message(attributes(kind, generation, **more), data, inbox)
    return event


def test_a_finalized_object_is_read_whole() -> None:
    """Key (as it is), generation as version and order, size and time become the event's."""
    assert read(data=b'{"size":"12","metageneration":"1"}') == ObjectEvent(
        source="inbox",
        key="in/a b+ü%41.json",
        kind="created",
        version="7",
        sequencer=Sequencer("gcs", "7"),
        size=12,
        modified=AT,
        discovered_by="notification",
        time=AT,
    )


@pytest.mark.parametrize(
    "data", [b"", b"not JSON", b"[]", b'{"size":null}', b'{"size":"\xc2\xb2"}', b'{"size":"%d"}' % 10**19]
)
def test_the_data_may_say_nothing(data: bytes) -> None:
    """A notification of payload format NONE says the same, without a size."""
    assert (read(data=data).version, read(data=data).size) == ("7", None)


@pytest.mark.parametrize("kind", ["OBJECT_DELETE", "OBJECT_ARCHIVE"])
def test_a_deletion_names_no_version_but_its_place_in_the_order(kind: str) -> None:
    """What is no longer the live version is gone, as of its generation."""
    event = read(kind)

    assert (event.kind, event.version, event.sequencer) == ("deleted", None, Sequencer("gcs", "7"))


def test_changed_metadata_is_of_the_same_generation() -> None:
    """The ledger sees by the generation that nothing is new."""
    event = read("OBJECT_METADATA_UPDATE")

    assert (event.kind, event.version) == ("updated", "7")


def test_what_is_not_known_yet_is_a_hint_to_look() -> None:
    """An event of a kind that Google adds later names no version."""
    event = read("OBJECT_RENAMED")

    assert (event.kind, event.version, event.sequencer) == ("updated", None, None)


@pytest.mark.parametrize("kind", ["OBJECT_DELETE", "OBJECT_ARCHIVE"])
def test_what_overwrote_is_what_counts(kind: str) -> None:
    """The deletion of an overwritten generation speaks of the one that took its place."""
    event = read(kind, 7, data=b'{"size":"12"}', overwrittenByGeneration="9")

    assert (event.kind, event.version, event.sequencer, event.size) == ("updated", "9", Sequencer("gcs", "9"), None)


@pytest.mark.parametrize("told", [{}, {"overwrittenByGeneration": "10"}])
@pytest.mark.parametrize("late", [False, True])
def test_both_notifications_of_an_overwriting_lead_to_the_new_generation(told: dict[str, str], late: bool) -> None:
    """In either order, in one batch, and whether or not the deletion says what follows: 10 is after 9."""
    events = [read("OBJECT_FINALIZE", 10), read("OBJECT_DELETE", 9, **told)]
    (event,) = fold(reversed(events) if late else events)

    assert (event.kind, event.version) in {("created", "10"), ("updated", "10")}


def test_a_deletion_of_another_generation_than_the_present_one_is_ignored() -> None:
    """The ledger has generation 10; that 9 was deleted is old news, that 10 was is asked for."""
    known = Known(1, "k", "done", "10", "10", "gcs:10", AT)

    assert on_event(known, read("OBJECT_DELETE", 9), "replace").effect == "stale"
    assert on_event(known, read("OBJECT_DELETE", 10), "replace").effect == "asked"
    assert on_event(known, read("OBJECT_DELETE", 9, overwrittenByGeneration="10"), "replace").effect == "duplicate"


def test_a_bucket_of_another_cloud_is_not_meant() -> None:
    """Routes are told the bucket with its scheme, so that S3's of the same name gets no event."""
    told: list[str] = []
    decode_message(attributes(), b"", lambda bucket, _key: told.append(bucket) or [])  # type: ignore[func-returns-value]

    assert told == ["gs://bucket1"]


def test_a_pushed_message_says_the_same() -> None:
    """The document that Pub/Sub pushes, which dead letters keep, is read as the message itself."""
    document = to_document(attributes(), b'{"size":"12"}')

    assert decode(orjson.dumps(document), inbox) == [read(data=b'{"size":"12"}')]
    assert decode(orjson.dumps(document | {"subscription": "s"}), lambda _bucket, _key: []) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"eventType": ""},
        {"bucketId": ""},
        {"objectId": ""},
        {"objectGeneration": ""},
        {"objectGeneration": "-1"},
        {"objectGeneration": "²"},
        {"overwrittenByGeneration": "x", "eventType": "OBJECT_DELETE"},
    ],
)
def test_what_cannot_be_read_says_why(broken: dict[str, str]) -> None:
    """A message without what a notification must say is refused with a reason."""
    with pytest.raises(ValueError, match=r".+"):
        decode_message(attributes() | broken, b"", inbox)


@pytest.mark.parametrize("message", [{"attributes": {}}, {"attributes": attributes(), "data": "%"}])
def test_a_pushed_message_that_cannot_be_read_says_why(message: dict[str, Any]) -> None:
    """As above."""
    with pytest.raises(ValueError, match=r".+"):
        decode(orjson.dumps({"message": message}), inbox)


NAMES = st.sampled_from([*attributes(), "overwrittenByGeneration"])
VALUES = (
    st.none() | st.integers(0, 9) | st.text() | st.sampled_from(["OBJECT_DELETE", "OBJECT_FINALIZE", "bucket1", "7"])
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES), st.binary(max_size=99))
def test_no_message_does_more_than_be_refused(found: dict[str, Any], data: bytes) -> None:
    """Whatever comes, the answer is events or ValueError."""
    with contextlib.suppress(ValueError):
        decode_message(attributes() | found, data, inbox)
    body = {"message": {"attributes": found, "data": base64.b64encode(data).decode()}}
    with contextlib.suppress(ValueError):
        decode(orjson.dumps(body), inbox)
