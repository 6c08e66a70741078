"""The log on Kafka keeps the contract of event logs."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from deploy.services import Service
from pipeline.bus import EventLog
from pipeline.bus.kafka import KafkaLog, connection, parse
from pipeline.bus.kafka.codec import Message
from pipeline.bus.kafka.writer import Writer
from tests.bus.contract import Bench, LogContract

# kafka-python leaves a socket to the collector now and then: it is collected here, where its warning is none of ours.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class TestKafkaLog(LogContract):
    """The contract, over a topic of a real broker."""

    @pytest.fixture
    def bench(self, kafka: Service, kafka_url: str) -> Iterator[Bench]:
        """A topic of its own for each test."""
        options = parse(f"{kafka_url}?partitions=3&group={kafka_url.rpartition('/')[2]}")
        writer = Writer(options)

        def opened() -> EventLog:
            return KafkaLog(options)

        def inject(body: bytes) -> None:
            writer.send(options.topic, [Message(b"k", body, [])])

        yield Bench(opened, inject, lambda: dead_letters(options.dead_topic, kafka))
        writer.close()
        gc.collect()


def dead_letters(topic: str, kafka: Service) -> list[tuple[bytes, str]]:
    """Every message of a topic of dead letters, with its reason."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.address, auto_offset_reset="earliest", enable_auto_commit=False)
    with closing(consumer):
        places = [TopicPartition(topic, at) for at in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        found: list[tuple[bytes, str]] = []
        while len(found) < sum(ends.values()):
            for batch in consumer.poll(500).values():
                found += [(record.value, dict(record.headers)["labelfeed-reason"].decode()) for record in batch]
    return found


def test_partitions_that_are_added_have_a_lag(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is open sees, before long, the partitions that its topic is given, whatever its options say."""
    options = parse(kafka_url)
    with closing(KafkaLog(parse(f"{kafka_url}?partitions=1"))) as maker:
        maker.ping()
    with closing(KafkaLog(options)) as log:
        assert log.end() == {0: 0}
        with closing(KafkaAdminClient(bootstrap_servers=options.bootstrap[0])) as admin:
            admin.create_partitions({options.topic: 3})
        monkeypatch.setattr(connection, "DESCRIBED_SECONDS", 0.0)
        deadline = time.monotonic() + 20
        while len(log.end()) < 3:
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
        assert log.end() == {0: 0, 1: 0, 2: 0}
    gc.collect()
