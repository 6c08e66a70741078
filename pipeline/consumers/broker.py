"""The work queue: Dramatiq, in this process or on a server. It may lose, repeat and reorder; the ledger copes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dramatiq import Broker, Worker
from dramatiq.brokers.stub import StubBroker

from pipeline.consumers.actors import (
    ALONE_QUEUE,
    DELIVER_QUEUE,
    IMPORT_QUEUE,
    Run,
    RunDelivery,
    declare,
    declare_delivery,
    delivery_message,
    message,
)
from pipeline.errors import UnavailableError, UsageError
from pipeline.ledger import Claim
from pipeline.ledger.deliveries import Granted
from pipeline.metrics import Concern

EMBEDDED = "embedded"
LOCAL_EPOCH = "local:"
"""The epoch of a queue inside a process begins so: its claims end with the process."""
WORKER_TIMEOUT_MS = 100
"""How often Dramatiq's idle threads look whether they should stop. Messages wake them at once ..."""
EMBEDDED_TIMEOUT_MS = 20
"""... and inside one process a look costs nothing, while every `run --once` ends by waiting for the last one."""


class Health(NamedTuple):
    """How the work queue does: messages by part (`listed` wait to be taken, `taken` are not finished, `stored` are
    both together), how far its clock is ahead of ours in seconds (None where it has none), what should be mended."""

    messages: Mapping[str, int]
    skew: float | None = None
    concerns: Sequence[Concern] = ()


class Queue(Protocol):
    """The work queue as the scheduler and the workers see it. Thread-safe."""

    def epoch(self) -> str:
        """The name of the queue's present life; another one means that what was sent before is gone.

        Raises UnavailableError while the queue does not answer: nothing is claimed then.
        """

    def send(self, claim: Claim) -> None:
        """Put the message of a claim on the queue. Raises UnavailableError."""

    def start(self, run: Run, run_alone: Run, threads: int) -> None:
        """Work on claims in `threads` threads of this process, and on `alone` ones in one more."""

    def deliver(self, granted: Granted) -> None:
        """Put the message of a delivery's grant on the queue. Raises UnavailableError."""

    def start_deliveries(self, run: RunDelivery, threads: int) -> None:
        """Work on deliveries' grants in `threads` threads of this process, until `stop`."""

    def stop(self, timeout: float) -> list[int]:
        """Take no further message, and wait up to `timeout` seconds for those under way. Gives the leases of
        claims that nobody will start any more."""

    def health(self) -> Health:
        """How it does. Raises UnavailableError."""

    def close(self) -> None:
        """Let go of connections."""


class Workers:
    """Dramatiq's worker threads of one queue in this process. Each has a broker of its own: Dramatiq allows
    one worker to a broker."""

    def __init__(
        self, broker: Broker, queue: str, run: Run | None, threads: int, timeout_ms: int = WORKER_TIMEOUT_MS
    ) -> None:
        if run is not None:
            declare(broker, queue, run)
        self._worker = Worker(broker, queues={queue}, worker_threads=threads, worker_timeout=timeout_ms)
        # A message is taken when a thread is about to be free, so that no process hoards work.
        self._worker.queue_prefetch = threads + 1
        self._worker.delay_prefetch = 1
        self._worker.start()

    def stop(self, timeout: float) -> None:
        """Take no further message, and wait for those under way, at most `timeout` seconds."""
        self._worker.stop(timeout=int(timeout * 1000))


class EmbeddedQueue:
    """`Queue` inside this process: what it holds ends with the process."""

    def __init__(self) -> None:
        self._epoch = LOCAL_EPOCH + uuid.uuid4().hex
        self._brokers = {name: StubBroker(middleware=[]) for name in (IMPORT_QUEUE, ALONE_QUEUE, DELIVER_QUEUE)}
        for name, broker in self._brokers.items():
            broker.declare_queue(name)
        self._workers: list[Workers] = []
        self._lock = threading.Lock()
        self._unstarted: set[int] = set()
        self._sent: set[int] = set()
        self._closed = False

    def epoch(self) -> str:
        """As `Queue.epoch`."""
        if self._closed:
            raise UnavailableError("the queue is closed", code="closed")
        return self._epoch

    def send(self, claim: Claim) -> None:
        """As `Queue.send`."""
        with self._lock:
            if self._closed:
                raise UnavailableError("the queue is closed", code="closed")
            self._unstarted.add(claim.lease)
            self._sent.add(claim.lease)
        sent = message(claim)
        self._brokers[sent.queue_name].enqueue(sent)

    def deliver(self, granted: Granted) -> None:
        """As `Queue.deliver`."""
        if self._closed:
            raise UnavailableError("the queue is closed", code="closed")
        self._brokers[DELIVER_QUEUE].enqueue(delivery_message(granted))

    def start_deliveries(self, run: RunDelivery, threads: int) -> None:
        """As `Queue.start_deliveries`."""
        broker = self._brokers[DELIVER_QUEUE]
        declare_delivery(broker, lambda delivery, lease: None if self._closed else run(delivery, lease))
        self._workers.append(Workers(broker, DELIVER_QUEUE, None, threads, EMBEDDED_TIMEOUT_MS))

    def start(self, run: Run, run_alone: Run, threads: int) -> None:
        """As `Queue.start`."""
        self._workers = [
            Workers(self._brokers[IMPORT_QUEUE], IMPORT_QUEUE, self._taken(run), threads, EMBEDDED_TIMEOUT_MS),
            Workers(self._brokers[ALONE_QUEUE], ALONE_QUEUE, self._taken(run_alone), 1, EMBEDDED_TIMEOUT_MS),
        ]

    def stop(self, timeout: float) -> list[int]:
        """As `Queue.stop`."""
        with self._lock:
            self._closed = True
            unstarted, self._unstarted = sorted(self._unstarted), set()
        stopping = [threading.Thread(target=workers.stop, args=(timeout,)) for workers in self._workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._workers = []
        return unstarted

    def health(self) -> Health:
        """As `Queue.health`."""
        with self._lock:
            listed = len(self._unstarted)
            stored = len(self._sent)
        return Health({"listed": listed, "taken": stored - listed, "stored": stored})

    def close(self) -> None:
        """As `Queue.close`."""
        for broker in self._brokers.values():
            broker.close()

    def _taken(self, run: Run) -> Run:
        def run_unless_stopped(lease: int) -> None:
            with self._lock:
                if lease not in self._unstarted:
                    return
                self._unstarted.discard(lease)
            try:
                run(lease)
            finally:
                with self._lock:
                    self._sent.discard(lease)

        return run_unless_stopped


def queue(url: str) -> Queue:
    """The queue that a configuration names. Raises UsageError if it names none."""
    if url == EMBEDDED:
        return EmbeddedQueue()
    if url.startswith(("redis://", "rediss://")):
        try:
            from pipeline.consumers.redis_queue import RedisQueue  # noqa: PLC0415 - loaded when it is named
        except ModuleNotFoundError as error:
            raise UsageError(
                f'queue: needs {error.name}, which is not installed: pip install "labelfeed[redis]"'
            ) from error
        return RedisQueue(url)
    raise UsageError("queue: write `embedded`, or redis://host:6379/0")
