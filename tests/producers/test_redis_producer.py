"""Keyspace notifications of a real Redis server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import UnavailableError
from pipeline.producers.redis import RedisProducer
from pipeline.stores.redis import RedisStore, open_store
from pipeline.stores.scope import Scope
from tests.producers.contract import Made, ProducerContract, listening

LOUD = {"notify-keyspace-events": "K$hgxe"}


@pytest.fixture
def server(own_redis: Callable[..., Service]) -> Service:
    """A server that notifies of what is needed, and of nothing else."""
    return own_redis(**LOUD)


@pytest.fixture
def client(server: Service) -> Iterator[redis.Redis]:
    """A client of it."""
    with redis.Redis.from_url(server.url) as client:
        yield client


def source_of(server: Service, options: str = "prefix=in:") -> Source:
    """A source on a server."""
    return Source(name="inbox", project="p", url=f"redis://127.0.0.1:{server.port}/0?{options}")


@pytest.fixture
def made(server: Service, client: redis.Redis) -> Iterator[Made]:
    """A producer of the keys that begin with `in:`."""
    source = source_of(server)
    store = open_store(source, Path())
    producer = RedisProducer(source, store, Scope(exclude=("*.tmp",)))
    yield Made(producer, store, lambda key, content: _set(client, key, content), lambda key: _delete(client, key))
    producer.close()
    store.close()


def _set(client: redis.Redis, key: str, content: bytes) -> None:
    client.set(f"in:{key}", content)


def _delete(client: redis.Redis, key: str) -> None:
    client.delete(f"in:{key}")


class TestRedisProducer(ProducerContract):
    """The contract of all producers."""


def test_what_is_noticed(made: Made, client: redis.Redis) -> None:
    """Strings, hashes, expiry and renaming are noticed, each under its key; what is not covered is not."""
    with listening(made.producer) as listener:
        client.set("out:a", "x")
        client.set("in:a.tmp", "x")
        client.hset("in:h", "text", "x")
        assert listener.event("h", "updated").version is None
        client.set("in:e", "x", px=1)
        listener.event("e", "deleted")
        client.rename("in:h", "in:r")
        listener.event("r", "updated")
        client.append("in:s", "x")
        listener.event("s", "updated")
        seen = {event.key for notices in listener.seen for event in notices.events}

    assert "h" in seen
    assert seen <= {"h", "e", "r", "s"}


def test_many_changes_of_a_key_are_one_event(made: Made, client: redis.Redis) -> None:
    """What changes together is told once, as it is in the end."""
    with listening(made.producer) as listener:
        with client.pipeline() as pipeline:
            for number in range(200):
                pipeline.set("in:a", str(number))
            pipeline.delete("in:a")
            pipeline.execute()
        listener.event("a", "deleted")

        events = [event for notices in listener.seen for event in notices.events]
        assert len(events) < 20


def test_a_lost_connection_is_told(made: Made, client: redis.Redis) -> None:
    """When the server cuts a listener off, as it does with a slow one, changes may have been missed: it says so."""
    notices = made.producer.notices(threading.Event())
    assert next(notices).lost
    client.client_kill_filter(_type="pubsub")
    with pytest.raises(UnavailableError, match="does not answer"):
        next(notices)
    with listening(made.producer) as again:
        assert again.seen[-1].lost


def test_a_server_that_does_not_notify(own_redis: Callable[..., Service]) -> None:
    """What is missing is said with what to set; with `notify=set` it is set, beside what others have set."""
    server = own_redis(**{"notify-keyspace-events": "El"})
    source = source_of(server)
    producer = RedisProducer(source, open_store(source, Path()), Scope())
    with pytest.raises(UnavailableError, match=r"CONFIG SET notify-keyspace-events \$EKeghlx"):
        next(producer.notices(threading.Event()))

    source = source_of(server, "prefix=in:&notify=set")
    store: RedisStore = open_store(source, Path())
    with listening(RedisProducer(source, store, Scope())), redis.Redis.from_url(server.url) as client:
        found = client.config_get("notify-keyspace-events")
        assert set(found["notify-keyspace-events"]) >= set("KEl$hgxe")  # type: ignore[index]  # not awaited


def test_what_an_acl_forbids(server: Service, client: redis.Redis) -> None:
    """A user who may not listen is told so, without its password."""
    client.acl_setuser("mute", enabled=True, passwords=["+pw"], categories=["+@all"], keys=["*"], reset=True)
    source = Source(name="inbox", project="p", url=f"redis://mute:pw@127.0.0.1:{server.port}/0?prefix=in:")
    producer = RedisProducer(source, open_store(source, Path()), Scope())
    with pytest.raises(UnavailableError, match="our user may not do this") as raised:
        next(producer.notices(threading.Event()))
    assert raised.value.code == "permission"
