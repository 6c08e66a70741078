"""What log, consumer and replay share: errors of the client in our words, and the topics' administration."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import MemberToRemove, OffsetSpec
from kafka.errors import (
    AuthorizationError,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    KafkaConfigurationError,
    KafkaError,
    PolicyViolationError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient

from pipeline.bus.kafka.options import CONNECT_MS, LARGEST_BYTES, KafkaOptions
from pipeline.errors import UnavailableError, UsageError

_client_log = logging.getLogger("kafka")
if _client_log.level == logging.NOTSET:
    # It reports each attempt to connect, and how long its own tasks took; what matters comes to us as errors.
    _client_log.setLevel(logging.CRITICAL)

DESCRIBED_SECONDS = 60.0
"""How long partitions that were added may be missing from the ends of the topic, and so from the lag."""

T = TypeVar("T")

_FOR_A_PERSON = (
    AuthorizationError,
    InvalidReplicationFactorError,
    KafkaConfigurationError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)


class _Refusals(logging.Handler):
    """Remembers why a broker refused a connection: the client says only in its log that it did, and then that
    time is up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take the exception that a line of the log tells of; a new one of its kind, that holds no socket."""
        told = record.args if isinstance(record.args, tuple) else ()
        for part in told:
            # A broker that refuses a password also cuts the connection, and that may be told last.
            if isinstance(part, _FOR_A_PERSON) or (isinstance(part, KafkaError) and self._last is None):
                self._last = type(part)(str(part))

    def forget(self) -> None:
        """Be ready for another attempt."""
        self._last = None

    def why(self, error: Exception) -> Exception:
        """What a broker said, where it said anything, else the error itself."""
        return self._last or error


_refusals = _Refusals()
_connections_log = logging.getLogger("kafka.net.manager")
_connections_log.addHandler(_refusals)
_connections_log.setLevel(logging.WARNING)
_connections_log.propagate = False


@contextmanager
def converted(options: KafkaOptions) -> Iterator[None]:
    """Turn the client's errors into UnavailableError, or UsageError where a person must act."""
    try:
        yield
    except _FOR_A_PERSON as error:
        raise UsageError(f"{options.canonical} refuses us: {type(error).__name__}") from error
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"{options.canonical} does not answer: {_said(error, options)}") from error


def _said(error: Exception, options: KafkaOptions) -> str:
    """What of an error may be shown: what the system says of a certificate names no secret."""
    if "CERTIFICATE" in str(error):
        return str(error)
    if "disconnected" in str(error) and options.sasl_mechanism:
        return "it cuts the connection, as it does for a wrong user or password"
    return type(error).__name__


def opened(kind: Callable[..., T], options: KafkaOptions, **settings: Any) -> T:
    """A client of kafka-python, connected.

    One whose constructor fails would leave its thread and its sockets behind at every attempt; here they go.
    """
    _reach(options)
    _refusals.forget()
    made: list[Any] = []

    def network(**given: Any) -> Any:
        made.append(KafkaNetClient(**given))
        return made[-1]

    try:
        return kind(**options.client(), **settings, kafka_client=network)
    except Exception as error:
        for client in made:
            client.close()
            client._net.stop()  # noqa: SLF001 - as the clients' own close() does
        if not isinstance(error, KafkaError):
            raise
        raise _refusals.why(error) from error


def _reach(options: KafkaOptions) -> None:
    """Find out cheaply whether any broker listens; raises OSError if none does."""
    last: OSError | None = None
    for broker in options.bootstrap:
        host, _, port = broker.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_MS / 1000).close()
        except OSError as error:
            last = error
        else:
            return
    raise last or OSError("no broker is named")


class Topics:
    """The administration of the two topics: made where missing, asked for their ends. Thread-safe."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: KafkaAdminClient | None = None
        self._described: dict[str, Any] | None = None
        self._looked = 0.0

    def described(self) -> dict[str, Any]:
        """What the cluster says of the events' topic, which is made if it isn't there."""
        return self._described or self.looked_at()

    def looked_at(self) -> dict[str, Any]:
        """As `described`, by asking again: partitions may have been added."""
        self._described = self._ask(self._describe_or_make)
        self._looked = time.monotonic()
        return self._described

    def partitions(self) -> list[TopicPartition]:
        """The partitions of the events' topic, as they were less than DESCRIBED_SECONDS ago."""
        recent = time.monotonic() - self._looked < DESCRIBED_SECONDS
        rows = (self.described() if recent else self.looked_at())["partitions"]
        return [TopicPartition(self._options.topic, row["partition_index"]) for row in rows]

    def ends(self) -> dict[int, int]:
        """The position after the last record, by partition."""
        wanted = dict.fromkeys(self.partitions(), OffsetSpec.LATEST)
        found = self._ask(lambda client: client.list_partition_offsets(wanted))
        return {place.partition: answer.offset for place, answer in found.items()}

    def committed(self) -> dict[int, int]:
        """What the group has committed, by partition; 0 where it hasn't."""
        group, wanted = self._options.group, self.partitions()
        found = self._ask(lambda client: client.list_group_offsets({group: wanted})).get(group, {})
        return {place.partition: max(found[place].offset, 0) if place in found else 0 for place in wanted}

    def remove_member(self, member: str) -> None:
        """Take a static member out of the group, so that its partitions move without a time-out."""
        gone = [MemberToRemove(group_instance_id=member)]
        self._ask(lambda client: client.remove_group_members(self._options.group, gone))

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop()

    def _ask(self, question: Callable[[KafkaAdminClient], T]) -> T:
        with self._lock, converted(self._options):
            try:
                if self._client is None:
                    self._client = opened(KafkaAdminClient, self._options)
                return question(self._client)
            except KafkaError:
                self._drop()
                raise

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _describe_or_make(self, client: KafkaAdminClient) -> dict[str, Any]:
        options = self._options
        if _describe(client, options.dead_topic) is None:
            _make_dead_topic(client, options)
        if _describe(client, options.topic) is None:
            _make(client, options.topic, options, options.retention)
        found = _describe(client, options.topic)
        if found is None:
            raise UnavailableError(f"{options.canonical}: the topic is not there yet")
        return found


def _describe(client: KafkaAdminClient, topic: str) -> dict[str, Any] | None:
    (found,) = client.describe_topics([topic])
    return found if found["error_code"] == 0 and found["partitions"] else None


def _make_dead_topic(client: KafkaAdminClient, options: KafkaOptions) -> None:
    """Make it for larger messages than others may write to the events' topic, unless the cluster allows no such
    thing: then what is too large is cut."""
    try:
        larger = {"max.message.bytes": str(LARGEST_BYTES)}
        _make(client, options.dead_topic, options, options.dead_retention, larger)
    except (InvalidConfigurationError, PolicyViolationError):
        _make(client, options.dead_topic, options, options.dead_retention)


def _make(
    client: KafkaAdminClient, topic: str, options: KafkaOptions, retention: float, more: Mapping[str, str] | None = None
) -> None:
    asked = {
        "num_partitions": options.partitions,
        "replication_factor": options.replicas,
        "configs": {"retention.ms": str(int(retention * 1000)), "cleanup.policy": "delete", **(more or {})},
    }
    try:
        client.create_topics({topic: asked}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        client.wait_for_topics([topic])
