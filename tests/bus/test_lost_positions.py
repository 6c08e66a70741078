"""A PostgreSQL that loses its last commits under a live dispatcher gets them again from Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import psycopg
import pytest

from pipeline.bus.kafka import KafkaLog, open_log
from pipeline.consumers import dispatcher
from pipeline.consumers.dispatcher import Dispatcher, Scope
from pipeline.events import ObjectEvent
from pipeline.ledger import Filter
from pipeline.metrics import Metrics
from pipeline.sinks.postgres import PostgresLedger
from tests.bus.test_backlog import until
from tests.consumers.house import dispatching
from tests.ledger.bench import SOURCES

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
KEPT, LOST = 20, 40


@pytest.mark.parametrize("idle", [True, False])
def test_lost_commits_are_recorded_again(
    kafka_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    """Objects and positions of the last batches are gone after a fail-over: with the next event, or soon if none
    comes, the dispatcher that recorded them reads them again, and each key is there once."""
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 0.2 if idle else 3600.0)
    url = f"{kafka_url}?partitions=2&session=3&group={kafka_url.rpartition('/')[2]}"
    metrics = Metrics()
    with closing(PostgresLedger(database_url)) as ledger, closing(open_log(url, lambda _bucket, _key: ())) as log:
        ledger.migrate()
        ledger.register(SOURCES)
        with dispatching(Dispatcher(log, ledger, {"inbox": Scope(lambda _key: True, "ignore")}, metrics)):
            publish(log, ledger, range(KEPT))
            kept = ledger.positions(log.name)
            publish(log, ledger, range(KEPT, KEPT + LOST))
            assert all(ledger.positions(log.name)[partition] > place for partition, place in kept.items())
            lose(database_url, kept)
            publish(log, ledger, [] if idle else [KEPT + LOST])
        keys = [row["key"] for row in ledger.reports().objects(Filter(source="inbox"), 0, 2 * LOST)]
    assert sorted(keys) == [f"{number:02}" for number in range(KEPT + LOST + (not idle))]
    assert metrics.registry.get_sample_value("labelfeed_errors_total", {"stage": "record", "code": "positions_lost"})


def publish(log: KafkaLog, ledger: PostgresLedger, numbers: Sequence[int]) -> None:
    """Put an event of each key on the log, and wait until the ledger has all that is there."""
    log.publish([ObjectEvent("inbox", f"{number:02}", version="v") for number in numbers])
    until(lambda: ledger.positions(log.name) == log.end())


def lose(database_url: str, kept: dict[int, int]) -> None:
    """Take back all that was recorded after the first keys."""
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM objects WHERE key >= %s", (f"{KEPT:02}",))
        connection.execute("DELETE FROM counters")
        for partition, place in kept.items():
            connection.execute("UPDATE positions SET position = %s WHERE partition = %s", (place, partition))
