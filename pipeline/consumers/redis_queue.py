"""The work queue on Redis, by Dramatiq: messages of ids and lease, which Redis may lose, repeat and reorder.

**Epoch.** A random key in our namespace together with the server's own run id: a flush, a restart (with or without
persistence) and a failover each make another one, and what was claimed before and not started is claimed anew.

**Dead workers.** Dramatiq gives the messages of a silent process to others when a command happens to do its
maintenance; here every tenth does. A process whose threads are all busy is silent, too: its waiting messages then
go to others early, which does no harm, as whoever starts a claim first has it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from dramatiq.brokers.redis import RedisBroker
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from pipeline.consumers.actors import (
    ALONE_QUEUE,
    DELIVER_QUEUE,
    IMPORT_QUEUE,
    Run,
    RunDelivery,
    declare_delivery,
    delivery_message,
    message,
)
from pipeline.consumers.broker import Health, Workers
from pipeline.errors import UnavailableError, UsageError
from pipeline.ledger import Claim
from pipeline.ledger.deliveries import Granted
from pipeline.metrics import Concern

NAMESPACE = "labelfeed"
QUEUES = (IMPORT_QUEUE, ALONE_QUEUE, DELIVER_QUEUE)
MAINTENANCE_CHANCE = 100_000
"""Of a million commands, how many look for dead workers."""
HEARTBEAT_MS = 5_000
"""A process that was silent for this long is dead to the others."""
SOCKET_SECONDS = 5.0
HEALTH_SECONDS = 15
DEAD_MESSAGE_MS = 3_600_000
"""How long Redis keeps messages that no actor took; the ledger has long put their objects back."""
SAFE_POLICY = "noeviction"


class _Broker(RedisBroker):
    """Dramatiq's broker, for which a time-out is a lost connection: of itself it takes it for a bug of its own,
    and the message stays taken until the process ends."""

    def _dispatch(self, command: str) -> Callable[..., Any]:
        dispatch = super()._dispatch(command)  # type: ignore[no-untyped-call]  # dramatiq has no type here

        def do_dispatch(*args: object) -> Any:
            try:
                return dispatch(*args)
            except redis.ConnectionError:
                raise
            except (redis.TimeoutError, redis.ResponseError) as error:
                raise redis.ConnectionError(type(error).__name__) from error

        return do_dispatch

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without one for delayed messages, which we never send, and which would be polled."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


class RedisQueue:
    """`pipeline.consumers.broker.Queue` on a Redis server. Thread-safe.

    The URL is redis-py's (`redis://host:6379/0`, `rediss://…`), with `namespace=` for ours.
    """

    def __init__(self, url: str) -> None:
        self._address, self._namespace = _parsed(url)
        self._shown = _shown(self._address)
        try:
            self._client = redis.Redis.from_url(
                self._address,
                socket_timeout=SOCKET_SECONDS,
                socket_connect_timeout=SOCKET_SECONDS,
                health_check_interval=HEALTH_SECONDS,
                client_name=NAMESPACE,
            )
        except (ValueError, TypeError) as error:
            raise UsageError(f"queue: {self._shown}: {error}") from None
        self._epoch_key = f"{self._namespace}:epoch"
        self._sender = self._broker()
        self._workers: list[Workers] = []

    def epoch(self) -> str:
        """As `Queue.epoch`."""
        with self._asking():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(self._epoch_key, uuid.uuid4().hex, nx=True)
            pipeline.get(self._epoch_key)
            pipeline.info("server")
            _, epoch, server = pipeline.execute()
        return f"{epoch.decode()}:{server['run_id']}"

    def send(self, claim: Claim) -> None:
        """As `Queue.send`. An error doesn't say that the message wasn't sent: undo the claim, and it stands for
        nothing."""
        with self._asking():
            self._sender.enqueue(message(claim))

    def start(self, run: Run, run_alone: Run, threads: int) -> None:
        """As `Queue.start`."""
        self._workers = [
            Workers(self._broker(), IMPORT_QUEUE, run, threads),
            Workers(self._broker(), ALONE_QUEUE, run_alone, 1),
        ]

    def deliver(self, granted: Granted) -> None:
        """As `Queue.deliver`."""
        with self._asking():
            self._sender.enqueue(delivery_message(granted))

    def start_deliveries(self, run: RunDelivery, threads: int) -> None:
        """As `Queue.start_deliveries`."""
        broker = self._broker()
        declare_delivery(broker, run)
        self._workers.append(Workers(broker, DELIVER_QUEUE, None, threads))

    def stop(self, timeout: float) -> list[int]:
        """As `Queue.stop`: what was taken and not begun goes back on the queue, for others to start."""
        stopping = [threading.Thread(target=workers.stop, args=(timeout,)) for workers in self._workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._workers = []
        return []

    def depth(self) -> int:
        """Messages that wait or are being worked on."""
        return self.health().messages["stored"]

    def health(self) -> Health:
        """As `Queue.health`."""
        with self._asking():
            before = time.time()
            seconds, micros = self._client.time()
            skew = seconds + micros / 1e6 - (before + time.time()) / 2
            names = [f"{self._namespace}:{queue}" for queue in QUEUES]
            asked = self._client.pipeline(transaction=False)
            asked.info()
            asked.zrange(f"{self._namespace}:__heartbeats__", 0, -1)
            for name in names:
                asked.llen(name)
                asked.hlen(f"{name}.msgs")
            info, workers, *counts = asked.execute()
            messages = {"listed": sum(counts[::2]), "taken": self._taken(workers), "stored": sum(counts[1::2])}
            return Health(messages, skew, _concerns(info, self._settings()))

    def _taken(self, workers: Sequence[bytes]) -> int:
        """Messages that a worker has taken and not finished."""
        asked = self._client.pipeline(transaction=False)
        for worker in workers:
            for queue in QUEUES:
                asked.scard(f"{self._namespace}:__acks__.{worker.decode()}.{queue}")
        return sum(asked.execute())

    def _settings(self) -> Mapping[str | None, str | None]:
        """How the server was set to keep what it has; nothing where we may not ask."""
        try:
            return self._client.config_get("save")
        except (redis.ResponseError, AuthorizationError):
            return {}

    def ping(self) -> str:
        """One sentence that says what was found there. Raises UnavailableError."""
        with self._asking():
            version = self._client.info("server")["redis_version"]
        health = self.health()
        told = [f"Redis {version}, {health.messages['stored']} messages in {self._namespace}"]
        return "; ".join(told + [concern.text for concern in health.concerns])

    def close(self) -> None:
        """As `Queue.close`."""
        self._client.close()

    def _broker(self) -> _Broker:
        broker = _Broker(  # type: ignore[no-untyped-call]  # as above
            client=self._client,
            middleware=[],
            namespace=self._namespace,
            maintenance_chance=MAINTENANCE_CHANCE,
            heartbeat_timeout=HEARTBEAT_MS,
            dead_message_ttl=DEAD_MESSAGE_MS,
        )
        for queue in QUEUES:
            broker.declare_queue(queue)
        return broker

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise UsageError(f"queue: {self._shown} refuses us: {type(error).__name__}") from None
        except redis.RedisError as error:
            raise UnavailableError(f"queue: {self._shown} does not answer: {type(error).__name__}") from None


def _concerns(info: Mapping[str, Any], settings: Mapping[str | None, str | None]) -> list[Concern]:
    found = []
    policy = info.get("maxmemory_policy", SAFE_POLICY)
    if policy != SAFE_POLICY:
        text = f"Redis evicts: maxmemory-policy {policy} may throw messages away; set it to {SAFE_POLICY}"
        found.append(Concern("redis_evicts", text))
    if settings.get("save") == "" and not info.get("aof_enabled"):
        text = "Redis keeps nothing: a restart forgets what was claimed and not started; set appendonly yes"
        found.append(Concern("redis_not_persistent", text))
    return found


def _parsed(url: str) -> tuple[str, str]:
    """redis-py's part of a URL, and our namespace."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    namespace = options.pop("namespace", NAMESPACE)
    return urlunsplit(parts._replace(query=urlencode(options))), namespace


def _shown(address: str) -> str:
    """A URL as errors may show it: scheme, host, port and database."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
