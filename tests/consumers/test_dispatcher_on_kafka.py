"""The dispatcher on a real Kafka: what others wrote there stops nothing."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.producer import producer_batch
from kafka.serializer import Serializer

from pipeline import cli
from pipeline.bus import Consumer
from pipeline.bus.kafka import KafkaLog, KafkaOptions, parse
from pipeline.consumers.dispatcher import Dispatcher, Scope
from pipeline.events import ObjectEvent, UndecodableEvent
from tests.bus.contract import take
from tests.bus.test_backlog import until
from tests.consumers.house import House, dispatching

DEADLINE_SECONDS = 60.0
LARGE = 1_048_000
"""Bytes of a record that a topic of Kafka's defaults just takes, if they can't be compressed."""
FOREIGN = (
    b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
    b'{"Records": [{"eventName": "ObjectTagging:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}]}',
    b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "theirs"}, "object": {"key": "k"}}}]}',
)
"""What a store writes that concerns nobody here."""
DEEP = b"[" * 1000 + b"]" * 1000
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def cut_off() -> Iterator[None]:
    """Collect the sockets of the client's failed attempts here: it leaves them to the garbage collector."""
    yield
    gc.collect()


@pytest.fixture
def options(kafka_url: str) -> KafkaOptions:
    """A topic of one partition, in which order is kept, of this test alone."""
    return parse(f"{kafka_url}?partitions=1&group={kafka_url.rpartition('/')[2]}")


@pytest.fixture
def log(options: KafkaOptions) -> Iterator[KafkaLog]:
    """The log of this test, its topics made."""
    with closing(KafkaLog(options)) as opened:
        opened.ping()
        yield opened


class WithNull(Serializer):  # type: ignore[misc]  # kafka-python has no types
    """Adds null headers to a record, which the client writes, but does not take from its caller."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def serialize(self, _topic: str, headers: list[Any], data: bytes) -> bytes:
        """The value as it is."""
        headers += [(name, None) for name in self._names]
        return data


def write(options: KafkaOptions, value: bytes, *null: str, **settings: Any) -> None:
    """Write a record as somebody else does, with these headers null."""
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap[0], value_serializer=WithNull(null), metrics_enabled=False, **settings
    )
    with closing(producer), pytest.MonkeyPatch.context() as patch:
        # It measures what it has written as if no value were null.
        patch.setattr(producer_batch, "len", lambda each: len(each or b""), raising=False)
        producer.send(options.topic, value).get(30)


def dispatched(house: House, log: KafkaLog, done: Callable[[], bool]) -> None:
    """Let a dispatcher take what the log gives until it has done what is waited for."""
    scopes = {name: Scope(lambda _key: True, feed.source.on_change) for name, feed in house.feeds.items()}
    dispatcher = Dispatcher(log, house.ledger, scopes, house.metrics)
    deadline = time.monotonic() + DEADLINE_SECONDS
    consumer: Consumer
    with closing(log.consumer(lambda _partitions: {})) as consumer:
        while not done():
            assert time.monotonic() < deadline, house.states()
            dispatcher.take(consumer, consumer.poll(1000, 0.2))


def letters(options: KafkaOptions) -> list[Any]:
    """Every dead letter, as any consumer sees it."""
    reader = KafkaConsumer(
        bootstrap_servers=options.bootstrap[0], enable_auto_commit=False, max_partition_fetch_bytes=8 << 20
    )
    with closing(reader):
        place = TopicPartition(options.dead_topic, 0)
        reader.assign([place])
        reader.seek_to_beginning()
        end = reader.end_offsets([place])[place]
        found: list[Any] = []
        while len(found) < end:
            for batch in reader.poll(500).values():
                found += batch
    return found


def test_records_that_cannot_be_read_stop_nothing(house: House, log: KafkaLog, options: KafkaOptions) -> None:
    """A null header and a value nested without end become dead letters with reasons, and what is behind is recorded."""
    log.publish([ObjectEvent("inbox", "before", version="v")])
    write(options, b"null", "content-type", "ce_subject")
    write(options, DEEP)
    log.publish([ObjectEvent("inbox", "after", version="v")])

    dispatched(house, log, lambda: "after" in house.states())

    assert house.states() == {"before": "ready", "after": "ready"}
    found = letters(options)
    assert [letter.value for letter in found] == [b"null", DEEP]
    assert b"null" in dict(found[0].headers)["labelfeed-reason"]
    assert dict(found[1].headers)["labelfeed-reason"]
    assert {letter.event.body for letter in log.dead_letters(10)} == {b"null", DEEP}  # type: ignore[union-attr]

    assert log.replay_dead() == 2
    dispatched(house, log, lambda: len(letters(options)) >= 4)


def test_messages_that_concern_nobody_are_behind_us(house: House, log: KafkaLog, options: KafkaOptions) -> None:
    """A topic with nothing but others' notifications has no lag, neither by the ledger nor by the group, and none of
    them is read again."""
    for value in FOREIGN:
        write(options, value)
    with dispatching(Dispatcher(log, house.ledger, {}, house.metrics)):
        until(lambda: house.ledger.positions(log.name) == log.end() and not sum(log.lag().values()))

    assert log.end() == {0: len(FOREIGN)}
    assert house.metric("dead_letters_total", reason="unreadable") in {None, 0}
    with closing(log.consumer(lambda _partitions: house.ledger.positions(log.name))) as consumer:
        log.publish([ObjectEvent("inbox", "behind")])
        _, positions = take(consumer, 1)
        assert positions == {0: len(FOREIGN) + 1}


def test_the_end_of_a_transaction_is_behind_us(house: House, log: KafkaLog, options: KafkaOptions) -> None:
    """What another program writes in transactions ends with a mark that no client gives: it leaves no lag, and none of
    what is behind it is passed over."""
    producer = KafkaProducer(bootstrap_servers=options.bootstrap[0], transactional_id=options.group)
    with closing(producer):
        producer.init_transactions()
        for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
            producer.begin_transaction()
            producer.send(options.topic, FOREIGN[0]).get(10)
            end()
    with dispatching(Dispatcher(log, house.ledger, {}, house.metrics)):
        until(lambda: house.ledger.positions(log.name) == log.end() and not sum(log.lag().values()))
    assert log.end() == {0: 6}
    with closing(log.consumer(lambda _partitions: house.ledger.positions(log.name))) as consumer:
        log.publish([ObjectEvent("inbox", "behind")])
        _, positions = take(consumer, 1)
        assert positions == {0: 7}


def limit_dead_letters(options: KafkaOptions, size: int) -> None:
    """Give the topic of dead letters a limit, as one has that is older or was made by somebody else."""
    limited = ConfigResource("TOPIC", options.dead_topic, {"max.message.bytes": str(size)})
    with closing(KafkaAdminClient(bootstrap_servers=options.bootstrap[0])) as admin:
        admin.alter_configs([limited])


def test_a_large_record_that_cannot_be_read_is_kept_whole(house: House, log: KafkaLog, options: KafkaOptions) -> None:
    """As large a record as a topic takes becomes a dead letter as it is, as does a queue's message, and none blocks."""
    body = os.urandom(LARGE)
    write(options, body, max_request_size=2 * LARGE)
    log.publish([ObjectEvent("inbox", "after", version="v")])
    log.bury([UndecodableEvent(body, "of a queue")])

    dispatched(house, log, lambda: "after" in house.states())

    assert [letter.value == body for letter in letters(options)] == [True, True]
    assert log.replay_dead() == 2


def test_what_is_too_large_for_the_dead_letters_is_cut(
    house: House, log: KafkaLog, options: KafkaOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a record that no dead letter can hold the beginning is kept with its length; `replay` refuses it, with why."""
    limit_dead_letters(options, 100_000)
    body = os.urandom(LARGE)
    write(options, body, max_request_size=2 * LARGE)
    write(options, b"small")
    log.publish([ObjectEvent("inbox", "after", version="v")])

    dispatched(house, log, lambda: "after" in house.states())

    whole, cut = sorted(letters(options), key=lambda letter: len(letter.value))
    told = dict(cut.headers)
    assert (whole.value, "labelfeed-truncated" in dict(whole.headers)) == (b"small", False)
    assert body.startswith(cut.value)
    assert 80_000 < len(cut.value) < 100_000
    assert told["labelfeed-truncated"] == str(LARGE).encode()
    assert told["labelfeed-reason"]
    assert told["labelfeed-offset"] == b"0"

    config = house.folder / "labelfeed.yaml"
    url = f"kafka://{options.bootstrap[0]}/{options.topic}?group={options.group}"
    config.write_text(f"events: {url}\nprojects: {{p: {{}}}}\nsources: [{{name: inbox, project: p, url: ./inbox}}]\n")
    capsys.readouterr()
    assert cli.run(["replay", "--json", "--config", str(config)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["replayed"] == 1
    assert str(LARGE) in answer["refused"][0]
