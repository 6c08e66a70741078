"""Writing to Kafka: an idempotent producer, acks=all, in batches; what it has returned from is durable."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from pipeline.bus.kafka.codec import Message
from pipeline.bus.kafka.connection import converted, opened
from pipeline.bus.kafka.options import KafkaOptions

BATCH_BYTES = 256 * 1024
LINGER_MS = 10
"""How long a batch waits for more while messages come in; the end of a `send` doesn't wait."""
DELIVERY_MS = 30_000
MAX_MESSAGE_BYTES = 1_000_000
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Writer:
    """One producer, made when it is first needed and again after an error that it can't recover from. Thread-safe."""

    def __init__(self, options: KafkaOptions, largest: int = MAX_MESSAGE_BYTES) -> None:
        self._options = options
        self._largest = largest
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None

    def send(self, topic: str, messages: Iterable[Message]) -> dict[int, int]:
        """Write messages; gives, per partition, the position after them. Raises UnavailableError if any may be lost."""
        with self._lock, converted(self._options):
            try:
                return self._positions(self._begun(topic, messages))
            except KafkaError:
                self._drop()
                raise

    def offer(self, topic: str, messages: Sequence[Message]) -> list[int]:
        """Write messages as `send` does, but for those that are too large for this producer or for the topic; which
        ones these are."""
        refused = self._refused(topic, messages)
        if len(messages) == 1:
            return refused
        # What shared a batch with one that is too large, or came behind it, is refused with it.
        return [number for number in refused if self._refused(topic, [messages[number]])]

    def _refused(self, topic: str, messages: Sequence[Message]) -> list[int]:
        """What was not written, where a message of these is too large."""
        with self._lock, converted(self._options):
            try:
                futures = self._begun(topic, messages)
                if not any(map(_too_large, futures)):
                    self._positions(futures)
                    return []
            except KafkaError:
                self._drop()
                raise
            # It numbers what it writes, and a refusal leaves a gap.
            self._drop()
            return [number for number, future in enumerate(futures) if not _written(future)]

    def _begun(self, topic: str, messages: Iterable[Message]) -> list[Any]:
        """What became of each message, after all were answered; None if it is too large for this producer."""
        producer = self._ready()
        # The client's own partitioner hashes in pure Python, which costs more than all the rest of a send.
        partitions = sorted(producer.partitions_for(topic) or {0})
        count = len(partitions)
        futures = []
        for key, value, headers in messages:
            try:
                futures.append(producer.send(topic, value, key, headers, partitions[crc32(key) % count]))
            except MessageSizeTooLargeError:
                futures.append(None)
        producer.flush(DELIVERY_MS / 1000)
        return futures

    def _positions(self, futures: Iterable[Any]) -> dict[int, int]:
        positions: dict[int, int] = {}
        for future in futures:
            if future is None:
                raise MessageSizeTooLargeError
            if not future.is_done:
                raise KafkaTimeoutError("flushed without an answer")
            if future.exception is not None:
                raise future.exception
            place = future.value
            positions[place.partition] = max(place.offset + 1, positions.get(place.partition, 0))
        return positions

    def _ready(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = opened(
                KafkaProducer,
                self._options,
                acks="all",
                metrics_enabled=False,
                enable_idempotence=True,
                compression_type=self._options.compression,
                batch_size=BATCH_BYTES,
                linger_ms=LINGER_MS,
                max_block_ms=self._options.client()["request_timeout_ms"],
                delivery_timeout_ms=DELIVERY_MS,
                max_request_size=self._largest,
            )
        return self._producer

    def close(self) -> None:
        """Let go of the connection; nothing is under way when no `send` is."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)


def _written(future: Any) -> bool:
    return future is not None and future.is_done and future.exception is None


def _too_large(future: Any) -> bool:
    """Whether a message is too large, as the client said at once or a broker when it was asked."""
    return future is None or (future.is_done and isinstance(future.exception, _TOO_LARGE))
