"""One member of the consumer group: cooperative, static, starting from the ledger's positions."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from pipeline.bus import Offsets, Polled, Record
from pipeline.bus.kafka.codec import Message, decode_message, encode, writable
from pipeline.bus.kafka.connection import Topics, converted, opened
from pipeline.bus.kafka.letters import HEADER, Letters, reason_header
from pipeline.bus.kafka.options import KafkaOptions
from pipeline.bus.kafka.unreadable import explained
from pipeline.errors import LabelfeedError
from pipeline.events import UndecodableEvent
from pipeline.notifications import Route

SLICE_SECONDS = 0.2
"""How long one look for records lasts at most, so that newly assigned partitions soon begin."""
CLOSE_MS = 5_000
POLL_INTERVAL_MS = 300_000
"""Longest time between two polls, after which a member is put out of the group."""
NAME_LENGTH = 200
"""Characters of a member's name before what makes it unique; Kafka takes 249 in all."""

log = logging.getLogger(__name__)


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Holds back what is newly assigned until the ledger was asked where to begin; runs in the client's thread."""

    def __init__(self) -> None:
        self.consumer: KafkaConsumer | None = None
        self.waiting: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        if assigned and self.consumer is not None:
            self.consumer.pause(*assigned)
            self.waiting.update(assigned)

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self.waiting.difference_update(revoked)


class Member:
    """`pipeline.bus.Consumer` of a topic. Joins the group at the first poll, and again after an error."""

    def __init__(
        self,
        options: KafkaOptions,
        route: Route,
        topics: Topics,
        letters: Letters,
        start: Callable[[Sequence[int]], Offsets],
    ) -> None:
        self._options = options
        self._route = route
        self._topics = topics
        self._letters = letters
        self._start = start
        self._member = member_name(options)
        self._assignment = _Assignment()
        self._consumer: KafkaConsumer | None = None
        self._announced = False
        """Whether the group may know of this member: then it is to be taken out of it."""
        self._originals: dict[tuple[int, int], Message] = {}
        self._reported: dict[int, int] = {}
        """Partition → the position that was given last, or from which reading began."""

    def poll(self, limit: int, timeout: float) -> Polled:
        """As `Consumer.poll`. A message of a store may hold several events: they share its offset."""
        deadline = time.monotonic() + timeout
        with converted(self._options):
            while True:
                left = deadline - time.monotonic()
                batches = self._look(limit, max(0.0, min(left, SLICE_SECONDS)))
                if batches or left <= 0:
                    return self._polled(batches)

    def _look(self, limit: int, seconds: float) -> Mapping[TopicPartition, Sequence[Any]]:
        try:
            consumer = self._joined()
            self._begin(consumer)
            _insist(consumer)
            found: Mapping[TopicPartition, Sequence[Any]] = consumer.poll(int(seconds * 1000), max_records=limit)
        except KafkaError as error:
            told = explained(error, self._consumer, self._options)
            self._leave()
            raise told from error
        return found

    def _begin(self, consumer: KafkaConsumer) -> None:
        """Start reading what is newly assigned, where the ledger says; if the ledger can't say, ask again later."""
        assigned = consumer.assignment()
        new = [place for place in tuple(self._assignment.waiting) if place in assigned]
        if not new:
            return
        positions = self._start(sorted(place.partition for place in new))
        for place in new:
            if place.partition in positions:
                consumer.seek(place, positions[place.partition])
                self._reported[place.partition] = positions[place.partition]
            else:
                consumer.seek_to_beginning(place)
                self._reported[place.partition] = 0
        self._assignment.waiting.difference_update(new)
        consumer.resume(*new)

    def _polled(self, batches: Mapping[TopicPartition, Sequence[Any]]) -> Polled:
        records: list[Record] = []
        positions: dict[int, int] = {}
        self._originals.clear()
        for place, messages in batches.items():
            if place in self._assignment.waiting:
                continue
            for message in messages:
                key = (place.partition, message.offset)
                self._originals[key] = Message(message.key or b"", message.value or b"", writable(message.headers))
                events = decode_message(message.value, message.headers, self._route)
                found = [events] if isinstance(events, UndecodableEvent) else events
                records.extend(Record(*key, event) for event in found)
            positions[place.partition] = messages[-1].offset + 1
        positions |= self._passed()
        self._reported |= positions
        return Polled(records, positions)

    def _passed(self) -> dict[int, int]:
        """Where the client has passed over what is no message, such as the end of a transaction: it gives none of it,
        and it may be the last there is."""
        consumer = self._consumer
        if consumer is None:
            return {}
        subscription = consumer._subscription  # noqa: SLF001 - the public way may ask a broker
        found: dict[int, int] = {}
        for place in consumer.assignment() - self._assignment.waiting:
            position = subscription.position(place)
            if position is not None and position.offset > self._reported.setdefault(place.partition, position.offset):
                found[place.partition] = position.offset
        return found

    def commit(self, positions: Offsets) -> None:
        """As `Consumer.commit`: without waiting, as only tools that show lag read it."""
        if self._consumer is None:
            return
        mine = {place.partition: place for place in self._consumer.assignment()}
        offsets = {mine[at]: OffsetAndMetadata(offset, "", -1) for at, offset in positions.items() if at in mine}
        if offsets:
            with converted(self._options):
                self._consumer.commit_async(offsets, _committed)

    def dead(self, records: Sequence[Record], reasons: Sequence[str]) -> None:
        """As `Consumer.dead`: onto the topic of dead letters, byte for byte as they came, with why and whence; what is
        too large for it without its end."""
        letters = [self._letter(record, reason) for record, reason in zip(records, reasons, strict=True)]
        if letters:
            self._letters.bury(letters)

    def _letter(self, record: Record, reason: str) -> Message:
        original = self._originals.get((record.partition, record.offset))
        if original is None:
            event = record.event
            original = Message(b"", event.body, []) if isinstance(event, UndecodableEvent) else encode(event)
        extra = {
            "topic": self._options.topic.encode(),
            "partition": str(record.partition).encode(),
            "offset": str(record.offset).encode(),
        }
        told = [reason_header(reason), *((HEADER + name, text) for name, text in extra.items())]
        return original._replace(headers=[*original.headers, *told])

    def rest(self, seconds: float) -> None:
        """As `Consumer.rest`: who does not poll is put out of the group, so it is polled with all partitions paused."""
        deadline = time.monotonic() + seconds
        with converted(self._options):
            try:
                self._poll_paused(seconds)
            except KafkaError:
                self._leave()
                raise
        time.sleep(max(0.0, deadline - time.monotonic()))

    def _poll_paused(self, seconds: float) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        reading = consumer.assignment() - consumer.paused()
        consumer.pause(*reading)
        _insist(consumer)
        consumer.poll(int(seconds * 1000), max_records=1)
        consumer.resume(*(reading & consumer.assignment() - self._assignment.waiting))

    def close(self) -> None:
        """As `Consumer.close`. A static member leaves only when it is taken out of the group."""
        self._leave()
        if not self._announced:
            return
        try:
            self._topics.remove_member(self._member)
        except LabelfeedError as error:
            log.warning("event log: could not leave the group, its time-out will do", extra={"error": str(error)})

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._assignment.waiting.clear()
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _joined(self) -> KafkaConsumer:
        if self._consumer is None:
            self._announced = True
            session = int(self._options.session * 1000)
            consumer = opened(
                KafkaConsumer,
                self._options,
                group_id=self._options.group,
                group_instance_id=self._member,
                session_timeout_ms=session,
                heartbeat_interval_ms=session // 4,
                max_poll_interval_ms=POLL_INTERVAL_MS,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                enable_auto_commit=False,
                metrics_enabled=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
            )
            self._assignment.consumer = consumer
            self._consumer = consumer
            # Known before it joins, the topic is shared out at once, not after a first assignment of nothing.
            consumer.partitions_for_topic(self._options.topic)
            consumer.subscribe([self._options.topic], listener=self._assignment)
            # An answer that was under way can make the client forget that it lacks the topic's partitions: as the
            # group's leader it would then assign none, for minutes. This asks until it knows them.
            consumer.partitions_for_topic(self._options.topic)
        return self._consumer


def _insist(consumer: KafkaConsumer) -> None:
    """Let the client finish a rejoin that it began.

    It forgets one that a change of metadata began and that is answered between two polls: it would neither send
    heartbeats nor read any more.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
    if coordinator.rejoining:
        coordinator.request_rejoin()


def _committed(_offsets: object, answer: object) -> None:
    if isinstance(answer, Exception):
        log.debug("event log: a commit was refused; the ledger's positions count", extra={"error": repr(answer)})


def member_name(options: KafkaOptions) -> str:
    """A name that no other member has: all processes have the same options, and containers on a host's network its name
    and the process number 1. Two of one name would put each other out of the group."""
    beginning = options.member or f"{socket.gethostname()}-{os.getpid()}"
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', beginning)[:NAME_LENGTH]}-{uuid.uuid4().hex[:8]}"
