"""Notifications of Google Cloud Storage through a real Pub/Sub server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import NotFound

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import UnavailableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.notifications import Target, decode
from pipeline.producers import Notices
from pipeline.producers import pubsub as module
from pipeline.producers.letters import Bury
from pipeline.producers.pubsub import PubSubProducer
from pipeline.stores.gcs import GcsStore, open_store
from pipeline.stores.scope import Scope
from tests.faults.network import Proxy
from tests.producers.contract import Made, ProducerContract, listening
from tests.servers import GCS_TOPIC, gcs_client, pubsub_client

pytestmark = pytest.mark.usefixtures("google", "emulator")
Open = Callable[..., "Bench"]
Put = Callable[..., None]


@pytest.fixture
def emulator(google: None, pubsub: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's library finds the server."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)


class Bench:
    """A producer at work: `next` gives what it notices."""

    def __init__(self, producer: PubSubProducer) -> None:
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
            events += self.handled().events
        return events

    def handled(self) -> Notices:
        """The next notices, put aside and settled as a runner does."""
        notices = self.next()
        notices.put_aside()
        notices.settle()
        return notices


def source_of(subscription: str | None, bucket: str = "bucket1/in") -> Source:
    """A source of a bucket that notifies a topic."""
    return Source(name="inbox", project="p", url=f"gs://{bucket}?anonymous=true", notifications=subscription)


def store_of(source: Source) -> GcsStore:
    """Its store."""
    return open_store(source, Path())


@pytest.fixture
def topic(pubsub: Service, unique: str) -> str:
    """A topic of this test alone."""
    name = f"projects/test/topics/{unique}"
    pubsub_client("publisher", pubsub).create_topic(name=name)
    return name


@pytest.fixture
def subscription(pubsub: Service, topic: str, unique: str) -> str:
    """A subscription to it."""
    name = f"projects/test/subscriptions/{unique}"
    pubsub_client("subscriber", pubsub).create_subscription(name=name, topic=topic)
    return name


@pytest.fixture
def put(pubsub: Service, topic: str) -> Put:
    """Publish a notification."""
    publisher = pubsub_client("publisher", pubsub)

    def put(key: str, generation: int = 7, kind: str = "OBJECT_FINALIZE", bucket: str = "bucket1", **more: str) -> None:
        told = {"eventType": kind, "bucketId": bucket, "objectId": key, "objectGeneration": str(generation), **more}
        publisher.publish(topic, b'{"size":"1"}', **told).result(20)

    return put


@pytest.fixture
def left(pubsub: Service, subscription: str) -> Callable[[], int]:
    """How many messages can be had from the subscription now; they are given back at once."""
    client = pubsub_client("subscriber", pubsub)

    def left() -> int:
        found = client.pull(subscription=subscription, max_messages=1000, timeout=20).received_messages
        receipts = [message.ack_id for message in found]
        if receipts:
            client.modify_ack_deadline(subscription=subscription, ack_ids=receipts, ack_deadline_seconds=0)
        return len(receipts)

    return left


@pytest.fixture
def opened(subscription: str) -> Iterator[Open]:
    """Open producers; all are stopped at the end."""
    benches: list[Bench] = []
    stores: list[GcsStore] = []

    def opened(bury: Bury | None = None, scope: Scope | None = None, **more: Any) -> Bench:
        source = source_of(subscription)
        stores.append(store_of(source))
        benches.append(Bench(PubSubProducer(source, stores[-1], scope or Scope(), bury=bury, **more)))
        return benches[-1]

    yield opened
    for bench in benches:
        bench.end()
    for store in stores:
        store.close()


class TestWithABucket(ProducerContract):
    """The contract: a bucket tells a topic of what happens to its objects."""

    @pytest.fixture
    def made(self, gcs_telling: Service, pubsub: Service, unique: str) -> Iterator[Made]:
        """A bucket and a subscription of this test alone."""
        held = gcs_client(gcs_telling).create_bucket(unique)
        name = f"projects/test/subscriptions/{unique}"
        subscriber = pubsub_client("subscriber", pubsub)
        subscriber.create_subscription(name=name, topic=GCS_TOPIC)
        source = Source(name="inbox", project="p", url=f"gs://{unique}", endpoint=gcs_telling.url, notifications=name)
        store = store_of(source)
        producer = PubSubProducer(source, store, Scope())
        yield Made(
            producer,
            store,
            lambda key, content: held.blob(key).upload_from_string(content),
            lambda key: held.blob(key).delete(),
        )
        producer.close()
        store.close()
        subscriber.delete_subscription(subscription=name)


def test_all_kinds_become_events(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """New objects, deletions, what is archived, metadata; keys as they are."""
    put("in/a b+ü%41.json")
    put("in/gone.json", kind="OBJECT_DELETE")
    put("in/archived.json", kind="OBJECT_ARCHIVE")
    put("in/told.json", 9, kind="OBJECT_METADATA_UPDATE")
    events = {event.key: event for event in opened().settle(4)}

    assert {key: (event.kind, event.version, str(event.sequencer)) for key, event in events.items()} == {
        "a b+ü%41.json": ("created", "7", "gcs:7"),
        "gone.json": ("deleted", None, "gcs:7"),
        "archived.json": ("deleted", None, "gcs:7"),
        "told.json": ("updated", "9", "gcs:9"),
    }
    assert {event.source for event in events.values()} == {"inbox"}
    assert left() == 0


def test_what_is_not_the_sources_is_left_out(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """Other buckets, other folders and keys out of scope give no event, and their messages go."""
    put("in/a.json", bucket="other")
    for key in ("inside/a.json", "in/", "in/a.csv", "in/b.json"):
        put(key)
    events = opened(scope=Scope(["*.json"])).settle(1)

    assert [event.key for event in events] == ["b.json"]
    assert_soon(lambda: left() == 0)


def test_a_message_goes_only_when_its_events_are_published(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """Until it is settled a message stays, and a producer that ends gives it back at once."""
    put("in/a.json")
    first = opened()
    assert [event.key for event in first.next().events] == ["a.json"]
    first.end()
    began = time.monotonic()
    events = opened().settle(1)

    assert [event.key for event in events] == ["a.json"]
    assert time.monotonic() - began < 10
    assert left() == 0


def test_a_message_that_waits_is_kept_from_others(opened: Open, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its events can't be published, a message is extended beyond its first deadline."""
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 2)
    put("in/a.json")
    first = opened()
    waiting = first.next()
    second = opened()
    found: list[Notices] = []
    threading.Thread(target=lambda: found.append(second.next()), daemon=True).start()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert not found
        time.sleep(0.1)  # what is waited for is that nothing happens
    waiting.settle()
    first.end()
    put("in/b.json")
    assert_soon(lambda: bool(found))

    assert [event.key for event in found[0].events] == ["b.json"]
    found[0].settle()


def test_a_message_that_cannot_be_read_goes_to_the_dead_letters(
    opened: Open, put: Put, left: Callable[[], int]
) -> None:
    """It is put aside whole, with its reason, and the others are read."""
    buried: list[UndecodableEvent] = []
    put("in/x.json", kind="")
    put("in/y.json", objectGeneration="latest")
    put("in/a.json")
    bench = opened(bury=buried.extend)
    events = bench.settle(1)
    while len(buried) < 2:
        bench.handled()

    assert [event.key for event in events] == ["a.json"]
    assert_soon(lambda: left() == 0)
    assert {letter.reason for letter in buried} >= {"a generation that is no number: 'latest'"}
    assert sorted(b"in/x.json" in letter.body for letter in buried) == [False, True]
    for letter in buried:
        with pytest.raises(ValueError, match=letter.reason[:10]):
            decode(letter.body, lambda _bucket, _key: [])


def test_a_key_that_cannot_be_kept_is_put_aside(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """A message with a key that no ledger holds goes to the dead letters with why, and the others are read."""
    buried: list[UndecodableEvent] = []
    put("in/" + "ü" * 600)
    put("in/a.json")
    bench = opened(bury=buried.extend)
    events = bench.settle(1)
    while not buried:
        bench.handled()

    assert [event.key for event in events] == ["a.json"]
    assert_soon(lambda: left() == 0)
    assert [letter.reason for letter in buried] == ["the key is 1200 bytes long, more than 1024"]


def test_a_dead_letter_that_cannot_be_kept_is_not_acknowledged(opened: Open, put: Put, left: Callable[[], int]) -> None:
    """While the dead letters don't answer, the message stays where it is."""

    def bury(_letters: Any) -> None:
        raise UnavailableError("the log is down")

    put("in/x.json", kind="")
    bench = opened(bury=bury)
    notices = bench.next()
    with pytest.raises(UnavailableError, match="log is down"):
        notices.put_aside()
    bench.end()
    assert_soon(lambda: left() == 1)


def test_without_dead_letters_the_subscriptions_own_policy_counts(
    pubsub: Service, opened: Open, put: Put, topic: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription with a dead-letter policy keeps what can't be read, for Pub/Sub to move after some attempts."""
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 1)
    client = pubsub_client("subscriber", pubsub)
    dead = f"{topic}-dead"
    pubsub_client("publisher", pubsub).create_topic(name=dead)
    own = f"projects/test/subscriptions/{unique}-own"
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    client.create_subscription(request={"name": own, "topic": topic, "dead_letter_policy": policy})
    put("in/x.json", kind="")
    store = store_of(source_of(own))
    bench = Bench(PubSubProducer(source_of(own), store, Scope()))
    unread = bench.next()
    unread.settle()
    put("in/a.json")
    assert [event.key for event in (*unread.events, *bench.settle(1))] == ["a.json"]
    bench.end()
    store.close()

    def still_there() -> bool:
        found = client.pull(subscription=own, max_messages=10, timeout=20).received_messages
        return [message.message.attributes["objectId"] for message in found] == ["in/x.json"]

    assert_soon(still_there)


def test_without_any_dead_letters_what_is_dropped_is_logged(
    opened: Open, put: Put, left: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """A message that would come for ever is dropped aloud."""
    put("in/x.json", kind="")
    with caplog.at_level(logging.ERROR):
        opened().next().settle()

    assert left() == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_shared_subscription_is_routed_to_all_its_sources(opened: Open, put: Put) -> None:
    """Whoever receives a message publishes the events of every source that it concerns."""

    def route(bucket: str, key: str) -> list[Target]:
        return [Target(f"{bucket}-{at}", key) for at in (1, 2)]

    put("a.json", bucket="any")
    events = opened(route=route).settle(2)

    assert [event.source for event in events] == ["gs://any-1", "gs://any-2"]


def test_messages_that_come_while_the_log_is_away_are_kept(
    opened: Open, put: Put, left: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come and waits for its turn is extended too; then it is one batch, and each is there once."""
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 2)
    bench = opened()
    for number in range(30):
        put(f"in/{number}")
    first = bench.next()
    assert_soon(lambda: left() == 0)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert left() == 0
    first.settle()
    rest = bench.next()
    rest.settle()
    events = [*first.events, *rest.events]
    events += bench.settle(30 - len(events))

    assert sorted(int(event.key) for event in events) == list(range(30))
    assert len(rest.events) > 1


@pytest.mark.parametrize("form", ["pubsub://{}", "pubsub://test/{1}", "test/{1}"])
def test_a_subscription_may_be_named_shortly(form: str, put: Put, subscription: str, unique: str) -> None:
    """Its whole name, as a URL, or just project and name."""
    put("in/a.json")
    source = source_of(form.format(subscription, unique))
    store = store_of(source)
    bench = Bench(PubSubProducer(source, store, Scope()))

    assert [event.key for event in bench.settle(1)] == ["a.json"]
    bench.end()
    store.close()


def test_a_subscription_that_is_not_there_is_unavailable(unique: str) -> None:
    """It may be made later; the error names the source and the subscription."""
    source = source_of(f"projects/test/subscriptions/{unique}-not")
    store = store_of(source)
    producer = PubSubProducer(source, store, Scope())
    with pytest.raises(UnavailableError, match=f"inbox.*{unique}-not"):
        next(producer.notices(threading.Event()))
    producer.close()
    store.close()


def test_a_subscription_that_is_deleted_is_said(pubsub: Service, opened: Open, put: Put, subscription: str) -> None:
    """What ends while it is listened to is an error that is tried again, not silence."""
    bench = opened()
    pubsub_client("subscriber", pubsub).delete_subscription(subscription=subscription)

    with pytest.raises(UnavailableError, match="inbox"):
        bench.next()
    with pytest.raises(NotFound):
        pubsub_client("subscriber", pubsub).get_subscription(subscription=subscription)


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: it may work later."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    source = source_of("projects/test/subscriptions/any")
    store = store_of(source)
    producer = PubSubProducer(source, store, Scope())
    with pytest.raises(UnavailableError, match="inbox"):
        next(producer.notices(threading.Event()))
    producer.close()
    store.close()


def test_a_stream_that_is_cut_is_taken_up_again(
    pubsub: Service, toxiproxy: Service, put: Put, subscription: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published meanwhile comes once the server can be reached again, by the same producer."""
    proxy = Proxy.to(toxiproxy, unique, pubsub.port)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{proxy.port}")
    source = source_of(subscription)
    store = store_of(source)
    producer = PubSubProducer(source, store, Scope())
    with suppress(UnavailableError), listening(producer) as listener:
        put("in/before.json")
        assert listener.event("before.json", "created")
        proxy.cut()
        listener.thread.join(20)
    assert isinstance(listener.error, UnavailableError)
    put("in/meanwhile.json")
    proxy.mend()

    def answers() -> bool:
        with suppress(UnavailableError):
            return next(producer.notices(threading.Event())).lost
        return False

    assert_soon(answers)
    with listening(producer) as listener:
        assert listener.event("meanwhile.json", "created")
    producer.close()
    store.close()
    proxy.remove()


@pytest.mark.parametrize("name", [None, "subscription", "projects/p/topics/t", "https://sqs.example/1/queue"])
def test_what_names_no_subscription_is_refused(name: str | None) -> None:
    """The producer needs `notifications` of its own form."""
    store = store_of(source_of(None))
    with pytest.raises(UsageError, match="notifications"):
        PubSubProducer(source_of(name), store, Scope())
    store.close()


def assert_soon(condition: Callable[[], bool]) -> None:
    """A condition comes true before long."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
