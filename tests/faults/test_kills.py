"""Processes that are killed or suspended at the worst moments: everything is imported exactly once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from deploy.services import Service
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY
from tests.faults.installation import Bucket, Installation, until


def test_watcher_killed_after_publishing(distributed: Installation) -> None:
    """What a killed watcher published and did not remember is published again, and imported once."""
    distributed.put(60)
    distributed.start("watch", fault="watcher.published").killed()
    distributed.start("watch", "dispatch", "work")
    distributed.imported()
    distributed.exactly_once()


def test_dispatcher_killed_before_its_offsets(distributed: Installation) -> None:
    """What a killed dispatcher recorded, without a word to Kafka, is not recorded twice."""
    distributed.put(60)
    distributed.start("watch", "work")
    distributed.start("dispatch", fault="dispatcher.recorded").killed()
    distributed.start("dispatch")
    distributed.imported()
    distributed.exactly_once()


def test_scheduler_killed_between_claim_and_send(distributed: Installation) -> None:
    """Claims that no message stands for, as their scheduler was killed, become ready again when they end."""
    distributed.put(60)
    distributed.start("watch", "work")
    distributed.start("dispatch", fault="scheduler.claimed").killed()
    distributed.start("dispatch")
    distributed.imported()
    distributed.exactly_once()


def test_rebalance_in_mid_batch(distributed: Installation) -> None:
    """A dispatcher that is suspended in mid-batch, loses its partitions and goes on later records nothing twice."""
    distributed.put(60)
    distributed.start("watch", "work")
    suspended = distributed.start("dispatch", fault="dispatcher.recorded:1:STOP")
    suspended.stopped()
    other = distributed.start("dispatch")
    until(lambda: other.said("started"))
    distributed.put(60)
    distributed.imported()
    suspended.resume()
    distributed.put(60)
    distributed.imported()
    until(lambda: suspended.ready()[0] == other.ready()[0] == 200, what="both dispatchers")
    distributed.exactly_once()


@pytest.fixture(scope="module")
def fed(
    tmp_path_factory: pytest.TempPathFactory,
    kafka: Service,
    redis_server: Service,
    postgres: Service,
    versitygw: Service,
) -> Iterator[Installation]:
    """An installation that is watched and dispatched, for workers of several tests."""
    name = f"t{uuid.uuid4().hex[:16]}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        installation = Installation(
            tmp_path_factory.mktemp("fed"),
            Bucket(versitygw, name),
            database=f"{postgres.url.removesuffix('/postgres')}/{name}",
            events=f"{kafka.url}/{name}?partitions=4&session=3&group={name}",
            queue=f"{redis_server.url}?namespace={name}",
            source={"endpoint": versitygw.url},
            env={"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION},
        )
        try:
            installation.start("watch", "dispatch")
            yield installation
        finally:
            installation.close()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def _workers_end(fed: Installation, aws: None) -> Iterator[None]:
    """No worker of one test works in the next."""
    yield
    for role in fed.roles:
        if role.name == "work" and role.alive:
            role.kill()


@pytest.mark.usefixtures("_workers_end")
@pytest.mark.parametrize("point", ["before_start", "started", "before_commit", "committing", "committed"])
def test_worker_killed(fed: Installation, point: str) -> None:
    """Whatever a worker was at when it was killed is imported once, by another one."""
    fed.put(60)
    fed.start("work", fault=f"worker.{point}:2").killed()
    fed.start("work")
    fed.imported()
    fed.exactly_once()


@pytest.mark.usefixtures("_workers_end")
def test_zombie(fed: Installation) -> None:
    """A worker that was suspended for longer than its lease writes nothing when it goes on."""
    fed.put(60)
    zombie = fed.start("work", fault="worker.before_commit:1:STOP")
    zombie.stopped()
    fed.start("work")
    fed.imported()
    zombie.resume()
    until(lambda: zombie.metric("duplicates_avoided_total"), what="the zombie's commit, which writes nothing")
    until(lambda: zombie.ready()[0] == 200, what="the zombie")
    fed.put(20)
    fed.imported()
    fed.exactly_once()


@pytest.mark.usefixtures("_workers_end")
def test_suspended_within_its_commit(fed: Installation) -> None:
    """A worker that is suspended within its transaction holds up the others no longer than until the
    database ends that; its batch is imported once."""
    fed.put(40)
    sleeper = fed.start("work", fault="worker.committing:1:STOP")
    sleeper.stopped()
    fed.start("work")
    later = {(key, fed.wanted[key]) for key in fed.put(40)}
    until(lambda: later <= set(fed.tasks()), what="what came later")
    sleeper.resume()
    fed.imported()
    fed.exactly_once()


@pytest.mark.usefixtures("_workers_end")
def test_worker_killed_within_a_large_file(fed: Installation) -> None:
    """A large file whose worker was killed when a part of it was written has each row once."""
    fed.put(10)
    rows = [f"row {number} {'x' * 200}" for number in range(12_000)]
    fed.place.put("big.jsonl", b"".join(json.dumps({"text": row}).encode() + b"\n" for row in rows))
    fed.start("work", fault="worker.staged").killed()
    fed.start("work")
    fed.rows += [("big.jsonl", row) for row in rows]
    fed.imported(len(fed.wanted) + 1)
    fed.exactly_once()
