"""A Redis stream worked by roles in processes of their own, on PostgreSQL, which are killed at the worst moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from deploy.services import Service
from pipeline import cli
from tests.faults.installation import Installation, until


@dataclass
class Stream:
    """A stream as a place: what is put is added."""

    server: Service
    key: str

    @property
    def url(self) -> str:
        """As the configuration names it."""
        return f"redis+stream://127.0.0.1:{self.server.port}/0/{self.key}?batch=20&trim=yes&group=feed"

    def put(self, key: str, content: bytes) -> None:
        """Add an entry."""
        with redis.Redis.from_url(self.server.url) as client:
            client.xadd(self.key, {"task": content})

    def delete(self, key: str) -> None:
        """There is no such thing."""
        raise NotImplementedError

    def length(self) -> int:
        """How many entries there are."""
        with redis.Redis.from_url(self.server.url) as client:
            return int(client.xlen(self.key))  # type: ignore[arg-type]  # not awaited


@pytest.fixture
def stream(redis_server: Service, unique: str) -> Iterator[Stream]:
    """A stream of this test alone."""
    yield Stream(redis_server, f"{unique}:tasks")
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete(f"{unique}:tasks")


def texts(installation: Installation) -> Counter[str]:
    """The texts of all tasks."""
    return Counter(text for _, text in installation.tasks())


def test_roles_that_are_killed(make: Callable[..., Installation], stream: Stream) -> None:
    """The watcher is killed after it recorded, the worker before and after it commits: each entry is a task once."""
    made = make(place=stream)
    made.put(120)
    made.start("watch", fault="watcher.recorded").killed()
    made.start("dispatch", "watch")
    made.start("work", fault="worker.before_commit").killed()
    made.put(80)
    stream.put("bad", b"{")
    made.start("work", fault="worker.committed").killed()
    made.start("work")
    wanted = Counter(made.wanted.values())

    until(lambda: texts(made) == wanted, what=made.explain)
    until(lambda: cli.run(["verify", "--config", str(made.config)]) == 0, what=made.explain)
    until(lambda: stream.length() == 0, what="trimming")
    assert made.counts()["rejected"] == 1
