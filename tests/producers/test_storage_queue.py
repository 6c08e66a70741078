"""Azure's blob events through a real storage queue."""

from __future__ import annotations

import base64
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from azure.storage.queue import QueueServiceClient

from deploy.services import Service
from deploy.services.azure import ACCOUNT
from pipeline.config import Source
from pipeline.errors import UnavailableError, UsageError
from pipeline.events import ObjectEvent, Sequencer, UndecodableEvent
from pipeline.notifications import Target
from pipeline.producers import Notices, storage_queue
from pipeline.producers.letters import Bury
from pipeline.producers.storage_queue import StorageQueueProducer
from pipeline.stores.azure import AzureStore, open_store
from pipeline.stores.scope import Scope
from tests.producers.conftest import until
from tests.producers.contract import Made, ProducerContract

Open = Callable[..., "Bench"]
Put = Callable[[Any], None]
TOPIC = f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
_numbers = itertools.count(1)


class Bench:
    """A producer at work: `next` gives what it notices."""

    def __init__(self, producer: StorageQueueProducer) -> None:
        self.stop = threading.Event()
        self.producer = producer
        self._notices = producer.notices(self.stop)
        assert next(self._notices).lost

    def next(self) -> Notices:
        """The next notices."""
        return next(self._notices)

    def end(self) -> None:
        """Stop as a runner does."""
        self.stop.set()
        self._notices.close()  # type: ignore[attr-defined]  # it is a generator
        self.producer.close()

    def settle(self, count: int) -> list[ObjectEvent]:
        """At least `count` events, each settled as a runner does."""
        events: list[ObjectEvent] = []
        while len(events) < count:
            notices = self.next()
            events += notices.events
            notices.put_aside()
            notices.settle()
        return events


def source_of(queue: str | None, container: str = "box") -> Source:
    """A source of a folder of a container whose events come by a queue."""
    return Source(name="inbox", project="p", url=f"az://{container}/in", notifications=queue)


def grid_event(key: str, kind: str = "BlobCreated", container: str = "box", **data: Any) -> dict[str, Any]:
    """An event as Event Grid's own schema has it."""
    etag = {"eTag": "0xE1", "contentLength": 2} if kind == "BlobCreated" else {}
    url = f"https://{ACCOUNT}.blob.core.windows.net/{container}/{quote(key)}"
    return {
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{container}/blobs/{key}",
        "eventType": f"Microsoft.Storage.{kind}",
        "id": "1",
        "data": {"api": "PutBlob", **etag, "url": url, "sequencer": f"{next(_numbers):032}", **data},
        "dataVersion": "",
        "metadataVersion": "1",
        "eventTime": "2026-11-22T17:23:21.1234567Z",
    }


def cloud_event(key: str, kind: str = "BlobCreated", **data: Any) -> dict[str, Any]:
    """The same as a CloudEvent."""
    event = grid_event(key, kind, **data)
    kept = {name: event[name] for name in ("subject", "id", "data")}
    return kept | {"source": TOPIC, "type": event["eventType"], "time": event["eventTime"], "specversion": "1.0"}


@pytest.fixture
def queues(azure: Any, azurite: Service) -> Iterator[QueueServiceClient]:
    """A client of Azurite's queues."""
    with QueueServiceClient.from_connection_string(azurite.env["AZURE_STORAGE_CONNECTION_STRING"]) as client:
        yield client


@pytest.fixture
def queue(queues: QueueServiceClient, unique: str) -> Iterator[str]:
    """A queue of this test alone."""
    queues.create_queue(unique)
    yield unique
    queues.delete_queue(unique)


@pytest.fixture
def put(queues: QueueServiceClient, queue: str) -> Put:
    """Put a message on the queue, in base64 as Event Grid does; a text as it is."""
    client = queues.get_queue_client(queue)

    def put(body: Any) -> None:
        client.send_message(body if isinstance(body, str) else base64.b64encode(orjson.dumps(body)).decode())

    return put


@pytest.fixture
def left(queues: QueueServiceClient, queue: str) -> Callable[[], int]:
    """How many messages are on the queue, received or not."""
    client = queues.get_queue_client(queue)
    return lambda: int(client.get_queue_properties().approximate_message_count or 0)


@pytest.fixture
def opened(queue: str) -> Iterator[Open]:
    """Open producers; all are stopped at the end."""
    benches: list[Bench] = []
    stores: list[AzureStore] = []

    def opened(bury: Bury | None = None, scope: Scope | None = None, **more: Any) -> Bench:
        source = source_of(queue)
        stores.append(open_store(source, Path()))
        benches.append(Bench(StorageQueueProducer(source, stores[-1], scope or Scope(), bury=bury, **more)))
        return benches[-1]

    yield opened
    for bench in benches:
        bench.end()
    for store in stores:
        store.close()


class TestStorageQueue(ProducerContract):
    """The contract: Azurite sends no events, so that the test puts on the queue what Event Grid would."""

    @pytest.fixture
    def made(self, azure: Any, unique: str, queue: str, put: Put) -> Iterator[Made]:
        """A container and a queue of their own for each test."""
        azure.create_container(unique)
        blobs = azure.get_container_client(unique)
        source = source_of(queue, unique)
        store = open_store(source, Path())
        producer = StorageQueueProducer(source, store, Scope())

        def put_blob(key: str, content: bytes) -> None:
            etag = blobs.upload_blob(f"in/{key}", content, overwrite=True).get_blob_properties().etag
            put(grid_event(f"in/{key}", container=unique, eTag=etag, contentLength=len(content)))

        def delete(key: str) -> None:
            blobs.delete_blob(f"in/{key}")
            put(grid_event(f"in/{key}", "BlobDeleted", unique, api="DeleteBlob"))

        yield Made(producer, store, put_blob, delete)
        producer.close()
        store.close()
        azure.delete_container(unique)


def test_all_shapes_become_events(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """Both schemas, base64 and plain JSON, several in one message, deletions, renames, and what says nothing."""
    put(grid_event("in/a b+ü%41.json"))
    put(orjson.dumps(cloud_event("in/plain.json")).decode())
    put([grid_event("in/one.json"), grid_event("in/two.json")])
    put(cloud_event("in/gone.json", "BlobDeleted"))
    urls = {"sourceUrl": f"https://{ACCOUNT}.dfs.core.windows.net/box/in/old%20name.json"}
    urls["destinationUrl"] = f"https://{ACCOUNT}.dfs.core.windows.net/box/in/new.json"
    put(grid_event("in/new.json", "BlobRenamed", **urls))
    put({"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {}})
    events = {event.key: event for event in opened().settle(8)}

    created = {"a b+ü%41.json", "plain.json", "one.json", "two.json"}
    assert set(events) == created | {"gone.json", "old name.json", "old%20name.json", "new.json"}
    assert {key for key, event in events.items() if event.kind == "created"} == created
    assert {events[key].version for key in created} == {"0xE1"}
    assert [events[key].kind for key in ("gone.json", "old name.json", "new.json")] == ["deleted", "deleted", "updated"]
    assert events["new.json"].version is None
    assert {event.source for event in events.values()} == {"inbox"}
    until(lambda: left() == 0)


def test_a_file_of_a_data_lake_counts_when_it_is_closed(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """What is only opened gives no event; the flush that closes it does."""
    put(grid_event("in/a.json", api="CreateFile", contentLength=0))
    put(grid_event("in/a.json", api="FlushWithClose", contentLength=9))
    (event,) = opened().settle(1)

    assert event.size == 9
    until(lambda: left() == 0)


def test_order_is_the_sequencers(opened: Open, put: Put) -> None:
    """Of two events of one blob the later one is told by comparing texts."""
    put(grid_event("in/a.json", sequencer="00000000000000000000000000000b"))
    put(grid_event("in/a.json", sequencer="00000000000000000000000000000A"))
    first, second = (event.sequencer for event in opened().settle(2))

    assert {first, second} == {
        Sequencer("azure", "00000000000000000000000000000b"),
        Sequencer("azure", "00000000000000000000000000000A"),
    }
    assert first is not None
    assert first.after(second) == (first.value > second.value if second else None)


@pytest.mark.parametrize("kind", ["DirectoryRenamed", "DirectoryDeleted"])
def test_a_folder_that_moves_asks_for_a_pass(opened: Open, put: Put, left: Callable[[], int], kind: str) -> None:
    """One event stands for all blobs in it, which only a listing tells; one of another container does not."""
    put(grid_event("in/folder", kind, container="other"))
    put(grid_event("in/folder", kind))
    bench = opened()
    lost = []
    while left():
        notices = bench.next()
        assert not notices.events
        lost.append(notices.lost)
        notices.settle()

    assert any(lost)


def test_what_is_not_the_sources_is_left_out(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """Other accounts, containers and folders and keys out of scope give no event, and their messages go."""
    put(grid_event("in/a.json", container="other"))
    put(grid_event("in/a.json") | {"topic": TOPIC.replace(ACCOUNT, "other")})
    for key in ("inside/a.json", "in/folder/", "in/a.csv", "in/b.json"):
        put(grid_event(key))
    events = opened(scope=Scope(["*.json"])).settle(1)

    assert [event.key for event in events] == ["b.json"]
    until(lambda: left() == 0)


def test_a_message_goes_only_when_its_events_are_published(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """Until it is settled a message stays, and a producer that ends gives it back at once."""
    put(grid_event("in/a.json"))
    first = opened()
    assert [event.key for event in first.next().events] == ["a.json"]
    assert left() == 1
    first.end()
    began = time.monotonic()
    events = opened().settle(1)

    assert [event.key for event in events] == ["a.json"]
    assert time.monotonic() - began < 10
    assert left() == 0


def test_a_message_that_waits_is_kept_from_others(
    opened: Open, put: Put, left: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its events can't be published, a message is extended beyond its first time-out, and can be deleted then."""
    monkeypatch.setattr(storage_queue, "VISIBILITY_SECONDS", 2)
    put(grid_event("in/a.json"))
    first = opened()
    waiting = first.next()
    second = opened()
    found: list[Notices] = []
    thread = threading.Thread(target=lambda: found.append(second.next()))
    thread.start()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert not found
        time.sleep(0.1)  # what is waited for is that nothing happens
    waiting.settle()
    put(grid_event("in/b.json"))
    thread.join(20)

    assert [event.key for event in found[0].events] == ["b.json"]
    found[0].settle()
    until(lambda: left() == 0)


def test_a_message_that_was_kept_too_long_is_somebody_elses(
    opened: Open, put: Put, queues: QueueServiceClient, queue: str, left: Callable[[], int]
) -> None:
    """Where another one has received it meanwhile, settling does no harm and takes nothing from that one."""
    put(grid_event("in/a.json"))
    bench = opened()
    notices = bench.next()
    (held,) = bench.producer._held.values()
    other = queues.get_queue_client(queue)
    other.update_message(held.id, held.receipt, visibility_timeout=0)
    taken: list[Any] = []
    until(lambda: taken.extend(other.receive_messages(visibility_timeout=30)) or taken)
    notices.settle()

    assert left() == 1
    other.delete_message(taken[0].id, taken[0].pop_receipt)


def test_a_message_that_cannot_be_read_goes_to_the_dead_letters(
    opened: Open, put: Put, left: Callable[[], int]
) -> None:
    """It is put aside with its reason, and the others are read."""
    buried: list[UndecodableEvent] = []
    put("not JSON!")
    put({"eventType": "Microsoft.Storage.BlobCreated", "topic": TOPIC, "subject": "nowhere", "data": {}})
    put("[" * 1000 + "]" * 1000)
    put([[grid_event("in/b.json")]])
    put(grid_event("in/a.json"))
    events = opened(bury=buried.extend).settle(1)

    assert [event.key for event in events] == ["a.json"]
    until(lambda: left() == 0)
    assert len(buried) == 4
    assert b"not JSON!" in {letter.body for letter in buried}
    assert all(letter.reason for letter in buried)


def test_a_key_that_cannot_be_kept_is_put_aside(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """A message with a key that no ledger holds goes to the dead letters with why, and the others are read."""
    buried: list[UndecodableEvent] = []
    put([grid_event("in/" + "ü" * 600), grid_event("in/b.json")])
    put(grid_event("in/a.json"))
    events = opened(bury=buried.extend).settle(2)

    assert sorted(event.key for event in events) == ["a.json", "b.json"]
    until(lambda: left() == 0)
    assert [letter.reason for letter in buried] == ["the key is 1200 bytes long, more than 1024"]


def test_a_dead_letter_that_cannot_be_kept_is_not_deleted(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """While the dead letters don't answer, the message stays where it is."""

    def bury(_letters: Any) -> None:
        raise UnavailableError("the log is down")

    put("not JSON!")
    bench = opened(bury=bury)
    notices = bench.next()
    with pytest.raises(UnavailableError, match="log is down"):
        notices.put_aside()
    assert left() == 1


def test_without_any_dead_letters_what_is_dropped_is_logged(
    opened: Open, put: Put, left: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """A message that would come for ever is dropped aloud."""
    put("not JSON!")
    with caplog.at_level(logging.ERROR):
        opened().next().settle()

    assert left() == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_shared_queue_is_routed_to_all_its_sources(opened: Open, put: Put) -> None:
    """Whoever receives a message publishes the events of every source that it concerns."""

    def route(bucket: str, key: str) -> list[Target]:
        return [Target(f"{bucket}-{at}", key) for at in (1, 2)]

    put(grid_event("a.json", container="any"))
    events = opened(route=route).settle(2)

    assert [event.source for event in events] == [f"{ACCOUNT}/any-1", f"{ACCOUNT}/any-2"]


def test_many_messages_come_in_few_requests(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """A backlog is fetched many messages at a time, and each once."""
    for number in range(150):
        put(grid_event(f"in/{number}"))
    bench = opened()
    notices = bench.next()
    assert len(notices.events) > storage_queue.BATCH
    notices.settle()
    events = [*notices.events, *bench.settle(150 - len(notices.events))]

    assert sorted(int(event.key) for event in events) == list(range(150))
    until(lambda: left() == 0)


def test_a_queue_may_be_named_by_its_url(azurite: Service, put: Put, queue: str) -> None:
    """The URL of a queue is as good as its name in the store's account."""
    put(grid_event("in/a.json"))
    source = source_of(f"http://127.0.0.1:{azurite.ports['queue']}/{ACCOUNT}/{queue}")
    store = open_store(source, Path())
    bench = Bench(StorageQueueProducer(source, store, Scope()))

    assert [event.key for event in bench.settle(1)] == ["a.json"]
    bench.end()
    store.close()


def test_a_queue_that_is_not_there_is_unavailable(azure: Any, unique: str) -> None:
    """It may be made later; the error names the source."""
    source = source_of(f"{unique}-not")
    store = open_store(source, Path())
    bench = Bench(StorageQueueProducer(source, store, Scope()))
    with pytest.raises(UnavailableError, match="inbox is not there"):
        bench.next()
    bench.end()
    store.close()


def test_a_queue_that_is_denied_names_the_role(queue: str, azurite: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is said without it, with what the queue takes."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", "aHVudGVyMmh1bnRlcjI=")
    source = Source(
        name="inbox", project="p", url="az://box?credential=key", account=ACCOUNT,
        notifications=f"http://127.0.0.1:{azurite.ports['queue']}/{ACCOUNT}/{queue}",
    )  # fmt: skip
    store = open_store(source, Path())
    bench = Bench(StorageQueueProducer(source, store, Scope()))
    with pytest.raises(UnavailableError, match="Storage Queue Data Message Processor") as caught:
        bench.next()
    assert "aHVud" not in str(caught.value)
    bench.end()
    store.close()


@pytest.mark.parametrize(
    ("queue", "word"),
    [(None, "notifications"), ("https://acc.queue.core.windows.net/q?sv=1&sig=hunter2", "signature")],
)
def test_a_source_without_a_queue_is_refused(azure: Any, queue: str | None, word: str) -> None:
    """The producer needs `notifications`, without any secret."""
    store = open_store(source_of(None), Path())
    with pytest.raises(UsageError, match=word) as caught:
        StorageQueueProducer(source_of(queue), store, Scope())
    assert "hunter2" not in str(caught.value)
    store.close()
