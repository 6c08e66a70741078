"""What the log on Kafka promises beyond the contract: wire format, native notifications, replay, faults."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient

from deploy import services
from deploy.services import Service
from pipeline.bus.kafka import KafkaLog, KafkaOptions, parse
from pipeline.bus.kafka.codec import Message
from pipeline.bus.kafka.writer import Writer
from pipeline.errors import ConfigError, UnavailableError
from pipeline.events import ObjectEvent, Sequencer
from pipeline.notifications import Target
from tests.bus.contract import events_of, nothing, some, take
from tests.servers import s3_client

HANDOVER_SECONDS = 15.0
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def everything(bucket: str, key: str) -> list[Target]:
    """A route: each bucket is the source of its name."""
    return [Target(bucket, key)]


@pytest.fixture(scope="module", autouse=True)
def cut_off() -> Iterator[None]:
    """Collect the sockets of the client's failed attempts here: it leaves them to the garbage collector."""
    yield
    gc.collect()


@pytest.fixture
def options(kafka_url: str) -> KafkaOptions:
    """Options of a topic of this test alone, with a group of its own."""
    return parse(f"{kafka_url}?partitions=3&retention=1h&group={kafka_url.rpartition('/')[2]}")


@pytest.fixture
def log(options: KafkaOptions) -> Iterator[KafkaLog]:
    """The log of this test."""
    with closing(KafkaLog(options, everything)) as opened:
        yield opened


def raw(options: KafkaOptions, topic: str) -> list[Any]:
    """Every message of a topic, as any consumer sees it."""
    reader = KafkaConsumer(bootstrap_servers=options.bootstrap[0], enable_auto_commit=False)
    with closing(reader):
        places = [TopicPartition(topic, at) for at in reader.partitions_for_topic(topic)]
        reader.assign(places)
        reader.seek_to_beginning()
        ends = sum(reader.end_offsets(places).values())
        found: list[Any] = []
        while len(found) < ends:
            for batch in reader.poll(500).values():
                found += batch
    return found


def test_messages_are_cloudevents_in_binary_mode(log: KafkaLog, options: KafkaOptions) -> None:
    """Attributes are `ce_` headers, the data is the value, and the key is source and object key."""
    log.publish(
        [ObjectEvent("inbox", "a/ü.json", version="e1", sequencer=Sequencer("s3", "0A"), size=7, time=1.0, id="i")]
    )
    (message,) = raw(options, options.topic)

    assert message.key == "inbox/a/ü.json".encode()
    assert orjson.loads(message.value) == {"version": "e1", "size": 7, "modified": None}
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"i",
        "ce_type": b"labelfeed.object.created.v1",
        "ce_source": b"inbox",
        "ce_subject": "a/ü.json".encode(),
        "ce_time": b"1970-01-01T00:00:01+00:00",
        "ce_discoveredby": b"listing",
        "ce_sequencer": b"s3:0A",
        "content-type": b"application/json",
    }


def test_the_topic_is_made_as_configured(log: KafkaLog, options: KafkaOptions) -> None:
    """A missing topic, and that of its dead letters, get the configured partitions and retention."""
    log.ping()
    with closing(KafkaAdminClient(bootstrap_servers=options.bootstrap[0])) as admin:
        topics = {
            row["name"]: len(row["partitions"]) for row in admin.describe_topics([options.topic, options.dead_topic])
        }
        (found,) = admin.describe_configs([ConfigResource("TOPIC", options.topic)]).values()

    assert topics == {options.topic: 3, options.dead_topic: 3}
    assert found[options.topic]["retention.ms"]["value"] == "3600000"


def test_a_topic_that_was_made_anew_has_another_name(log: KafkaLog, options: KafkaOptions) -> None:
    """Its offsets count from 0 again, so the ledger must not go on from the old ones."""
    before = log.name
    with closing(KafkaAdminClient(bootstrap_servers=options.bootstrap[0])) as admin:
        admin.delete_topics([options.topic])
        assert_soon(lambda: options.topic not in admin.list_topics())
    with closing(KafkaLog(options)) as again:
        assert again.name != before


def told_of_one_object(gateway: Service, log: KafkaLog, notifications: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a server writes to the topic of an object that is put into a bucket and deleted, by kind of event."""
    client = s3_client(gateway)
    client.create_bucket(Bucket="bucket1")
    if notifications is not None:
        client.put_bucket_notification_configuration(Bucket="bucket1", NotificationConfiguration=notifications)
    etag = client.put_object(Bucket="bucket1", Key="in/new file+ü.json", Body=b"{}")["ETag"].strip('"')
    client.delete_object(Bucket="bucket1", Key="in/new file+ü.json")
    with closing(log.consumer(nothing)) as consumer:
        records, _ = take(consumer, 2)
    told = {event.kind: event for event in events_of(records)}

    assert {event.key for event in told.values()} == {"in/new file+ü.json"}
    assert (told["created"].source, told["created"].version, told["created"].size) == ("bucket1", etag, 2)
    return told


def test_a_bucket_that_notifies_kafka_needs_no_watcher(
    log: KafkaLog, options: KafkaOptions, kafka: Service, versitygw: Service, unique: str
) -> None:
    """What versitygw itself writes to the topic arrives as events, its test message as nothing."""
    log.ping()
    settings = {"kafka": kafka.address, "topic": options.topic}
    with services.using("versitygw", unique, settings=settings) as gateway:
        told = told_of_one_object(gateway, log)

    assert told["deleted"].version is None


if services.obtained("minio"):
    # It takes minutes to build, and is on request: `python -m deploy.services up minio`.

    def test_a_bucket_of_minio_that_notifies_kafka_needs_no_watcher(
        log: KafkaLog, options: KafkaOptions, kafka: Service, unique: str
    ) -> None:
        """What MinIO itself writes to the topic arrives as events with the store's own version and order."""
        log.ping()
        settings = {"kafka": kafka.address, "topic": options.topic}
        target = {"QueueArn": "arn:minio:sqs::PRIMARY:kafka", "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        with services.using("minio", unique, settings=settings) as minio:
            told = told_of_one_object(minio, log, {"QueueConfigurations": [target]})

        assert told["deleted"].sequencer.after(told["created"].sequencer)


def test_a_message_of_a_store_may_hold_several_objects(log: KafkaLog, options: KafkaOptions) -> None:
    """They come as several records with one offset, and are passed over together."""
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k", "eTag": "e"}}}
    other = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "c"}, "object": {"key": "k", "eTag": "e"}}}
    log.ping()
    with closing(Writer(options)) as writer:
        writer.send(options.topic, [Message(b"s3", orjson.dumps({"Records": [record, other]}), [])])
    with closing(log.consumer(nothing)) as consumer:
        records, positions = take(consumer, 2)

    assert [event.source for event in events_of(records)] == ["b", "c"]
    assert {(record.partition, record.offset) for record in records} == {(records[0].partition, 0)}
    assert positions[records[0].partition] == 1


def test_dead_letters_say_whence_they_came_and_can_be_replayed(log: KafkaLog, options: KafkaOptions) -> None:
    """A dead letter is the original with its place and reason, and `replay` brings each back once."""
    (event,) = some(1)
    place = log.publish([event])
    with closing(log.consumer(nothing)) as consumer:
        records, _ = take(consumer, 1)
        consumer.dead(records, ["refused: no such source"])
        (letter,) = raw(options, options.dead_topic)
        (original,) = raw(options, options.topic)
        headers = dict(letter.headers)

        assert (letter.key, letter.value) == (original.key, original.value)
        assert headers.items() >= dict(original.headers).items()
        assert headers["labelfeed-reason"] == b"refused: no such source"
        assert headers["labelfeed-topic"] == options.topic.encode()
        assert {int(headers["labelfeed-partition"]): int(headers["labelfeed-offset"]) + 1} == place

        assert log.replay_dead() == 1
        again, _ = take(consumer, 1)
        assert events_of(again) == [event._replace(discovered_by="replay")]
        assert log.replay_dead() == 0


def test_lag_is_what_was_not_committed(log: KafkaLog) -> None:
    """Lag falls with commits, not with polls."""
    log.publish(some(20))
    with closing(log.consumer(nothing)) as consumer:
        _, positions = take(consumer, 20)
        assert sum(log.lag().values()) == 20
        consumer.commit(positions)
        assert_soon(lambda: sum(log.lag().values()) == 0)


def test_a_ledger_that_does_not_answer_is_asked_again(log: KafkaLog) -> None:
    """While the ledger can't say where to begin, nothing is read; then reading begins there."""
    answers = iter([UnavailableError("the database is down")])

    def start(_partitions: Any) -> dict[int, int]:
        for error in answers:
            raise error
        return {}

    log.publish(some(5))
    with closing(log.consumer(start)) as consumer:
        with pytest.raises(UnavailableError, match="database"):
            take(consumer, 1)
        assert len(take(consumer, 5)[0]) == 5


def test_a_closed_consumer_leaves_its_partitions_at_once(log: KafkaLog) -> None:
    """A dispatcher that ends in good order doesn't make the others wait for its session to time out."""
    first, second = log.consumer(nothing), log.consumer(nothing)
    log.publish(some(30))
    take(first, 30)
    seen = pump(second, lambda: first.poll(100, 0.1))
    assert seen < 30
    first.close()
    began = time.monotonic()
    log.publish(some(30, "after"))
    take(second, 30)

    assert time.monotonic() - began < 5
    second.close()


CHILD = """
import sys
from pipeline.bus.kafka import KafkaLog, parse
log = KafkaLog(parse(sys.argv[1]))
consumer = log.consumer(lambda partitions: {})
while True:
    for record in consumer.poll(100, 0.2).records:
        print(record.offset, flush=True)
"""


def test_a_killed_dispatcher_s_partitions_move_within_fifteen_seconds(log: KafkaLog, options: KafkaOptions) -> None:
    """After SIGKILL of the only other member, all of its partitions are read here in time."""
    log.publish(some(30))
    url = f"kafka://{options.bootstrap[0]}/{options.topic}?group={options.group}"
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", CHILD, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(30):
        assert child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    killed = time.monotonic()
    child.communicate()
    with closing(log.consumer(nothing)) as consumer:
        take(consumer, 30)

    assert time.monotonic() - killed < HANDOVER_SECONDS


def test_a_broker_that_restarts_loses_nothing(kafka: Service, unique: str) -> None:
    """Publishing and polling go on by themselves after the broker was killed and started again."""
    with services.using("kafka", unique) as broker, closing(KafkaLog(parse(f"{broker.url}/t?partitions=2"))) as log:
        log.publish(some(10, "before"))
        consumer = log.consumer(nothing)
        take(consumer, 10)
        restarting = threading.Thread(target=services.restart, args=(broker,), kwargs={"hard": True})
        restarting.start()
        published = persist(lambda: log.publish(some(10, "after")))
        restarting.join()
        records: list[ObjectEvent] = []
        while len({event.key for event in records if event.source == "after"}) < 10:
            records += events_of(persist(lambda: consumer.poll(100, 0.5)).records)

        assert sum(published.values()) >= 10
        consumer.close()


def test_a_broker_that_is_not_there_is_unavailable() -> None:
    """Who can't reach Kafka is told so, by address, in bounded time."""
    with (
        closing(KafkaLog(parse("kafka://127.0.0.1:1/topic"))) as log,
        pytest.raises(UnavailableError, match=r"127[.]0[.]0[.]1:1"),
    ):
        log.publish(some(1))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("kafka://host:9092", "host:9092/topic"),
        ("kafka:///topic", "host:9092/topic"),
        ("kafka://host/topic?partition=3", "partitions"),
        ("kafka://host/topic?partitions=many", "partitions"),
        ("kafka://user:hunter2@host/topic", "no user and password"),
    ],
)
def test_a_wrong_url_is_explained(url: str, word: str) -> None:
    """What is wrong with an URL is said, with what would be right, and without its secret."""
    with pytest.raises(ConfigError, match=word) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_the_url_says_all_but_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Security is configured in the URL, passwords in the environment, and neither shows in the canonical form."""
    monkeypatch.setenv("LABELFEED_KAFKA_PASSWORD", "hunter2")
    options = parse("kafka://a,b:1/t?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&sasl_username=u&retention=7d")

    assert options.bootstrap == ("a:9092", "b:1")
    assert options.retention == 7 * 86400
    assert options.client()["sasl_plain_password"] == "hunter2"
    assert options.canonical == "kafka://a:9092,b:1/t"
    assert "hunter2" not in repr(options)


def assert_soon(condition: Any) -> None:
    """A condition comes true before long."""
    persist(lambda: condition() or None)


def persist(attempt: Any) -> Any:
    """The first answer of something that may be unavailable at first, or have none."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = attempt()
        except UnavailableError:
            continue
        if answer is not None:
            return answer
    raise AssertionError("nothing came of it in a minute")


def wait_past(at: float) -> None:
    """Return when the clock's millisecond is another one."""
    persist(lambda: time.time() - at > 0.005 or None)


def pump(second: Any, other: Any) -> int:
    """Let a second member join; how many records it reads meanwhile. It owns something when it reads."""
    seen = 0
    deadline = time.monotonic() + 20
    while not seen and time.monotonic() < deadline:
        other()
        seen += len(second.poll(100, 0.2).records)
    return seen
