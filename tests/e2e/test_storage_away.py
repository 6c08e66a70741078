"""`run --once` whose storage goes away in the middle: it ends, says what waits, and the next run goes on."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from deploy import services
from deploy.services import HOST, Service
from tests.e2e.house import House, until
from tests.servers import needed, s3_client

pytestmark = pytest.mark.timeout(300)

OBJECTS = 30
LIMITS = {"storage_patience": "2s", "backoff": "50ms", "attempts": 3, "workers": 1, "batch_objects": 10}
"""Patience for tests; and so few attempts that an outage which used them up would show."""


@dataclass
class Storage:
    """A server of this test alone, and how objects come into it."""

    server: Service
    url: str
    put: Callable[[str, bytes], Any]

    def put_all(self) -> Counter[str]:
        """Objects of one task each; gives their texts."""
        for n in range(OBJECTS):
            self.put(f"o{n:02}", json.dumps({"text": f"away {n}"}).encode())
        return Counter(f"away {n}" for n in range(OBJECTS))


@pytest.fixture
def values(own_redis: Callable[..., Service]) -> Storage:
    """Redis, with an object under each key."""
    server = own_redis(appendonly="yes")

    def put(key: str, content: bytes) -> None:
        with redis.Redis.from_url(server.url) as client:
            client.set(f"in:{key}", content)

    return Storage(server, f"redis://{HOST}:{server.port}/0?prefix=in:", put)


@pytest.fixture
def bucket(aws: None, unique: str) -> Iterator[Storage]:
    """A bucket of a SeaweedFS of its own."""
    with started("seaweedfs", unique) as server:
        client = s3_client(server)
        client.create_bucket(Bucket=unique)

        def put(key: str, content: bytes) -> None:
            client.put_object(Bucket=unique, Key=f"{key}.json", Body=content)

        yield Storage(server, f"s3://{unique}?endpoint={server.url}", put)


@contextmanager
def started(name: str, instance: str) -> Iterator[Service]:
    """A server for as long as the block runs."""
    with ExitStack() as stack:
        with needed():
            server = stack.enter_context(services.using(name, instance))
        yield server


def configure(house: House, storage: Storage, **top: Any) -> None:
    """A source in the storage, and one that has nothing to do with it."""
    away = {"name": "away", "project": "p", "url": storage.url}
    near = {"name": "near", "project": "p", "url": "./inbox"}
    house.configure(sources=[away, near], limits=LIMITS, **top)


def texts(house: House) -> Counter[str]:
    """The texts of all tasks, as the command prints them."""
    lines = house.look("tasks").out.splitlines()
    return Counter(json.loads(line)["data"]["text"] for line in lines)


def states(house: House) -> Counter[str]:
    """How many objects of the storage are in each state."""
    ended = house.look("objects", "--source", "away", "--json", "--limit", "1000")
    return Counter(row["state"] for row in ended.json())


def told(house: House) -> Mapping[str, Any]:
    """What `status` says of the storage's source."""
    rows = house.look("status", "--json").json()["sources"]
    return next(dict(row) for row in rows if row["name"] == "away")


def goes_away(house: House, storage: Storage) -> None:
    """Let the storage go away once all is listed and before anything of it is read; the run ends and says so."""
    running = house.start("run", "--once", fault="worker.started:1:STOP")
    until(running.suspended)
    services.kill(storage.server)
    running.signal(signal.SIGCONT)
    ended = running.end()
    assert ended.code == 1, ended.err
    assert "next run goes on" in ended.err


def stays_away(house: House) -> Counter[str]:
    """However many runs find it away, each ends with exit code 1 and says why and since when, nothing fails, and the
    other source is imported; gives what came of that."""
    near = Counter(data["text"] for (data,) in house.put_tasks(5).values())
    first = told(house)["unanswered"]["since"]
    for _ in range(2):
        ended = house.run("run", "--once", "--json")
        assert ended.code == 1, ended.err
        (row,) = [row for row in ended.json() if row["source"] == "away"]
        assert row["problem"]
        assert (row["failed"], row["unanswered"]["since"]) == (0, first)
        assert row["unanswered"]["objects"] <= row["waiting"]
    # What stands on a queue that processes share is claimed until the next run takes it.
    assert set(states(house)) <= {"ready", "claimed"}
    assert "have waited for its storage since" in house.look("status").out
    assert texts(house) == near
    return near


def comes_back(house: House, expected: Counter[str]) -> None:
    """The next run imports all that waited, each once."""
    (row,) = [row for row in house.once("--json").json() if row["source"] == "away"]
    assert (row["waiting"], row["problem"], row["unanswered"]) == (0, "", None)
    assert texts(house) == expected
    assert set(states(house)) == {"done"}
    assert told(house)["unanswered"] is None
    assert house.look("verify").code == 0


def test_embedded(house: House, values: Storage) -> None:
    """A storage that is killed in mid-run ends the run after its patience; the next ones do what can be done."""
    configure(house, values)
    expected = values.put_all()
    goes_away(house, values)
    expected += stays_away(house)
    services.restart(values.server)
    comes_back(house, expected)


def test_distributed(house: House, bucket: Storage, database_url: str, kafka_url: str, redis_url: str) -> None:
    """With PostgreSQL, Kafka and a queue on Redis a bucket whose server is killed ends the run in the same way."""
    configure(house, bucket, database=database_url, events=kafka_url, queue=redis_url)
    expected = bucket.put_all()
    goes_away(house, bucket)
    expected += stays_away(house)
    services.restart(bucket.server)
    comes_back(house, expected)


def test_a_missing_bucket_stops_no_other_source(house: House, seaweedfs: Service, aws: None, unique: str) -> None:
    """A bucket that is not there is told of by `run`, `status` and `check`; the other source is imported."""
    missing = {"name": "away", "project": "p", "url": f"s3://{unique}-not", "endpoint": seaweedfs.url}
    near = {"name": "near", "project": "p", "url": "./inbox", "settle": 0}
    house.configure(sources=[missing, near])
    house.put("a.json", json.dumps({"text": "a"}))
    ended = house.run("run", "--once")

    assert ended.code != 0
    assert "NoSuchBucket" in ended.err
    assert "Traceback" not in ended.err
    assert house.tasks("near") == {"a.json": [{"text": "a"}]}
    rows = {row["name"]: json.dumps(row) for row in house.look("status", "--json").json()["sources"]}
    assert "NoSuchBucket" in rows["away"]
    assert "NoSuchBucket" not in rows["near"]
    assert "NoSuchBucket" in house.look("check").out
