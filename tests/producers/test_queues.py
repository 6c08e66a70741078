"""What takes from queues: nothing is passed over and nothing is taken twice, whoever takes and however it ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import UnavailableError
from pipeline.ledger import Filter, Outcome, Reason, SourceIdentity
from pipeline.metrics import Metrics
from pipeline.producers.queues import Taking
from pipeline.stores.redis import ListStore, StreamStore, open_list, open_stream
from tests.producers.conftest import House, until


class Bench:
    """A queue on a server, and any number that take from it."""

    def __init__(self, house: House, server: Service, key: str, kind: str) -> None:
        self.house = house
        self.key = key
        self.stop = threading.Event()
        self.client = redis.Redis.from_url(server.url)
        self.kind = kind
        options = "?batch=5&trim=yes" if kind == "stream" else "?batch=5"
        url = f"redis+{kind}://127.0.0.1:{server.port}/0/{key}{options}"
        self.source = Source(name="inbox", project="p", url=url)
        identity = SourceIdentity("inbox", "p", self.store().identity(), self.source.url, "shape")
        (row,) = house.ledger.register([identity], accept=frozenset({"inbox"}))
        self.source_id = row.id

    def store(self) -> StreamStore | ListStore:
        """Another client of the queue."""
        return (open_stream if self.kind == "stream" else open_list)(self.source, Path())

    def taking(self) -> Taking:
        """Another one that takes."""
        return Taking(self.source, self.source_id, self.store(), self.house.ledger, Metrics())

    def push(self, count: int) -> None:
        """So many entries."""
        for _ in range(count):
            if self.kind == "stream":
                self.client.xadd(self.key, {"task": '{"text":"a"}'})
            else:
                self.client.rpush(self.key, '{"text":"a"}')

    def keys(self) -> list[str]:
        """The batches that the ledger knows."""
        return sorted(row["key"] for row in self.house.ledger.reports().objects(Filter(), 0, 100_000))

    def entries(self) -> int:
        """How many entries are in these batches."""
        return sum(self._count(key) for key in self.keys())

    def _count(self, key: str) -> int:
        with self.store().open(key) as reading:
            return reading.stream().read().count(b"\x1e")

    def work(self, failed: str = "") -> None:
        """Bring all that is recorded to done, but for one batch."""
        for claim in self.house._claim():
            work = self.house.ledger.start(claim.lease, "tester", 60)
            outcomes = [
                Outcome(each.id, "failed", version=each.wanted, reason=Reason("syntax", "it is broken"))
                if each.key == failed
                else Outcome(each.id, "done", version=each.wanted)
                for each in work
            ]
            self.house.ledger.commit(claim.lease, outcomes)


@pytest.fixture(params=["stream", "list"])
def bench(house: House, redis_server: Service, unique: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A queue of this test alone."""
    made = Bench(house, redis_server, unique, request.param)
    yield made
    for key in made.client.scan_iter(match=f"{unique}*", count=10_000):
        made.client.delete(key)


def test_many_that_take_at_the_same_time(bench: Bench) -> None:
    """Several that take while others push: each entry is in one batch."""

    def take() -> None:
        taking = bench.taking()
        while not bench.stop.is_set():
            taking.take(bench.stop, "notification")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        bench.push(10)
    until(lambda: bench.taking().take(threading.Event(), "listing") == 0 and bench.entries() == 200)
    bench.stop.set()
    for thread in threads:
        thread.join()
    assert len(bench.keys()) >= 40


def test_what_was_not_recorded_is_taken_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the ledger does not answer when a batch was taken, the same entries are recorded later, once."""
    bench.push(12)
    taking = bench.taking()

    def away(*_: object) -> Any:
        raise UnavailableError("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(bench.house.ledger, "record_ranges", away)
        patched.setattr(bench.house.ledger, "record", away)
        with pytest.raises(UnavailableError):
            taking.take(bench.stop, "notification")
    assert bench.keys() == []
    taking.take(bench.stop, "notification")
    assert bench.entries() == 12


def test_what_another_one_left_is_found(bench: Bench) -> None:
    """Entries that somebody took and did not record, as it was killed, are recorded by the next pass of another."""
    survivor = bench.taking()
    survivor.take(bench.stop, "listing")
    bench.push(7)
    bench.store().take(None, 100)
    survivor.take(bench.stop, "listing")
    assert bench.entries() == 7


def test_settling(bench: Bench) -> None:
    """What is imported leaves the queue, what is not stays; one that starts later settles what another had taken."""
    bench.push(12)
    first = bench.taking()
    first.take(bench.stop, "listing")
    first.settle()
    assert bench.entries() == 12
    bench.work()
    bench.push(3)
    second = bench.taking()
    second.take(bench.stop, "listing")
    second.settle()
    left = bench.client.xlen(bench.key) if bench.kind == "stream" else len(bench.store().list(None, 100).entries)
    assert left == (3 if bench.kind == "stream" else 1)
    bench.work()
    second.settle()
    first.settle()
    assert bench.client.keys(f"{bench.key}:*") == []
    assert bench.kind == "list" or bench.client.xlen(bench.key) == 0


def test_noticing(bench: Bench) -> None:
    """What is pushed is recorded as it comes, without a pass; stopping ends it soon."""
    taking = bench.taking()
    notices = taking.notices(bench.stop)
    assert next(notices).lost
    bench.push(3)
    assert next(notices).events == ()
    assert bench.entries() == 3
    bench.stop.set()
    assert list(notices) == []


def test_a_failed_range_holds_up_trimming(house: House, redis_server: Service, unique: str) -> None:
    """A stream is not trimmed behind a range that may be tried again."""
    bench = Bench(house, redis_server, unique, "stream")
    bench.push(15)
    taking = bench.taking()
    taking.take(bench.stop, "listing")
    _, second, _ = sorted(bench.keys(), key=lambda key: [int(number) for number in re.findall(r"\d+", key)])
    bench.work(failed=second)
    taking.settle()
    assert bench.client.xlen(unique) == 10
    (row,) = house.ledger.reports().find("inbox", second)
    assert house.ledger.reports().retry([row["id"]], force=False) == {}
    bench.work()
    taking.settle()
    assert bench.client.xlen(unique) == 0
    bench.client.delete(unique)
