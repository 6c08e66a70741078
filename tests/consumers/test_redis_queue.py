"""The queue on a real Redis: what reaches whom, and what an epoch tells."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
import redis

from deploy import services
from deploy.services import Service
from pipeline.consumers.broker import queue
from pipeline.consumers.redis_queue import RedisQueue
from pipeline.errors import UnavailableError, UsageError
from pipeline.ledger import Claim

RECOVERY_SECONDS = 20.0


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

    def wait(self, count: int, seconds: float = 10) -> None:
        """Until so many claims have come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.leases) >= count, seconds)

    def wait_for(self, lease: int, seconds: float) -> None:
        """Until this claim has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: lease in self.leases, seconds)


@pytest.fixture
def made(redis_url: str) -> Iterator[RedisQueue]:
    """A queue in a namespace of its own."""
    with closing(RedisQueue(redis_url)) as found:
        yield found


@pytest.fixture
def other(redis_url: str) -> Iterator[RedisQueue]:
    """Another process's view of the same queue."""
    with closing(RedisQueue(redis_url)) as found:
        yield found


@pytest.fixture
def own(redis_server: Service, unique: str) -> Iterator[Service]:
    """A Redis of this test alone, which it may flush, stop and kill."""
    with services.using("redis", unique) as service:
        yield service


def test_a_configuration_names_it(redis_url: str) -> None:
    """A redis:// URL gives this queue."""
    found = queue(redis_url)
    assert isinstance(found, RedisQueue)
    assert "noeviction" not in found.ping()
    found.close()


def test_claims_reach_their_actors_in_another_process(made: RedisQueue, other: RedisQueue) -> None:
    """Whoever sends, the lease comes to a worker's thread, a suspect's to the thread that is for suspects."""
    run, alone = Ran(), Ran()
    other.start(run, alone, 2)
    for lease in range(1, 101):
        made.send(Claim(lease, "s", (1,)))
    made.send(Claim(1000, "s", (2,), alone=True))
    run.wait(100)
    alone.wait(1)

    assert sorted(run.leases) == list(range(1, 101))
    assert alone.leases == [1000]
    assert other.stop(10) == []
    assert made.depth() == 0


def test_two_workers_share_what_is_sent_once(made: RedisQueue, other: RedisQueue) -> None:
    """Each message goes to one of the workers."""
    first, second = Ran(), Ran()
    made.start(first, first, 1)
    other.start(second, second, 1)
    for lease in range(200):
        made.send(Claim(lease, "s", (1,)))
    deadline = time.monotonic() + 10
    while made.depth() and time.monotonic() < deadline:
        """Messages are still being taken."""
    made.stop(10)
    other.stop(10)

    assert sorted(first.leases + second.leases) == list(range(200))


def test_the_epoch_is_the_same_for_all_until_a_flush(own: Service) -> None:
    """A flush makes another epoch, for every process."""
    with closing(RedisQueue(own.url)) as one, closing(RedisQueue(own.url)) as two:
        before = one.epoch()
        assert (one.epoch(), two.epoch()) == (before, before)
        with closing(redis.Redis.from_url(own.url)) as client:
            client.flushall()
        after = two.epoch()

        assert after != before
        assert one.epoch() == after


@pytest.mark.parametrize("appendonly", ["no", "yes"])
def test_a_restart_makes_another_epoch(redis_server: Service, unique: str, appendonly: str) -> None:
    """Even a Redis that kept its data may have lost its last second of writes."""
    with (
        services.using("redis", unique, settings={"appendonly": appendonly}) as own,
        closing(RedisQueue(own.url)) as made,
    ):
        before = made.epoch()
        services.kill(own)
        with pytest.raises(UnavailableError):
            made.epoch()
        services.restart(own)

        assert made.epoch() != before


def test_workers_go_on_after_a_restart(own: Service) -> None:
    """Workers and senders need no restart of theirs when Redis is back."""
    with closing(RedisQueue(own.url)) as made:
        run = Ran()
        made.start(run, run, 2)
        made.send(Claim(1, "s", (1,)))
        run.wait(1)
        services.restart(own, hard=True)
        made.send(Claim(2, "s", (1,)))
        run.wait(2, RECOVERY_SECONDS)
        made.stop(10)

        assert run.leases == [1, 2]


CHILD = """
import sys, time
from pipeline.consumers.redis_queue import RedisQueue
def run(lease):
    print(lease, flush=True)
    time.sleep(3600)
RedisQueue(sys.argv[1]).start(run, run, 1)
time.sleep(3600)
"""


def test_a_killed_worker_s_messages_come_back_in_seconds(made: RedisQueue, redis_url: str) -> None:
    """After SIGKILL both the running and the waiting messages of the dead process reach another one."""
    for lease in (1, 2, 3):
        made.send(Claim(lease, "s", (1,)))
    child = subprocess.Popen([sys.executable, "-c", CHILD, redis_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    run = Ran()
    made.start(run, run, 1)
    run.wait(3, RECOVERY_SECONDS)
    made.stop(10)

    assert sorted(run.leases) == [1, 2, 3]


def test_stop_leaves_what_was_not_started_to_others(made: RedisQueue, other: RedisQueue) -> None:
    """A worker that stops gives back what it had taken ahead, at once."""
    going, go, rest = threading.Event(), threading.Event(), Ran()
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
    assert made.stop(10) == []
    other.start(rest, rest, 1)
    rest.wait(5 - len(started))
    other.stop(10)

    assert sorted(started + rest.leases) == [1, 2, 3, 4, 5]


def test_an_idle_worker_takes_a_message_soon(made: RedisQueue) -> None:
    """A message to an idle worker starts within a tenth of a second."""
    run = Ran()
    made.start(run, run, 2)
    waits = []
    for lease in range(1, 21):
        sent = time.perf_counter()
        made.send(Claim(lease, "s", (1,)))
        run.wait(lease)
        waits.append(run.times[-1] - sent)
        time.sleep(0.1)  # lets the worker fall idle; nothing is awaited by it
    made.stop(10)

    assert statistics.median(waits) < 0.15


def test_a_network_that_hangs_is_unavailable_and_comes_back(
    redis_server: Service, toxiproxy: Service, unique: str
) -> None:
    """Where nothing answers, asking ends with an error in bounded time; when it does again, all goes on."""
    port = next(iter(services.processes.free_ports(("main",)).values()))
    proxy = {"name": unique, "listen": f"127.0.0.1:{port}", "upstream": redis_server.address}
    with httpx.Client(base_url=toxiproxy.url) as control:
        control.post("/proxies", json=proxy).raise_for_status()
        with closing(RedisQueue(f"redis://127.0.0.1:{port}/0?namespace={unique}")) as made:
            run = Ran()
            before = made.epoch()
            made.start(run, run, 1)
            hang = {"name": "hang", "type": "timeout", "attributes": {"timeout": 0}}
            control.post(f"/proxies/{unique}/toxics", json=hang).raise_for_status()
            began = time.monotonic()
            with pytest.raises(UnavailableError, match=r"127[.]0[.]0[.]1"):
                made.send(Claim(1, "s", (1,)))
            assert time.monotonic() - began < 30
            control.delete(f"/proxies/{unique}/toxics/hang").raise_for_status()
            made.send(Claim(2, "s", (1,)))
            # The first one may have gone after all: an error doesn't say that it didn't.
            run.wait_for(2, RECOVERY_SECONDS)
            made.stop(10)

            assert made.epoch() == before
        control.delete(f"/proxies/{unique}")


def test_nobody_there_is_unavailable_and_no_password_shows() -> None:
    """An error names the server and not the secret in its URL."""
    with closing(RedisQueue("redis://user:hunter2@127.0.0.1:1/0")) as made, pytest.raises(UnavailableError) as caught:
        made.epoch()
    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_a_wrong_password_is_for_a_person(redis_server: Service, unique: str) -> None:
    """A refusal is an error of the configuration."""
    with (
        services.using("redis", unique, settings={"requirepass": "right"}) as guarded,
        closing(RedisQueue(f"redis://:hunter2@{guarded.address}/0")) as made,
        pytest.raises(UsageError) as caught,
    ):
        made.epoch()
    assert "hunter2" not in str(caught.value)
