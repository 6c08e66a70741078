"""What Azure says of its blobs, as Event Grid really writes it."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import ObjectEvent, Sequencer, fold
from pipeline.notifications import Target, decode
from pipeline.notifications.azure import folders, unwrapped

TOPIC = "/subscriptions/1/resourceGroups/g/providers/Microsoft.Storage/StorageAccounts/Acc1"
AT = 1_795_368_201.123456
DATA: dict[str, Any] = {
    "api": "PutBlockList",
    "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
    "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
    "eTag": '"0x8D4BCC2E4835CD0"',
    "contentType": "application/json",
    "contentLength": 524288,
    "blobType": "BlockBlob",
    "url": "https://acc1.blob.core.windows.net/box/in/a%20b.json",
    "sequencer": "00000000000004420000000000028963",
    "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
}


def route(bucket: str, key: str) -> list[Target]:
    """All of the container is the source `inbox`."""
    return [Target("inbox", key)] if bucket == "acc1/box" else []


def event(key: str = "in/a b.json", kind: str = "Microsoft.Storage.BlobCreated", **data: Any) -> dict[str, Any]:
    """An event in Event Grid's own schema."""
    return {
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/box/blobs/{key}",
        "eventType": kind,
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "data": DATA | data,
        "dataVersion": "",
        "metadataVersion": "1",
        "eventTime": "2026-11-22T17:23:21.1234567Z",
    }


def cloud(document: dict[str, Any]) -> dict[str, Any]:
    """The same as a CloudEvent."""
    names = {"topic": "source", "eventType": "type", "eventTime": "time", "subject": "subject", "id": "id"}
    found = {new: document[old] for old, new in names.items()}
    return found | {"specversion": "1.0", "data": document["data"]}


def read(document: Any) -> list[ObjectEvent]:
    """The events in a document."""
    return decode(orjson.dumps(document), route)


@pytest.mark.parametrize("shape", [lambda document: document, cloud, lambda document: [document]])
def test_an_event_is_read_whole(shape: Any) -> None:
    """Key, version, sequencer, size and time of a blob's event become ours, in either schema, alone or in a list."""
    (found,) = read(shape(event()))

    assert found == ObjectEvent(
        source="inbox",
        key="in/a b.json",
        kind="created",
        version="0x8D4BCC2E4835CD0",
        sequencer=Sequencer("azure", "00000000000004420000000000028963"),
        size=524288,
        modified=AT,
        discovered_by="notification",
        time=AT,
    )


@pytest.mark.parametrize("key", ["a%41+b.json", "blobs/containers/x", "日本/語.json", "a/blobs/b"])
def test_a_subjects_name_is_taken_as_it_is(key: str) -> None:
    """Nothing in it is decoded, and words of the path may be in it."""
    assert [found.key for found in read(event(key))] == [key]


def test_a_subject_that_lost_characters_is_mended_by_the_url() -> None:
    """Event Grid breaks characters beyond the basic plane in subjects, not in URLs."""
    url = "https://acc1.blob.core.windows.net/box/in/gem_%F0%9F%92%8E.json"

    assert [found.key for found in read(event("in/gem_\ufffd\ufffd.json", url=url))] == ["in/gem_💎.json"]


def test_a_deletion_names_no_version() -> None:
    """Whatever the event carries, the store is asked."""
    (found,) = read(event(kind="Microsoft.Storage.BlobDeleted", api="DeleteBlob"))

    assert (found.kind, found.version) == ("deleted", None)
    assert found.sequencer == Sequencer("azure", DATA["sequencer"])


def test_another_tier_lets_the_store_be_asked() -> None:
    """A rehydrated blob has the ETag that it had: an event without a version makes a skipped one ready again."""
    (found,) = read(event(kind="Microsoft.Storage.BlobTierChanged", api="SetBlobTier"))

    assert (found.kind, found.version, found.sequencer) == ("updated", None, None)


def test_a_rename_is_a_deletion_and_a_change() -> None:
    """The old name is asked for as the URL has it and as it is decoded; the new one has no ETag yet."""
    urls = {
        "sourceUrl": "https://acc1.dfs.core.windows.net/box/in/old%20one.json",
        "destinationUrl": "https://acc1.dfs.core.windows.net/box/in/new.json",
    }
    found = read(event("in/new.json", "Microsoft.Storage.BlobRenamed", **urls))

    assert [(one.key, one.kind, one.version) for one in found] == [
        ("in/old one.json", "deleted", None),
        ("in/old%20one.json", "deleted", None),
        ("in/new.json", "updated", None),
    ]


@pytest.mark.parametrize(
    "document",
    [
        event(kind="Microsoft.Storage.AsyncOperationInitiated"),
        event(kind="Microsoft.Storage.BlobInventoryPolicyCompleted"),
        event(kind="Microsoft.Storage.DirectoryCreated"),
        event(api="CreateFile", contentLength=0),
        event(api="SftpCreate", contentLength=0),
        event() | {"topic": TOPIC.replace("Acc1", "acc2")},
        {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "1"}},
    ],
)
def test_what_changes_no_blob_of_ours_gives_nothing(document: dict[str, Any]) -> None:
    """Files that are only opened, reports, other accounts and Event Grid's own words are no events."""
    assert read(document) == []


def test_later_events_win_by_their_sequencers_text() -> None:
    """Folding keeps the event whose sequencer is the greater text, whichever came first."""
    first = event(sequencer="0000A", eTag="0x1")
    second = event(sequencer="0000B", eTag="0x2")
    for order in ([first, second], [second, first]):
        assert [found.version for found in fold(read(order))] == ["0x2"]


@pytest.mark.parametrize("kind", ["DirectoryRenamed", "DirectoryDeleted"])
def test_folders_are_told_apart(kind: str) -> None:
    """What happens to a whole folder names its container, in either schema; a blob's event names none."""
    document = event("in/folder", f"Microsoft.Storage.{kind}")

    assert folders(orjson.dumps(document)) == folders(orjson.dumps([cloud(document)])) == {"acc1/box"}
    assert folders(orjson.dumps(event())) == set()
    assert read(document) == []


def test_a_queues_message_is_unwrapped() -> None:
    """Base64 and plain JSON are told apart by their first character; anything else is refused."""
    body = orjson.dumps(event())

    assert unwrapped(base64.b64encode(body).decode()) == body
    assert unwrapped(f" {body.decode()}\n") == body.decode()
    with pytest.raises(ValueError, match="neither"):
        unwrapped("not JSON!")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (event() | {"subject": "/blobServices/default/containers/box"}, "names no blob"),
        (event() | {"subject": 1}, "no text"),
        (event() | {"topic": "/subscriptions/1"}, "no storage account"),
        (event() | {"data": []}, "no object"),
        ({name: value for name, value in event().items() if name != "data"}, "without data"),
        (event(kind="Microsoft.Storage.BlobRenamed"), "without sourceUrl"),
        (event() | {"eventType": "Somebody.Else"}, "no notification"),
        ([1], "not a JSON object"),
    ],
)
def test_what_is_missing_is_said(document: Any, said: str) -> None:
    """A message of an unknown form is refused with a reason for the dead letters."""
    with pytest.raises(ValueError, match=said):
        read(document)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*event(), *DATA]), inner, max_size=4),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*event(), "source", "type", "specversion"]), _VALUES), st.booleans())
def test_whatever_comes_is_read_or_refused(odd: dict[str, Any], mine: bool) -> None:
    """Nothing but ValueError leaves the reading of a message, however odd."""
    body = orjson.dumps(event() | odd if mine else odd)
    with contextlib.suppress(ValueError):
        decode(body, route)
    with contextlib.suppress(ValueError):
        folders(body)
