"""Processes that are killed or suspended at the worst moments: everything is imported exactly once."""

from __future__ import annotations

import pytest

from tests.faults.installation import Installation, until


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


@pytest.mark.parametrize("point", ["before_start", "started", "before_commit", "committed"])
def test_worker_killed(distributed: Installation, point: str) -> None:
    """Whatever a worker was at when it was killed is imported once, by another one."""
    distributed.put(60)
    distributed.start("watch", "dispatch")
    distributed.start("work", fault=f"worker.{point}:2").killed()
    distributed.start("work")
    distributed.imported()
    distributed.exactly_once()


def test_zombie(distributed: Installation) -> None:
    """A worker that was suspended for longer than its lease writes nothing when it goes on."""
    distributed.put(60)
    distributed.start("watch", "dispatch")
    zombie = distributed.start("work", fault="worker.before_commit:1:STOP")
    zombie.stopped()
    distributed.start("work")
    distributed.imported()
    zombie.resume()
    until(lambda: zombie.ready()[0] == 200, what="the zombie")
    distributed.put(20)
    distributed.imported()
    distributed.exactly_once()
