"""`KafkaLog`: the event log as the rest of the pipeline sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.bus import Consumer, DeadLetter, Offsets, Refused, Spans, unheard
from pipeline.bus.kafka.codec import Message, encode
from pipeline.bus.kafka.connection import Topics
from pipeline.bus.kafka.letters import Letters, reason_header
from pipeline.bus.kafka.member import Member
from pipeline.bus.kafka.options import LARGEST_BYTES, KafkaOptions
from pipeline.bus.kafka.replay import newest_dead, replay_dead, replay_spans, spans_since
from pipeline.bus.kafka.writer import Writer
from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.metrics import Concern
from pipeline.notifications import Route, Target


def nowhere(_bucket: str, _key: str) -> Sequence[Target]:
    """The route of a log that no bucket writes to."""
    return ()


class KafkaLog:
    """`pipeline.bus.EventLog` on a topic of Kafka. Connects when it is first used, and again after it was cut off.

    `route` says which objects of ours a store's own notification on the topic concerns.
    """

    def __init__(self, options: KafkaOptions, route: Route = nowhere) -> None:
        self._options = options
        self._route = route
        self._topics = Topics(options)
        self._writer = Writer(options)
        self._large = Writer(options, LARGEST_BYTES)
        self._letters = Letters(options, self._large)

    @property
    def name(self) -> str:
        """As `EventLog.name`. It holds the topic's id: a topic that was made anew counts from 0 again."""
        described = self._topics.described()
        return f"kafka:{self._options.topic}:{described.get('topic_id') or ''}"

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """As `EventLog.publish`."""
        if not events:
            return {}
        self._topics.described()
        return self._writer.send(self._options.topic, map(encode, events))

    def consumer(self, start: Callable[[Sequence[int]], Offsets]) -> Consumer:
        """As `EventLog.consumer`."""
        self._topics.described()
        return Member(self._options, self._route, self._topics, self._letters, start)

    def end(self) -> Offsets:
        """As `EventLog.end`."""
        return self._topics.ends()

    def lag(self) -> Offsets:
        """Records that the group hasn't committed yet, by partition."""
        committed = self._topics.committed()
        return {partition: max(end - committed[partition], 0) for partition, end in self.end().items()}

    def prune(self, older_than: float) -> int:
        """As `EventLog.prune`: Kafka does it by itself, by the topic's retention."""
        del older_than
        return 0

    def bury(self, letters: Sequence[UndecodableEvent]) -> None:
        """Put among the dead letters what came another way than by the topic, and can't be read."""
        self._topics.described()
        self._letters.bury([Message(b"", letter.body, [reason_header(letter.reason)]) for letter in letters])

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """As `EventLog.dead_letters`."""
        return newest_dead(self._options, self._topics, self._route, limit)

    def replay_dead(self, refused: Refused = unheard) -> int:
        """As `EventLog.replay_dead`."""
        return replay_dead(self._options, self._topics, self._large, refused)

    def replay(self, spans: Spans, refused: Refused = unheard) -> int:
        """As `EventLog.replay`."""
        return replay_spans(self._options, spans, self._large, refused)

    def since(self, at: float) -> Spans:
        """As `EventLog.since`."""
        return spans_since(self._options, self._topics, at)

    def ping(self) -> str:
        """As `EventLog.ping`."""
        ends = self.end()
        return f"topic {self._options.topic} of {len(ends)} partitions, {sum(ends.values())} records so far"

    def check_here(self) -> None:
        """As `EventLog.check_here`."""
        self._options.check_here()

    def concerns(self) -> Sequence[Concern]:
        """As `EventLog.concerns`."""
        if "partitions" not in self._options.model_fields_set:
            return []
        there, wanted = len(self._topics.looked_at()["partitions"]), self._options.partitions
        if there >= wanted:
            return []
        text = (
            f"the topic {self._options.topic} has {there} partitions, {wanted} are configured: no more than {there}"
            f" dispatchers share it; kafka-topics.sh --alter --partitions {wanted}, or partitions={there} in events:"
        )
        return [Concern("few_partitions", text)]

    def close(self) -> None:
        """As `EventLog.close`."""
        self._writer.close()
        self._large.close()
        self._topics.close()
