"""A soak: roles are killed at random, Redis is flushed, a transaction stays open, files come, change and go.

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

from deploy.services import Service
from tests.faults.conftest import Make
from tests.faults.installation import Installation, Role, until

SECONDS = float(os.environ.get("LABELFEED_SOAK", "25"))
ROLES = ("watch", "dispatch", "work", "work")
PAUSE_SECONDS = 1.0
OPEN_SECONDS = 20.0
"""How long a transaction is left open at a time."""
MEMORY_LIMIT = 400 * 1024**2
"""Bytes that a role may take at any time."""


@pytest.mark.timeout(SECONDS + 300)
def test_soak(make: Make, own: Callable[[str], Service]) -> None:
    """Whatever is killed whenever, every object is imported exactly once as it is at the end; memory is bounded."""
    queue = own("redis")
    installation = make(queue=queue.url, source={"on_change": "replace", "on_delete": "archive"})
    roles = [installation.start(name) for name in ROLES]
    seed = random.randrange(2**32)
    _torment(installation, roles, queue, random.Random(seed))
    until(lambda: _whole(installation), 120.0, lambda: f"seed {seed}: {installation.explain()}")
    installation.imported()
    installation.exactly_once()


def _torment(installation: Installation, roles: list[Role], queue: Service, chance: random.Random) -> None:
    ended = time.monotonic() + SECONDS
    pause, flusher = Event(), redis.Redis(port=queue.port)
    keys: list[str] = []
    reader = psycopg.connect(installation.database)
    opened = 0.0
    while time.monotonic() < ended:
        keys += installation.put(chance.randrange(5, 30))
        for key in chance.sample(keys, min(3, len(keys))):
            installation.overwrite(key, f"changed {chance.randrange(1_000_000)}")
        if len(keys) > 100:
            gone = keys.pop(chance.randrange(len(keys)))
            installation.delete(gone)
        victim = chance.randrange(len(roles))
        act = chance.choice(("kill", "kill", "flush", "suspend", "nothing"))
        if act == "kill":
            roles[victim].kill()
            roles[victim] = installation.start(ROLES[victim])
        elif act == "flush":
            flusher.flushall()
        elif act == "suspend":
            roles[victim].suspend()
            pause.wait(chance.uniform(0, 5))
            roles[victim].resume()
        if time.monotonic() - opened > OPEN_SECONDS:
            reader.rollback()
            reader.execute("SELECT count(*) FROM objects" if installation.counts().get("done") else "SELECT 1")
            opened = time.monotonic()
        for role in roles:
            size = psutil.Process(role.process.pid).memory_info().rss
            assert size < MEMORY_LIMIT, f"{role.name} takes {size} bytes"
        pause.wait(chance.uniform(0, PAUSE_SECONDS))
    reader.close()
    flusher.close()


def _whole(installation: Installation) -> bool:
    """Whether the tasks are those of the last contents, and nothing waits."""
    counts = installation.counts()
    waiting = sum(counts.get(state, 0) for state in ("ready", "claimed", "running"))
    if waiting or counts.get("done", 0) != len(installation.wanted):
        return False
    return sorted(installation.tasks()) == sorted(installation.wanted.items())
