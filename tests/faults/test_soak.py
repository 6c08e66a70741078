"""A soak: roles are killed at random, Redis is flushed, storage is slow, a transaction stays open, files come,
change and go.

`LABELFEED_SOAK` is how many seconds it lasts; `make soak` makes it an hour.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from threading import Event

import psutil
import psycopg
import pytest
import redis

from deploy.services import HOST, Service
from pipeline.ledger import HISTORY_LIMIT
from tests.faults.conftest import Make
from tests.faults.installation import Installation, Role, until
from tests.faults.network import Proxy

SECONDS = float(os.environ.get("LABELFEED_SOAK", "25"))
ROLES = ("watch", "dispatch", "work", "work")
PAUSE_SECONDS = 1.0
OPEN_SECONDS = 20.0
"""How long a transaction is left open at a time."""
MEMORY_LIMIT = 400 * 1024**2
"""Bytes that a role may take at any time."""
SLOW_MILLISECONDS = 300
SLOW_SECONDS = 5.0
ACTS = ("kill", "kill", "flush", "suspend", "slow", "nothing")
BOUNDS = {
    "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM history GROUP BY object_id) AS h": HISTORY_LIMIT,
    "SELECT count(*) FROM leases": 0,
    "SELECT count(*) FROM imports WHERE state = 'staged'": 0,
}
"""What may be left in the ledger when all is done."""


@pytest.mark.timeout(SECONDS + 300)
def test_soak(make: Make, own: Callable[[str], Service], versitygw: Service, toxiproxy: Service, unique: str) -> None:
    """Whatever is killed whenever, every object is imported exactly once as it is at the end; memory and the ledger
    are bounded."""
    queue = own("redis")
    storage = Proxy.to(toxiproxy, unique, versitygw.port)
    source = {"on_change": "replace", "on_delete": "archive", "endpoint": f"http://{HOST}:{storage.port}"}
    installation = make(queue=queue.url, source=source)
    roles = [installation.start(name) for name in ROLES]
    seed = random.randrange(2**32)
    try:
        _Torment(installation, roles, queue, storage, random.Random(seed)).run()
        until(lambda: _whole(installation), 120.0, lambda: f"seed {seed}: {installation.explain()}")
        installation.imported()
        installation.exactly_once()
        until(lambda: not _beyond(installation), what=lambda: f"seed {seed}: {_beyond(installation)}")
    finally:
        storage.remove()


class _Torment:
    """One thing after another that no installation should ever see so many of."""

    def __init__(
        self, installation: Installation, roles: list[Role], queue: Service, storage: Proxy, chance: random.Random
    ) -> None:
        self._installation = installation
        self._roles = roles
        self._queue = queue
        self._storage = storage
        self._chance = chance
        self._keys: list[str] = []
        self._pause = Event()

    def run(self) -> None:
        ended = time.monotonic() + SECONDS
        opened = 0.0
        with psycopg.connect(self._installation.database) as reader:
            while time.monotonic() < ended:
                self._change_files()
                self._act(self._chance.choice(ACTS))
                if time.monotonic() - opened > OPEN_SECONDS:
                    reader.rollback()
                    reader.execute("SELECT count(*) FROM pg_class")
                    opened = time.monotonic()
                self._weigh()
                self._pause.wait(self._chance.uniform(0, PAUSE_SECONDS))

    def _change_files(self) -> None:
        chance, keys = self._chance, self._keys
        keys += self._installation.put(chance.randrange(5, 30))
        for key in chance.sample(keys, min(3, len(keys))):
            self._installation.overwrite(key, f"changed {chance.randrange(1_000_000)}")
        if len(keys) > 100:
            self._installation.delete(keys.pop(chance.randrange(len(keys))))

    def _act(self, act: str) -> None:
        victim = self._chance.randrange(len(self._roles))
        if act == "kill":
            self._roles[victim].kill()
            self._roles[victim] = self._installation.start(ROLES[victim])
        elif act == "flush":
            with redis.Redis(port=self._queue.port) as flusher:
                flusher.flushall()
        elif act == "suspend":
            self._roles[victim].suspend()
            self._pause.wait(self._chance.uniform(0, SLOW_SECONDS))
            self._roles[victim].resume()
        elif act == "slow":
            self._storage.slow(SLOW_MILLISECONDS)
            self._pause.wait(self._chance.uniform(0, SLOW_SECONDS))
            self._storage.hurry()

    def _weigh(self) -> None:
        for role in self._roles:
            size = psutil.Process(role.process.pid).memory_info().rss
            assert size < MEMORY_LIMIT, f"{role.name} takes {size} bytes"


def _beyond(installation: Installation) -> dict[str, object]:
    """What is beyond its bound in the ledger."""
    with psycopg.connect(installation.database) as reader:
        found = {question: (reader.execute(question).fetchone() or (None,))[0] for question in BOUNDS}
    return {
        question: count for question, count in found.items() if not isinstance(count, int) or count > BOUNDS[question]
    }


def _whole(installation: Installation) -> bool:
    """Whether the tasks are those of the last contents, and nothing waits."""
    counts = installation.counts()
    waiting = sum(counts.get(state, 0) for state in ("ready", "claimed", "running"))
    if waiting or counts.get("done", 0) != len(installation.wanted):
        return False
    return sorted(installation.tasks()) == sorted(installation.wanted.items())
