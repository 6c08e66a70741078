"""A soak: roles and servers are killed at random, Redis is flushed, storage is slow or away, a transaction stays open,
files come, change and go.

`LABELFEED_SOAK` is how many seconds it lasts; `make soak` makes it an hour.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any

import psutil
import psycopg
import pytest
import redis

from deploy import services
from deploy.services import HOST, Service
from pipeline.ledger import HISTORY_LIMIT
from tests.faults.conftest import Make
from tests.faults.installation import Bucket, Installation, Role, until
from tests.faults.network import Proxy

SECONDS = float(os.environ.get("LABELFEED_SOAK", "25"))
ROLES = ("watch", "dispatch", "work", "work")
STEADY = ("watch", "dispatch", "work")
"""Roles that nobody kills: what lives for seconds shows no growth."""
PAUSE_SECONDS = 1.0
OPEN_SECONDS = 20.0
"""How long a transaction is left open at a time."""
MEMORY_LIMIT = 400 * 1024**2
"""Bytes that a role may take at any time."""
GROWTH, TELLING_SAMPLES = 1.2, 200
"""How much more a steady role may take in the last third of a soak than in the second one, where so many looks tell."""
OBJECT_BYTES, OTHER_BYTES = 3_000, 16 * 1024**2
"""What the table of objects and its indexes may take for each object, and beside that."""
SLOW_MILLISECONDS = 300
SLOW_SECONDS = 5.0
DEPOSED_SECONDS = 14.0
"""How long a steady watcher is suspended at most, so that it does not lead for ever: longer than its leadership."""
ACTS = ("kill", "kill", "flush", "suspend", "depose", "slow", "away", "nothing")
SERVERS, KILLS_PER_HOUR = ("kafka", "postgres", "versitygw"), 10
"""Servers that are killed, and how often each is; once in a soak of a few minutes."""
BOUNDS = {
    "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM history GROUP BY object_id) AS h": HISTORY_LIMIT,
    "SELECT count(*) FROM leases": 0,
    "SELECT count(*) FROM imports WHERE state = 'staged'": 0,
    f"SELECT (pg_total_relation_size('objects') - {OTHER_BYTES}) / greatest(count(*), 1) FROM objects": OBJECT_BYTES,
}
"""What may be left in the ledger when all is done."""


@pytest.mark.timeout(SECONDS + 300)
def test_soak(make: Make, own: Callable[[str], Service], toxiproxy: Service, unique: str) -> None:
    """Whatever is killed whenever, every object is imported exactly once as it is at the end; memory and the ledger
    are bounded."""
    queue = own("redis")
    servers = {name: own(name) for name in SERVERS}
    storage = Proxy.to(toxiproxy, unique, servers["versitygw"].port)
    source = {"on_change": "replace", "on_delete": "archive", "endpoint": f"http://{HOST}:{storage.port}"}
    installation = make(
        place=Bucket(servers["versitygw"], unique),
        database=servers["postgres"].url,
        events=f"{servers['kafka'].url}/{unique}?session=3",
        queue=queue.url,
        source=source,
    )
    roles = [installation.start(name) for name in ROLES]
    seed = random.randrange(2**32)
    try:
        torment = _Torment(installation, roles, queue, storage, servers, random.Random(seed))
        torment.run()
        until(lambda: _whole(installation), 120.0, lambda: f"seed {seed}: {installation.explain()}")
        installation.imported()
        installation.exactly_once()
        until(lambda: not _beyond(installation), what=lambda: f"seed {seed}: {_beyond(installation)}")
        torment.flat()
    finally:
        storage.remove()


class _Torment:
    """One thing after another that no installation should ever see so many of."""

    def __init__(
        self, installation: Installation, roles: list[Role], queue: Service, storage: Proxy,
        servers: dict[str, Service], chance: random.Random,
    ) -> None:  # fmt: skip
        self._installation = installation
        self._roles = roles
        self._queue = queue
        self._storage = storage
        self._servers = servers
        self._chance = chance
        self._steady = [installation.start(name) for name in STEADY]
        self._sizes: list[list[int]] = []
        self._reader: psycopg.Connection[Any] | None = None
        self._keys: list[str] = []
        self._pause = Event()
        self._doomed: list[tuple[float, str]] = []
        """When which server is killed, the next one first."""

    def run(self) -> None:
        ended, opened = time.monotonic() + SECONDS, 0.0
        self._doom(ended)
        # A server that is late has its turn still: what lasts seconds may end before all have had theirs.
        while time.monotonic() < ended or self._doomed:
            self._change_files()
            self._act(self._chosen())
            if time.monotonic() - opened > OPEN_SECONDS:
                self._leave_open()
                opened = time.monotonic()
            self._weigh()
            self._pause.wait(self._chance.uniform(0, PAUSE_SECONDS))
        self._end()

    def flat(self) -> None:
        """Whether no steady role took more and more; a soak of a few minutes tells nothing of that."""
        third = len(self._sizes) // 3
        if len(self._sizes) < TELLING_SAMPLES:
            return
        for role, *sizes in zip(self._steady, *self._sizes, strict=True):
            second, last = max(sizes[third : 2 * third]), max(sizes[2 * third :])
            assert last <= GROWTH * second, f"{role.name} takes {last} bytes in the last third, {second} before"

    def _doom(self, ended: float) -> None:
        """Settle when which server is killed: at random, but each as often as it is to be."""
        times = max(1, round(KILLS_PER_HOUR * SECONDS / 3600))
        self._doomed = sorted(
            (ended - self._chance.uniform(0, SECONDS), name) for name in self._servers for _ in range(times)
        )

    def _chosen(self) -> str:
        if self._doomed and time.monotonic() >= self._doomed[0][0]:
            return self._doomed.pop(0)[1]
        return self._chance.choice(ACTS)

    def _leave_open(self) -> None:
        """Leave a transaction open, and end the one of before. Its snapshot is kept, so that no vacuum forgets what it
        may still read: in the server's usual isolation it would not be."""
        self._end()
        self._reader = psycopg.connect(self._installation.database)
        self._reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._reader.execute("SELECT count(*) FROM pg_class")

    def _end(self) -> None:
        if self._reader is not None:
            with suppress(psycopg.Error):  # its server was killed meanwhile
                self._reader.close()

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
        elif act == "depose":
            self._steady[0].suspend()
            self._pause.wait(self._chance.uniform(0, DEPOSED_SECONDS))
            self._steady[0].resume()
        elif act == "slow":
            self._storage.slow(SLOW_MILLISECONDS)
            self._pause.wait(self._chance.uniform(0, SLOW_SECONDS))
            self._storage.hurry()
        elif act == "away":
            self._storage.cut()
            self._pause.wait(self._chance.uniform(0, SLOW_SECONDS))
            self._storage.mend()
        elif act in self._servers:
            self._servers[act] = services.restart(self._servers[act], hard=True)

    def _weigh(self) -> None:
        for role in (*self._roles, *self._steady):
            assert (size := _bytes(role)) < MEMORY_LIMIT, f"{role.name} takes {size} bytes"
        self._sizes.append([_bytes(role) for role in self._steady])


def _bytes(role: Role) -> int:
    return int(psutil.Process(role.process.pid).memory_info().rss)


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
