"""Azure Blob end to end: containers and queues of Azurite, worked by the real command."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from azure.storage.queue import QueueServiceClient

from deploy.services import Service
from deploy.services.azure import ACCOUNT, KEY
from tests.e2e.house import House, until
from tests.stores.front import Answer, front_of

SECRET = "aHVudGVyMmh1bnRlcjI="
TOPIC = f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"


@pytest.fixture
def box(azure: Any, unique: str) -> Iterator[Any]:
    """A container of this test alone."""
    yield azure.create_container(unique)
    azure.delete_container(unique)


@pytest.fixture
def queue(azurite: Service, unique: str) -> Iterator[Any]:
    """A queue of this test alone."""
    with QueueServiceClient.from_connection_string(azurite.env["AZURE_STORAGE_CONNECTION_STRING"]) as client:
        yield client.create_queue(unique)
        client.delete_queue(unique)


def put(box: Any, key: str, content: str) -> None:
    """A blob."""
    box.upload_blob(key, content, overwrite=True)


def tell(queue: Any, box: Any, kind: str, key: str) -> None:
    """What Event Grid would put on the queue."""
    event = {
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{box.container_name}/blobs/{key}",
        "eventType": f"Microsoft.Storage.{kind}",
        "eventTime": datetime.now(UTC).isoformat(),
        "id": "1",
        "data": {"api": "PutBlob", "url": "", "sequencer": f"{datetime.now(UTC).timestamp():040.6f}"},
    }
    queue.send_message(base64.b64encode(json.dumps(event).encode()).decode())


def test_a_container_becomes_tasks(house: House, box: Any) -> None:
    """What is under the prefix is imported once, whatever its key; what is beside it, folders' marks and empty blobs
    are not."""
    expected = {key: [{"text": key}] for key in ("a b+ü%41.json", "x/日本.json", "odd//c.json", "line\nd.json")}
    for key, (data,) in expected.items():
        put(box, f"in/{key}", json.dumps(data))
    put(box, "in/empty.json", "")
    put(box, "in/folder/", "")
    put(box, "inside/a.json", "{}")
    house.configure({"url": f"az://{box.container_name}/in"})
    house.once()
    house.agrees(expected)
    assert house.states() == dict.fromkeys(expected, "done") | {"empty.json": "skipped: no_tasks"}
    assert "nothing is new" in house.once().err
    house.agrees(expected)


def test_media_are_referred_to_by_azures_own_uri(house: House, box: Any) -> None:
    """A picture's task names it as labelling tools know blobs of Azure, and so does `explain`; a signed one can be
    read by anybody."""
    box.upload_blob("in/a b.jpg", b"picture")
    uri = f"azure-blob://{box.container_name}/in/a b.jpg"
    house.configure({"url": f"az://{box.container_name}/in"})
    house.once()
    assert uri in house.tasks()["a b.jpg"][0].values()
    assert house.look("explain", "--json", uri).json()[0]["state"] == "done"
    house.configure({"url": f"az://{box.container_name}/in", "links": "signed", "ttl": "1m"})
    assert house.run("retry", "--outdated").code == 0
    house.once()
    (url,) = (value for value in house.tasks()["a b.jpg"][0].values() if str(value).startswith("http"))
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"picture"


def test_a_queues_messages_become_tasks(house: House, box: Any, queue: Any) -> None:
    """New, changed, deleted and rehydrated blobs are noticed by their events alone, and the messages go."""
    put(box, "in/a.json", '{"text": "a"}')
    put(box, "in/cold.json", '{"text": "cold"}')
    cold = box.get_blob_client("in/cold.json")
    cold.set_standard_blob_tier("Archive")
    source = {
        "url": f"az://{box.container_name}/in",
        "notifications": queue.queue_name,
        "poll": "1h",
        "on_change": "replace",
        "on_delete": "archive",
    }
    house.configure(source)
    with house.continuously():
        until(lambda: house.tasks() == {"a.json": [{"text": "a"}]}, what="the pass")
        put(box, "in/b.json", '{"text": "b"}')
        tell(queue, box, "BlobCreated", "in/b.json")
        until(lambda: "b.json" in house.tasks(), what="the new blob")
        put(box, "in/b.json", '{"text": "b2"}')
        tell(queue, box, "BlobCreated", "in/b.json")
        until(lambda: house.tasks().get("b.json") == [{"text": "b2"}], what="the changed blob")
        box.delete_blob("in/a.json")
        tell(queue, box, "BlobDeleted", "in/a.json")
        until(lambda: "a.json" not in house.tasks(), what="the deletion")
        assert house.states()["cold.json"] == "skipped: archived"
        cold.set_standard_blob_tier("Hot")
        tell(queue, box, "BlobTierChanged", "in/cold.json")
        until(lambda: "cold.json" in house.tasks(), what="the rehydrated blob")
        until(lambda: queue.get_queue_properties().approximate_message_count == 0, what="an empty queue")
    house.agrees({"b.json": [{"text": "b2"}], "cold.json": [{"text": "cold"}]})


def test_an_archived_blob_is_skipped_and_comes_when_it_is_rehydrated(house: House, box: Any) -> None:
    """It says why and what to do, isn't tried for ever, and is imported by `retry` once it can be read."""
    put(box, "cold.json", '{"text": "cold"}')
    put(box, "warm.json", '{"text": "warm"}')
    box.get_blob_client("cold.json").set_standard_blob_tier("Archive")
    house.configure({"url": f"az://{box.container_name}"})
    house.once()
    assert house.states() == {"cold.json": "skipped: archived", "warm.json": "done"}
    assert "rehydrate" in json.dumps(house.explain("cold.json"))
    assert "nothing is new" in house.once().err
    box.get_blob_client("cold.json").set_standard_blob_tier("Cool")
    assert house.run("retry", "--code", "archived", "--state", "skipped").code == 0
    house.once()
    house.agrees({"cold.json": [{"text": "cold"}], "warm.json": [{"text": "warm"}]})


def sas(**permissions: bool) -> str:
    """A shared access signature of the account with these permissions."""
    return generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(**permissions),
        datetime.now(UTC) + timedelta(hours=1),
    )


def test_a_pass_survives_a_store_that_is_busy_in_its_middle(
    house: House, box: Any, azurite: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source says that it waits and why; once pages come again, all is imported, each once."""
    expected = {f"k{number}.json": [{"text": str(number)}] for number in range(10)}
    for key, (data,) in expected.items():
        put(box, key, json.dumps(data))
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas(list=True, read=True))
    busy = Answer(503, b"<Error><Code>ServerBusy</Code></Error>", [("Content-Type", "application/xml")])
    with front_of(azurite.url) as front:
        front.rewrite = lambda target: f"{target}&maxresults=3" if "comp=list" in target else target
        front.fault = lambda _method, target: busy if "marker=" in target else None
        url = f"az://{box.container_name}?credential=sas"
        house.configure({"url": url, "account": ACCOUNT, "endpoint": front.url})
        with house.continuously() as running:
            until(lambda: any("busy" in row["error"] for row in running.says("waiting")), what="the reason")
            front.fault = lambda _method, _target: None
            until(lambda: house.tasks() == expected, what="the import")
        house.agrees(expected)


def test_a_permission_that_lists_but_does_not_read(
    house: House, box: Any, azurite: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each blob fails with its reason and what would help; another source goes on."""
    put(box, "a.json", '{"text": "a"}')
    token = sas(list=True)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    sources = [
        {
            "name": "inbox", "project": "p", "url": f"az://{box.container_name}?credential=sas", "account": ACCOUNT,
            "endpoint": azurite.url,
        },
        {"name": "other", "project": "p", "url": "./inbox", "settle": 0},
    ]  # fmt: skip
    house.configure(sources=sources)
    house.put("b.txt", "b\n")
    ended = house.once(code=1)
    assert house.states() == {"a.json": "failed: permission"}
    assert "Storage Blob Data Reader" in json.dumps(house.explain("a.json"))
    assert house.tasks("other") == {"b.txt": [{"text": "b"}]}
    assert token not in ended.err + ended.out


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("az://{box}?credential=key", SECRET, "let us in"),
        ("az://{box}-not?credential=key", KEY, "ContainerNotFound"),
    ],
)
def test_a_source_that_cannot_be_listed_says_why(
    house: House, box: Any, azurite: Service, monkeypatch: pytest.MonkeyPatch, url: str, key: str, said: str
) -> None:
    """Wrong credentials or a missing container stop their own source with a clear word, no other one."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", key)
    wrong = {"name": "inbox", "project": "p", "url": url.format(box=box.container_name), "poll": "300ms"}
    wrong |= {"account": ACCOUNT, "endpoint": azurite.url}
    house.configure(sources=[wrong, {"name": "other", "project": "p", "url": "./inbox", "settle": 0}])
    house.put("b.txt", "b\n")
    with house.continuously() as running:
        until(lambda: house.tasks("other") == {"b.txt": [{"text": "b"}]}, what="the other source")
        until(lambda: any(said in row["error"] for row in running.says("waiting")), what="the reason")
        until(lambda: running.get("/readyz")[0] == 503, what="the refusal to be ready")
        body = running.get("/readyz")[1]
        assert said in body
        assert SECRET not in running.err.read_text() + body
    assert said in house.look("check").out
