"""Batches that cannot be read, as foreign producers write them and bad disks leave them: what is said of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer, TopicPartition, codec
from kafka.admin import KafkaAdminClient

from deploy import services
from deploy.services import Service
from pipeline.bus.kafka import KafkaLog, KafkaOptions, parse
from pipeline.errors import UnavailableError
from tests.bus.contract import events_of, nothing, some, take

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def cut_off() -> Iterator[None]:
    """Collect the sockets of the client's failed attempts here: it leaves them to the garbage collector."""
    yield
    gc.collect()


def write(options: KafkaOptions, compression: str | None) -> None:
    """Write a batch as somebody else does."""
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap[0], compression_type=compression, metrics_enabled=False
    )
    with closing(producer):
        producer.send(options.topic, b"x" * 1000, partition=0).get(30)


@pytest.mark.parametrize(("method", "package"), [("snappy", "python-snappy"), ("zstd", "zstandard")])
def test_a_batch_without_its_library_names_the_package(
    kafka_url: str, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    """Of what a foreign producer compressed with a library that is missing here, the package and the place are told;
    with the library it is read."""
    options = parse(f"{kafka_url}?partitions=1&group={kafka_url.rpartition('/')[2]}")
    with closing(KafkaLog(options)) as log:
        log.publish(some(3))
        write(options, method)
        with closing(log.consumer(nothing)) as consumer:
            assert len(take(consumer, 4)[0]) == 4
        with monkeypatch.context() as patch, closing(log.consumer(nothing)) as consumer:
            patch.setattr(codec, f"has_{method}", lambda: False)
            with pytest.raises(UnavailableError) as caught:
                take(consumer, 4)
        assert "partition 0: the batch of the offsets 3 to 3" in str(caught.value)
        assert f"compressed with {method}; install {package}" in str(caught.value)
        monkeypatch.setattr(codec, f"has_{method}", lambda: False)
        with pytest.raises(UnavailableError, match=package):
            log.replay({0: (0, 4)})


def test_a_damaged_batch_is_told_as_what_it_is(kafka: Service, unique: str) -> None:
    """Of a batch whose bytes are not what was written the place is told, by a dispatcher and by `replay`; and what is
    told to do about it helps."""
    del kafka
    with services.using("kafka", unique) as broker, closing(KafkaLog(parse(f"{broker.url}/t?partitions=1"))) as log:
        for number in range(3):
            log.publish(some(10, f"{number}"))
        damage(Path(broker.data) / "log" / "t-0" / f"{0:020}.log")
        for attempt in (lambda: log.replay({0: (0, 30)}), lambda: read(log)):
            with pytest.raises(UnavailableError) as caught:
                attempt()
            assert "partition 0: the batch of the offsets 10 to 19 is damaged" in str(caught.value)
            assert "kafka-delete-records.sh with this partition and the offset 20" in str(caught.value)
            assert caught.value.code == "unreadable_batch"
        with closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
            admin.delete_records({TopicPartition("t", 0): 20})
        with closing(log.consumer(lambda _partitions: {0: 10})) as consumer:
            # The first batch is there twice: `replay` had put it back.
            assert {event.source for event in events_of(take(consumer, 20)[0])} == {"0", "2"}


def read(log: KafkaLog) -> None:
    """Read on from the ledger's place."""
    with closing(log.consumer(lambda _partitions: {0: 10})) as consumer:
        take(consumer, 20)


def damage(segment: Path) -> None:
    """Change a byte in the middle of the second batch of a segment."""
    content = bytearray(segment.read_bytes())
    first = 12 + int.from_bytes(content[8:12], "big")
    second = 12 + int.from_bytes(content[first + 8 : first + 12], "big")
    content[first + second - 1] ^= 0xFF
    with segment.open("r+b") as file:
        file.write(content)
