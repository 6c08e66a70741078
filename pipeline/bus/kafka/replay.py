"""Putting records on the topic once more: dead letters, or a span of offsets or of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from pipeline.bus import DeadLetter, Refused, Spans
from pipeline.bus.kafka.codec import Headers, Message, Received, decode_message, writable
from pipeline.bus.kafka.connection import Topics, converted, opened
from pipeline.bus.kafka.letters import HEADER, REASON, TRUNCATED
from pipeline.bus.kafka.options import REQUEST_MS, KafkaOptions
from pipeline.bus.kafka.unreadable import explained
from pipeline.bus.kafka.writer import Writer
from pipeline.errors import UnavailableError
from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.notifications import Route

CHUNK = 2_000
POLL_MS = 1_000
QUIET_POLLS = 10
"""A span whose records don't come in so many polls has none left (they are past retention, or never were), unless the
topic says that they are there."""
LOOKED_THROUGH = 4
"""Dead letters read for each that is asked for: several may be of one object."""
_DISCOVERED_BY = "ce_discoveredby"


def replay_dead(options: KafkaOptions, topics: Topics, writer: Writer, refused: Refused) -> int:
    """Put back the dead letters since the last time; the group `<group>.replay` remembers how far that came."""
    topics.described()
    group = f"{options.group}.replay"
    with converted(options), closing(_reader(options, group)) as reader:
        places = [
            TopicPartition(options.dead_topic, at) for at in reader.partitions_for_topic(options.dead_topic) or ()
        ]
        reader.assign(places)
        ends, beginnings = reader.end_offsets(places), reader.beginning_offsets(places)
        spans = {place: (reader.committed(place) or beginnings[place], ends[place]) for place in places}
        count = 0
        for chunk in _read(reader, spans, options):
            count += _put_back(writer, options.topic, chunk, refused)
            done = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in chunk}
            reader.commit({place: OffsetAndMetadata(offset, "", -1) for place, offset in done.items()})
    return count


def _put_back(writer: Writer, topic: str, chunk: Sequence[Any], refused: Refused) -> int:
    """Write what these records were; how many went."""
    whole = []
    for record in chunk:
        length = dict(writable(record.headers)).get(TRUNCATED)
        if length is None:
            whole.append(record)
        else:
            refused(f"{_place(record)}: only the beginning of its {length.decode(errors='replace')} bytes was kept")
    too_large = writer.offer(topic, [_original(record) for record in whole])
    for number in too_large:
        refused(f"{_place(whole[number])}: it is too large for the topic {topic}")
    return len(whole) - len(too_large)


def _place(record: Any) -> str:
    return f"{record.topic}, partition {record.partition}, offset {record.offset}"


def newest_dead(options: KafkaOptions, topics: Topics, route: Route, limit: int) -> list[DeadLetter]:
    """The last dead letters, newest first, at most one of each object; a few times `limit` are looked through."""
    topics.described()
    with converted(options), closing(_reader(options, None)) as reader:
        places = [
            TopicPartition(options.dead_topic, at) for at in reader.partitions_for_topic(options.dead_topic) or ()
        ]
        reader.assign(places)
        ends, beginnings = reader.end_offsets(places), reader.beginning_offsets(places)
        spans = {place: (max(beginnings[place], ends[place] - limit * LOOKED_THROUGH), ends[place]) for place in places}
        records = [record for chunk in _read(reader, spans, options) for record in chunk]
    found: dict[object, DeadLetter] = {}
    for record in sorted(records, key=lambda record: record.timestamp, reverse=True):
        for event in _events(record, route):
            about = event.ref if isinstance(event, ObjectEvent) else event.body
            reason = dict(writable(record.headers)).get(REASON, b"").decode(errors="replace")
            found.setdefault(about, DeadLetter(record.timestamp / 1000, reason, event))
    return list(found.values())[:limit]


def _events(record: Any, route: Route) -> Sequence[ObjectEvent | UndecodableEvent]:
    original = _original(record)
    decoded = decode_message(original.value, original.headers, route)
    if isinstance(decoded, UndecodableEvent):
        return [decoded]
    return decoded or [UndecodableEvent(original.value, "no event")]


def replay_spans(options: KafkaOptions, spans: Spans, writer: Writer, refused: Refused) -> int:
    """Put the records of these spans on the topic's end, marked as replayed."""
    wanted = {TopicPartition(options.topic, partition): span for partition, span in spans.items()}
    count = 0
    with converted(options), closing(_reader(options, None)) as reader:
        reader.assign(list(wanted))
        for chunk in _read(reader, wanted, options):
            count += _put_back(writer, options.topic, chunk, refused)
    return count


def spans_since(options: KafkaOptions, topics: Topics, at: float) -> dict[int, tuple[int, int]]:
    """The spans from a time (seconds since 1970) to the present ends."""
    places = topics.partitions()
    ends = topics.ends()
    with converted(options), closing(_reader(options, None)) as reader:
        found = reader.offsets_for_times(dict.fromkeys(places, int(at * 1000)))
    spans = {}
    for place in places:
        answer = found.get(place)
        spans[place.partition] = (ends[place.partition] if answer is None else answer.offset, ends[place.partition])
    return spans


def _reader(options: KafkaOptions, group: str | None) -> KafkaConsumer:
    return opened(
        KafkaConsumer,
        options,
        group_id=group,
        enable_auto_commit=False,
        metrics_enabled=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
    )


def _read(
    reader: KafkaConsumer, spans: Mapping[TopicPartition, tuple[int, int]], options: KafkaOptions
) -> Iterator[list[Any]]:
    """The records of spans in chunks; ends when all are read. Raises UnavailableError if some that are there don't
    come."""
    left = {place: end for place, (start, end) in spans.items() if start < end}
    reader.pause(*(place for place in spans if place not in left))
    for place in left:
        reader.seek(place, spans[place][0])
    quiet = 0
    while left and quiet < QUIET_POLLS:
        batches = _polled(reader, options)
        quiet = 0 if batches else quiet + 1
        chunk = []
        for place, batch in batches.items():
            chunk += [record for record in batch if record.offset < left.get(place, 0)]
            if batch[-1].offset + 1 >= left.get(place, 0):
                left.pop(place, None)
                reader.pause(place)
        if chunk:
            yield chunk
    if left:
        _insist(reader, left, options)


def _polled(reader: KafkaConsumer, options: KafkaOptions) -> Mapping[TopicPartition, Sequence[Any]]:
    try:
        found: Mapping[TopicPartition, Sequence[Any]] = reader.poll(POLL_MS, max_records=CHUNK)
    except KafkaError as error:
        raise explained(error, reader, options) from error
    return found


def _insist(reader: KafkaConsumer, left: Mapping[TopicPartition, int], options: KafkaOptions) -> None:
    """Make sure that nothing of these spans is left: the client is as silent about a broker that is away as about what
    is past retention. Raises UnavailableError, with the offsets that were reached."""
    beginnings, ends = _bounds(reader, left)
    missing = []
    for place, end in left.items():
        reached = max(reader.position(place, timeout_ms=POLL_MS) or 0, beginnings.get(place, 0))
        last = min(end, ends.get(place, end))
        if reached < last:
            missing.append(f"partition {place.partition} from offset {reached} to {last}")
    if missing:
        topic = next(iter(left)).topic
        advice = "the same with --partition, --from and --to" if topic == options.topic else "try again"
        raise UnavailableError(f"{options.canonical} gives no more of {topic}: {'; '.join(missing)} is left; {advice}")


def _bounds(reader: KafkaConsumer, left: Mapping[TopicPartition, int]) -> tuple[dict[Any, int], dict[Any, int]]:
    """Where these partitions begin and end, as far as a broker says."""
    try:
        return (
            reader.beginning_offsets(list(left), timeout_ms=REQUEST_MS),
            reader.end_offsets(list(left), timeout_ms=REQUEST_MS),
        )
    except KafkaError:
        return {}, {}


def _original(record: Any) -> Message:
    return Message(record.key or b"", record.value or b"", _headers(record.headers))


def _headers(headers: Received) -> Headers:
    kept = [(name, text) for name, text in writable(headers) if not name.startswith(HEADER)]
    return [(name, b"replay" if name == _DISCOVERED_BY else text) for name, text in kept]
