"""S3 notifications through a real SQS server."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest

from deploy.services import Service
from pipeline import waiting
from pipeline.bus import Offsets
from pipeline.config import Source
from pipeline.errors import UnavailableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.notifications import Target
from pipeline.producers import Notices, sqs
from pipeline.producers.letters import Bury
from pipeline.producers.runner import SourceRunner
from pipeline.producers.sqs import SqsProducer
from pipeline.stores.s3 import S3Store, open_store
from pipeline.stores.scope import Scope
from tests.producers.conftest import House
from tests.producers.contract import Made, ProducerContract
from tests.servers import s3_client, sqs_client

pytestmark = pytest.mark.usefixtures("aws")
Open = Callable[..., "Bench"]
_numbers = itertools.count(1)


class Bench:
    """A producer at work: `next` gives what it notices."""

    def __init__(self, producer: SqsProducer) -> None:
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


def source_of(url: str | None, bucket: str = "bucket1/in") -> Source:
    """A source of a bucket that notifies a queue."""
    return Source(name="inbox", project="p", url=f"s3://{bucket}?versions=false", notifications=url)


@pytest.fixture
def url(elasticmq: Service, unique: str) -> str:
    """A queue of this test alone."""
    found: str = sqs_client(elasticmq).create_queue(QueueName=unique)["QueueUrl"]
    return found


@pytest.fixture
def put(elasticmq: Service, url: str) -> Callable[[Any], None]:
    """Put a message on the queue."""
    client = sqs_client(elasticmq)

    def put(body: Any) -> None:
        client.send_message(QueueUrl=url, MessageBody=body if isinstance(body, str) else orjson.dumps(body).decode())

    return put


@pytest.fixture
def left(elasticmq: Service, url: str) -> Callable[[], int]:
    """How many messages are on the queue, received or not."""
    client = sqs_client(elasticmq)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> int:
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    return left


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Open producers; all are stopped at the end."""
    benches: list[Bench] = []
    stores: list[S3Store] = []

    def opened(bury: Bury | None = None, scope: Scope | None = None, **more: Any) -> Bench:
        source = source_of(url)
        stores.append(open_store(source, Path()))
        benches.append(Bench(SqsProducer(source, stores[-1], scope or Scope(), bury=bury, **more)))
        return benches[-1]

    yield opened
    for bench in benches:
        bench.end()
    for store in stores:
        store.close()


class TestSqs(ProducerContract):
    """The contract: no S3 server here tells SQS, so that the test puts on the queue what S3 would."""

    @pytest.fixture
    def made(self, versitygw: Service, unique: str, url: str, put: Callable[[Any], None]) -> Iterator[Made]:
        """A bucket and a queue of their own for each test."""
        client = s3_client(versitygw)
        client.create_bucket(Bucket=unique)
        source = source_of(url, f"{unique}/in").model_copy(update={"endpoint": versitygw.url})
        store = open_store(source, Path())
        producer = SqsProducer(source, store, Scope())

        def tell(key: str, name: str, **found: Any) -> None:
            told = {"key": quote_plus(f"in/{key}"), "sequencer": f"{next(_numbers):016X}", **found}
            record = {"eventName": name, "s3": {"bucket": {"name": unique}, "object": told}}
            put({"Records": [record | {"eventTime": "2026-11-22T17:23:21.000Z"}]})

        def put_object(key: str, content: bytes) -> None:
            etag = client.put_object(Bucket=unique, Key=f"in/{key}", Body=content)["ETag"].strip('"')
            tell(key, "ObjectCreated:Put", eTag=etag, size=len(content))

        def delete(key: str) -> None:
            client.delete_object(Bucket=unique, Key=f"in/{key}")
            tell(key, "ObjectRemoved:Delete")

        yield Made(producer, store, put_object, delete)
        producer.close()
        store.close()


def s3_event(*keys: str, name: str = "ObjectCreated:Put", bucket: str = "bucket1") -> dict[str, Any]:
    """An S3 event on some keys, which are encoded already."""
    place = {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}
    return {
        "Records": [
            {"eventName": name, "s3": {"bucket": place, "object": {"key": key, "size": 1, "eTag": f"e-{key}"}}}
            for key in keys
        ]
    }


def eventbridge(key: str, what: str = "Object Created") -> dict[str, Any]:
    """The same as EventBridge says it."""
    detail = {"bucket": {"name": "bucket1"}, "object": {"key": key, "size": 1, "etag": "e"}}
    return {"source": "aws.s3", "detail-type": what, "time": "2026-11-22T17:23:21Z", "detail": detail}


def test_all_shapes_become_events(opened: Open, put: Callable[[Any], None], left: Callable[[], int]) -> None:
    """S3 events with several records and encoded keys, EventBridge, SNS, deletions, and tests."""
    put({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket1"})
    put(s3_event("in/a+b%2B%C3%BC.json", "in/second.json"))
    put(s3_event("in/gone.json", name="ObjectRemoved:Delete"))
    put(eventbridge("in/c+d %.json"))
    put({"Type": "Notification", "Message": orjson.dumps(s3_event("in/sns.json")).decode()})
    events = {event.key: event for event in opened().settle(5)}

    assert set(events) == {"a b+ü.json", "second.json", "gone.json", "c+d %.json", "sns.json"}
    assert events["a b+ü.json"].version == "e-in/a+b%2B%C3%BC.json"
    assert [key for key, event in events.items() if event.kind == "deleted"] == ["gone.json"]
    assert {event.source for event in events.values()} == {"inbox"}
    assert left() == 0


def test_what_is_not_the_sources_is_left_out(opened: Open, put: Callable[[Any], None], left: Callable[[], int]) -> None:
    """Other buckets, other folders and keys out of scope give no event, and their messages go."""
    put(s3_event("in/a.json", bucket="other"))
    put(s3_event("inside/a.json", "in/", "in/a.csv", "in/b.json"))
    events = opened(scope=Scope(["*.json"])).settle(1)

    assert [event.key for event in events] == ["b.json"]
    assert_soon(lambda: left() == 0)


def test_a_message_goes_only_when_its_events_are_published(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int]
) -> None:
    """Until it is settled a message stays, and a producer that ends gives it back at once."""
    put(s3_event("in/a.json"))
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
    opened: Open, put: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its events can't be published, a message is extended beyond its first time-out."""
    monkeypatch.setattr(sqs, "VISIBILITY_SECONDS", 2)
    put(s3_event("in/a.json"))
    first = opened()
    waiting = first.next()
    second = opened()
    found: list[Notices] = []
    threading.Thread(target=lambda: found.append(second.next()), daemon=True).start()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert not found
        time.sleep(0.1)  # what is waited for is that nothing happens
    waiting.settle()
    put(s3_event("in/b.json"))
    assert_soon(lambda: bool(found))

    assert [event.key for event in found[0].events] == ["b.json"]
    found[0].settle()


def test_a_message_that_cannot_be_read_goes_to_the_dead_letters(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int]
) -> None:
    """It is put aside with its reason, and the others are read."""
    buried: list[UndecodableEvent] = []
    deep = "[" * 1000 + "]" * 1000
    put("not JSON")
    put({"Records": [{"eventName": "ObjectCreated:Put"}]})
    put(deep)
    put(s3_event("in/a.json"))
    events = opened(bury=buried.extend).settle(1)

    assert [event.key for event in events] == ["a.json"]
    assert_soon(lambda: left() == 0)
    told = {b"not JSON", b'{"Records":[{"eventName":"ObjectCreated:Put"}]}', deep.encode()}
    assert {letter.body for letter in buried} == told
    assert all(letter.reason for letter in buried)


def test_a_key_that_cannot_be_kept_is_put_aside(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int]
) -> None:
    """A message with a key that no ledger holds goes to the dead letters with why, and its other keys are read."""
    buried: list[UndecodableEvent] = []
    body = s3_event("in/a.json", "in/nul%00", "in/" + "k" * 1025)
    put(body)
    events = opened(bury=buried.extend).settle(1)

    assert [event.key for event in events] == ["a.json"]
    assert_soon(lambda: left() == 0)
    assert buried == [UndecodableEvent(orjson.dumps(body), "the key holds a NUL character")]


def test_a_dead_letter_that_cannot_be_kept_is_not_deleted(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int]
) -> None:
    """While the dead letters don't answer, the message stays where it is."""

    def bury(_letters: Any) -> None:
        raise UnavailableError("the log is down")

    put("not JSON")
    bench = opened(bury=bury)
    notices = bench.next()
    with pytest.raises(UnavailableError, match="log is down"):
        notices.put_aside()
    assert left() == 1


class RefusingLog:
    """An event log whose servers refuse us, events or dead letters, until a person has `mended` it."""

    def __init__(self, inner: Any, *refused: str) -> None:
        self.inner = inner
        self.refused = refused
        self.mended = threading.Event()
        self.tries = 0
        self.buried: list[UndecodableEvent] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """As `EventLog.publish`."""
        self._refuse("publish")
        return self.inner.publish(events)  # type: ignore[no-any-return]

    def bury(self, letters: Sequence[UndecodableEvent]) -> None:
        """As the log on Kafka does."""
        self._refuse("bury")
        self.buried += letters

    def _refuse(self, what: str) -> None:
        if what in self.refused and not self.mended.is_set():
            self.tries += 1
            raise UsageError("kafka://broker refuses us: TopicAuthorizationFailedError")


def redriving(elasticmq: Service, url: str, most: int) -> str:
    """Give a queue another one for what was received so often; its URL."""
    client = sqs_client(elasticmq)
    dead: str = client.create_queue(QueueName=f"{url.rpartition('/')[2]}dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = orjson.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": most}).decode()
    client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    return dead


@pytest.mark.parametrize("refused", ["publish", "bury"])
def test_a_log_that_refuses_us_leaves_nothing_to_the_queues_redrive(
    elasticmq: Service, house: House, put: Callable[[Any], None], left: Callable[[], int], url: str,
    monkeypatch: pytest.MonkeyPatch, refused: str,
) -> None:  # fmt: skip
    """However long the log refuses events or dead letters, no message is received so often that the queue's redrive
    policy takes it, and all are published or put aside afterwards, once."""
    monkeypatch.setattr(waiting, "LONGEST_SECONDS", 0.2)
    dead = redriving(elasticmq, url, 3)
    log = RefusingLog(house.log, refused)
    house.log = log  # type: ignore[assignment]
    store = open_store(source_of(url), Path())
    producer = SqsProducer(source_of(url), store, Scope(), bury=log.bury)
    put(s3_event("in/a.json"))
    put("not JSON")
    put(s3_event("in/b.json"))
    runner = threading.Thread(target=SourceRunner(house.passes(poll=3600.0), producer).run, args=(house.stop,))
    runner.start()
    try:
        assert_soon(lambda: log.tries > 8)
        log.mended.set()
        assert_soon(lambda: left() == 0)
    finally:
        house.stop.set()
        runner.join()
        producer.close()
        store.close()

    assert sqs_client(elasticmq).receive_message(QueueUrl=dead).get("Messages", []) == []
    assert sorted(event.key for event in house.published()) == ["a.json", "b.json"]
    assert [letter.body for letter in log.buried] == [b"not JSON"]


def test_without_dead_letters_the_queues_own_redrive_counts(
    elasticmq: Service, opened: Open, put: Callable[[Any], None], left: Callable[[], int], url: str
) -> None:
    """A queue with a redrive policy keeps what can't be read, for SQS to move."""
    redriving(elasticmq, url, 2)
    put("not JSON")
    put(s3_event("in/a.json"))
    opened().settle(1)

    assert left() == 1


def test_without_any_dead_letters_what_is_dropped_is_logged(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """A message that would come for ever is dropped aloud."""
    put("not JSON")
    with caplog.at_level(logging.ERROR):
        opened().next().settle()

    assert left() == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_shared_queue_is_routed_to_all_its_sources(
    opened: Open, put: Callable[[Any], None], left: Callable[[], int]
) -> None:
    """Whoever receives a message publishes the events of every source that it concerns."""

    def route(bucket: str, key: str) -> list[Target]:
        return [Target(f"{bucket}-{at}", key) for at in (1, 2)]

    put(s3_event("a.json", bucket="any"))
    events = opened(route=route).settle(2)

    assert [event.source for event in events] == ["any-1", "any-2"]


def test_many_messages_come_in_few_requests(
    opened: Open, elasticmq: Service, url: str, left: Callable[[], int]
) -> None:
    """A backlog is fetched many messages at a time, and each once."""
    client = sqs_client(elasticmq)
    for at in range(0, 300, 10):
        entries = [
            {"Id": str(n), "MessageBody": orjson.dumps(s3_event(f"in/{n}")).decode()} for n in range(at, at + 10)
        ]
        client.send_message_batch(QueueUrl=url, Entries=entries)
    bench = opened()
    notices = bench.next()
    assert len(notices.events) > 20
    notices.settle()
    events = [*notices.events, *bench.settle(300 - len(notices.events))]

    assert sorted(int(event.key) for event in events) == list(range(300))
    assert_soon(lambda: left() == 0)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"])
def test_a_queue_may_be_named(
    elasticmq: Service, put: Callable[[Any], None], unique: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A name is looked up where the standard variables say that SQS is."""
    monkeypatch.setenv(variable, elasticmq.url)
    put(s3_event("in/a.json"))
    store = open_store(source_of(unique), Path())
    bench = Bench(SqsProducer(source_of(unique), store, Scope()))

    assert [event.key for event in bench.settle(1)] == ["a.json"]
    bench.end()
    store.close()


def test_a_queue_that_is_not_there_is_unavailable(elasticmq: Service, unique: str) -> None:
    """It may be made later; the error names the source."""
    source = source_of(f"{elasticmq.url}/000000000000/{unique}-not")
    store = open_store(source, Path())
    bench = Bench(SqsProducer(source, store, Scope()))
    with pytest.raises(UnavailableError, match="inbox"):
        bench.next()
    bench.end()
    store.close()


def test_a_source_without_a_queue_is_refused() -> None:
    """The producer needs `notifications`."""
    store = open_store(source_of(None), Path())
    with pytest.raises(UsageError, match="notifications"):
        SqsProducer(source_of(None), store, Scope())
    store.close()


def assert_soon(condition: Callable[[], bool]) -> None:
    """A condition comes true before long."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
