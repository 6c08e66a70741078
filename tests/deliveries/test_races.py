"""What is done by hand beside a sender that works, on PostgreSQL, where both write at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pipeline.ledger.deliveries import Item, Taken
from pipeline.sinks.postgres import batching
from pipeline.sinks.postgres.database import Transaction
from tests.deliveries.desk import Desk
from tests.ledger.bench import Bench

Writing = Callable[[Transaction, int, int, Item], None]


def _refused(tx: Transaction, delivery: int, batch: int, item: Item) -> None:
    """The remote has refused a task of the batch."""
    page = Taken((), None, [item], 10, (), (), {})
    batching.take(tx, (delivery, batch), page, 60.0)
    batching.refuse(tx, delivery, batch, {item.id: "bad"}, sent=True)


def _too_large(tx: Transaction, delivery: int, batch: int, item: Item) -> None:
    """The task is larger than any import may be."""
    batching.take(tx, (delivery, batch), Taken((), None, (), 0, (), (), {item.id: "too_large"}, [item]), 60.0)
    batching.rest(tx, delivery)


@pytest.mark.parametrize("write", [_refused, _too_large])
def test_what_is_refused_while_others_are_put_back(postgres_bench: Bench, postgres_place: str, write: Writing) -> None:
    """A task that a sender sets aside while somebody puts refused ones back is put back, too, or stays set aside: it
    never is neither."""
    desk = Desk(postgres_bench)
    postgres_bench.imported("a", texts=("x",))
    granted = desk.granted()
    assert granted is not None
    delivery, lease = granted.delivery, granted.lease
    assert desk.ledger.start(delivery, lease, "sender", 60.0) is not None
    batch = desk.ledger.begin(delivery, lease)
    assert batch is not None
    waiting, *_ = desk.ledger.peek(delivery, 10).waiting
    postgres_bench.execute("UPDATE outbox SET done_at = now()")

    with psycopg.connect(postgres_place) as connection, ThreadPoolExecutor(1) as by_hand:
        tx = Transaction(connection, 0.0)
        assert batching.held(tx, delivery, lease)
        # Who deletes of it waits; who only reads does not.
        tx.execute("LOCK TABLE delivered IN SHARE MODE")
        retried = by_hand.submit(desk.ledger.retry, delivery)
        _until_it_waits(postgres_bench)
        write(tx, delivery, batch, waiting.item)
        connection.commit()
        assert retried.result() == 1

    assert desk.report()["refused"] == 0
    desk.steps()
    assert desk.remote.texts() == ["x"]


def _until_it_waits(bench: Bench) -> None:
    """Wait until a session of this test waits for a lock."""
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name = current_setting('application_name')"
    )
    deadline = time.monotonic() + 10
    while bench.execute(waits) == [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
