"""Processes that work on one database until they are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
import uuid
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from pipeline.ledger import Claim, Ledger, OnChange, RevisionFilter, Tick, Work
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from pipeline.tasks import Task
from tests.ledger.bench import Bench, done, pending, task

SPAWN = multiprocessing.get_context("spawn")
POLICY: dict[str, OnChange] = {"inbox": "replace", "bucket": "ignore"}
DEADLINE_SECONDS = 60.0


class Stop:
    """Tells processes to stop, without a lock: to ask an event takes its lock, and a process that is killed while it
    has that keeps all others waiting for ever."""

    def __init__(self) -> None:
        self._told = SPAWN.RawValue("b", 0)

    def set(self) -> None:
        """Tell them."""
        self._told.value = 1

    def is_set(self) -> bool:
        """Whether they were told."""
        return bool(self._told.value)


def opened(place: str) -> Ledger:
    """The ledger at a URL or a path."""
    if "://" in place:
        from pipeline.sinks.postgres import PostgresLedger

        return PostgresLedger(place)
    return SqliteLedger(SqliteFile(Path(place)))


def claim_some(ledger: Ledger, epoch: str, size: int, seconds: float) -> list[Claim]:
    """One turn of a scheduler."""

    def turn(tick: Tick) -> list[Claim]:
        tick.release(epoch)
        tick.expire(100)
        claims = []
        for source in tick.load().sources:
            found = tick.candidates(source._replace(cursor=(0.0, 0)), size)
            # A suspect runs alone; here its worker is a process that may be killed, which isn't its fault.
            if found:
                claims.append(tick.claim(source, found, epoch, seconds, alone=False))
        return claims

    return ledger.tick(turn) or []


def work(place: str, stop: Stop | threading.Event) -> None:
    """Claim, start and commit until told to stop: all roles in one process."""
    ledger = opened(place)
    epoch = f"local:{uuid.uuid4().hex}"
    ledger.hold(epoch)
    chance = random.Random(os.getpid())
    while not stop.is_set():
        for claim in claim_some(ledger, epoch, chance.randint(1, 40), 1.0):
            objects = ledger.start(claim.lease, epoch, 1.0)
            half = chance.randint(0, len(objects))
            for part in (objects[:half], objects[half:]):
                ledger.commit(claim.lease, [done(each, texts(each), mode=mode(each)) for each in part])
    ledger.close()


def texts(work: Work) -> tuple[Task, str]:
    """Two tasks of an object, the first one of this version and labelled already."""
    return task(f"{work.wanted}", annotations='["x"]'), "second"


def mode(work: object) -> str:
    """First tasks, or others in their place."""
    return "replace" if getattr(work, "live") else "new"  # noqa: B009 - a NamedTuple of another module


def claim_and_wait(place: str, epoch: str, ready: Event) -> None:
    """Claim and start something, and wait to be killed."""
    ledger = opened(place)
    ledger.hold(epoch)
    first, *_ = claim_some(ledger, epoch, 1, 3600.0)
    ledger.start(first.lease, epoch, 3600.0)
    claim_some(ledger, epoch, 1, 3600.0)
    ready.set()
    ready.wait()
    time.sleep(DEADLINE_SECONDS)


def kill_at_random(bench: Bench, place: str, *, seconds: float, keys: int) -> int:
    """Let three processes work and kill one of them again and again; how many were killed."""
    names = [f"k{number:05}" for number in range(keys)]
    bench.policy.update(POLICY)
    for first in range(0, keys, 500):
        bench.note(*names[first : first + 500])
    stop = Stop()
    workers = [_spawn(place, stop) for _ in range(3)]
    try:
        chance, killed, end = random.Random(7), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            bench.note(*chance.sample(names, 20), version=chance.choice(["v1", "v2"]))
            victim = chance.randrange(3)
            workers[victim].join(chance.uniform(0.05, 0.4))
            assert workers[victim].exitcode is None
            workers[victim].kill()
            workers[victim].join()
            workers[victim] = _spawn(place, stop)
            killed += 1
        bench.note(*names, version="v3")
        until_done(bench)
        stop.set()
        for worker in workers:
            worker.join(DEADLINE_SECONDS)
            assert worker.exitcode == 0
    finally:
        for worker in workers:
            worker.kill()  # the interpreter would wait at its end for those that a failure leaves
    return killed


def _spawn(place: str, stop: Stop) -> BaseProcess:
    process = SPAWN.Process(target=work, args=(place, stop))
    process.start()
    return process


def until_done(bench: Bench) -> None:
    """Wait until nothing waits or is under way."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while pending(bench.ledger):
        assert time.monotonic() < deadline, bench.ledger.reports().sources()
        time.sleep(0.05)


def verify_killed(bench: Bench, keys: int) -> None:
    """Each object once, at its last version, with its two tasks."""
    audits = list(bench.ledger.reports().audit(1, None, keys + 1))
    assert len(audits) == keys
    assert {(each.state, each.imported, each.live, each.imports) for each in audits} <= {("done", "v3", 2, 1)}
    assert bench.execute("SELECT count(*), count(DISTINCT key) FROM tasks") == [(2 * keys, keys)]
    proposed = bench.ledger.reports().revisions(RevisionFilter("inbox"), 0, 10 * keys)
    behind = bench.execute("SELECT id FROM tasks WHERE annotations IS NOT NULL AND revision = 1")
    assert {row["task_id"] for row in proposed} <= {task_id for (task_id,) in behind}
    assert len({row["task_id"] for row in proposed}) == len(proposed)
    for row in proposed:
        assert ('"v3"' in row["data"], '"v3"' in row["task_data"]) == (True, False)
    told = {row["task_id"] for row in proposed}
    for row in bench.ledger.reports().tasks(None, 0, 10 * keys):
        assert row["annotations"] is None or row["id"] in told or '"v3"' in row["data"]
    bench.check()
