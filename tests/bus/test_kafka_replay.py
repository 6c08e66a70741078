"""A span of the log that is replayed is replayed whole, or the rest of it is named."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from deploy import services
from deploy.services import Service
from pipeline.bus.kafka import KafkaLog, parse, replay
from pipeline.errors import UnavailableError
from tests.bus.contract import some

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for nothing for a shorter time, and collect the sockets of the client's failed attempts here."""
    monkeypatch.setattr(replay, "QUIET_POLLS", 3)
    monkeypatch.setattr(replay, "REQUEST_MS", 2000)
    yield
    gc.collect()


def test_a_broker_that_goes_away_leaves_no_span_half_replayed(
    kafka: Service, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka is stopped once a span is begun: what was not read is named with its offsets, and can be read later."""
    del kafka
    opened = replay._reader
    with services.using("kafka", unique) as broker, closing(KafkaLog(parse(f"{broker.url}/t?partitions=1"))) as log:
        log.publish(some(30))

        def cut_off(*args: Any) -> Any:
            reader = opened(*args)
            services.kill(broker)
            return reader

        monkeypatch.setattr(replay, "_reader", cut_off)
        with pytest.raises(UnavailableError, match=r"partition 0 from offset 10 to 30 is left"):
            log.replay({0: (10, 30)})
        monkeypatch.setattr(replay, "_reader", opened)
        services.restart(broker)
        assert log.replay({0: (10, 30)}) == 20


def test_what_is_past_retention_is_not_waited_for_as_missing(kafka_url: str) -> None:
    """Of a span whose beginning is gone the rest is replayed, of one that is gone nothing, and neither is an error."""
    options = parse(f"{kafka_url}?partitions=1")
    with closing(KafkaLog(options)) as log:
        log.publish(some(30))
        with closing(KafkaAdminClient(bootstrap_servers=options.bootstrap[0])) as admin:
            admin.delete_records({TopicPartition(options.topic, 0): 20})
        assert log.replay({0: (0, 10)}) == 0
        assert log.replay({0: (0, 30)}) == 10
