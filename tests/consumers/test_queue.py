"""The embedded queue: the real Dramatiq, inside the process."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import pytest

from pipeline.consumers.broker import EmbeddedQueue, queue
from pipeline.consumers.child import ChildRunner
from pipeline.consumers.scheduler import Scheduler
from pipeline.consumers.workers import WorkerPool
from pipeline.errors import UnavailableError, UsageError
from pipeline.ledger import Claim
from tests.consumers.house import House
from tests.ledger.bench import pending


class Ran:
    """Takes claims and remembers which."""

    def __init__(self) -> None:
        self.leases: list[int] = []
        self.times: list[float] = []
        self._arrived = threading.Condition()

    def __call__(self, lease: int) -> None:
        """Take a claim."""
        with self._arrived:
            self.leases.append(lease)
            self.times.append(time.perf_counter())
            self._arrived.notify_all()

    def wait(self, count: int) -> None:
        """Until so many claims have come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.leases) >= count, 10)


def test_claims_reach_their_actors() -> None:
    """A claim's lease reaches the import threads, a suspect's the thread that is for suspects."""
    made, run, alone = EmbeddedQueue(), Ran(), Ran()
    made.start(run, alone, 2)
    made.send(Claim(1, "s", (1,)))
    made.send(Claim(2, "s", (2,), alone=True))
    run.wait(1)
    alone.wait(1)
    assert (run.leases, alone.leases) == ([1], [2])
    assert made.stop(10) == []
    made.close()


def test_suspects_do_not_hold_up_imports() -> None:
    """While a suspect runs for long, import threads go on."""
    made, run, go = EmbeddedQueue(), Ran(), threading.Event()
    made.start(run, lambda _: go.wait(10), 1)
    made.send(Claim(1, "s", (1,), alone=True))
    made.send(Claim(2, "s", (2,)))
    run.wait(1)
    go.set()
    made.stop(10)


def test_an_error_is_logged_and_the_next_claim_runs(caplog: Any) -> None:
    """An exception that leaves a worker's code ends neither the thread nor piles up anywhere."""
    made, ran = EmbeddedQueue(), Ran()

    def run(lease: int) -> None:
        ran(lease)
        raise ZeroDivisionError

    made.start(run, run, 1)
    for lease in range(1, 51):
        made.send(Claim(lease, "s", (1,)))
    ran.wait(50)
    made.stop(10)
    assert not any(broker.dead_letters for broker in made._brokers.values())
    assert len([record for record in caplog.records if record.exc_info]) == 50


def test_stop_gives_back_what_was_not_started() -> None:
    """After stop nothing more starts, what runs is waited for, and the leases left over are told."""
    made, going, go = EmbeddedQueue(), threading.Event(), threading.Event()
    started: list[int] = []

    def run(lease: int) -> None:
        started.append(lease)
        going.set()
        go.wait(10)

    made.start(run, run, 1)
    for lease in range(1, 6):
        made.send(Claim(lease, "s", (1,)))
    assert going.wait(10)
    threading.Timer(0.2, go.set).start()
    assert made.stop(10) == [2, 3, 4, 5]
    assert started == [1]
    with pytest.raises(UnavailableError):
        made.send(Claim(9, "s", (1,)))
    with pytest.raises(UnavailableError):
        made.epoch()


def test_idle_queue_delivers_at_once() -> None:
    """A message to an idle worker starts within milliseconds: nothing polls."""
    made, run = EmbeddedQueue(), Ran()
    made.start(run, run, 2)
    waits = []
    for lease in range(1, 41):
        time.sleep(0.003)  # lets the threads fall idle; nothing is awaited by it
        sent = time.perf_counter()
        made.send(Claim(lease, "s", (1,)))
        run.wait(lease)
        waits.append(run.times[-1] - sent)
    made.stop(10)
    assert statistics.median(waits) < 0.010


def test_unknown_queue_is_refused() -> None:
    """A URL that names no queue is an error of usage."""
    with pytest.raises(UsageError):
        queue("ftp://nowhere")


def pool(house: House, made: EmbeddedQueue, importer: Any) -> WorkerPool:
    """Workers over a queue, whose children never start."""
    children = ChildRunner(["false"], {}, house.ledger, importer.renewer, "w", house.limits)
    return WorkerPool(made, importer, children, importer.renewer, house.ledger)


def test_scheduler_queue_and_workers_together(house: House) -> None:
    """All parts of a process, from ready objects to tasks, and a stop that leaves nothing claimed."""
    for n in range(300):
        house.put(f"{n}.json", f'{{"data": {{"n": {n}}}}}')
    made = EmbeddedQueue()
    house.ledger.hold(made.epoch())
    scheduler = Scheduler(house.config, house.ledger, made, house.metrics)
    workers = pool(house, made, house.importer(committed=scheduler.wake))
    thread = threading.Thread(target=scheduler.run)
    workers.start(2)
    thread.start()
    house.note(*[f"{n}.json" for n in range(300)])
    scheduler.wake()
    deadline = time.monotonic() + 20
    while pending(house.ledger):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    scheduler.stop()
    thread.join(10)
    workers.stop(10)
    assert sorted(house.tasks()) == sorted(f'{{"n":{n}}}' for n in range(300))


def test_stop_cancels_what_does_not_finish(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs longer than the time to shut down is cancelled between rows; all of it is ready again, uncounted."""
    from pipeline.parsers import Parser
    from pipeline.tasks import Parsed, Task

    going = threading.Event()

    def parse(body: Any, rules: Any) -> Any:
        for n in range(1_000_000):
            going.set()
            time.sleep(0.001)  # a slow file
            yield Parsed([Task(n + 1, "{}")])

    monkeypatch.setattr("pipeline.consumers.reading.select", lambda *_: Parser("slow", 1, parse))
    house.put("a", "x")
    house.put("b", "x")
    house.note("a", "b")
    made = EmbeddedQueue()
    workers = pool(house, made, house.importer())
    workers.start(1)
    for claim in house.claim():
        made.send(claim)
    assert going.wait(10)
    started = time.monotonic()
    workers.stop(1.0)
    assert time.monotonic() - started < 5
    assert house.states() == {"a": "ready", "b": "ready"}
    assert {row["attempts"] for row in house.rows().values()} == {0}
