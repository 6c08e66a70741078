"""Records with a header whose name is not UTF-8, as clients in C and Go can write them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, MemoryRecordsBuilder, memory_records
from kafka.record.default_records import DefaultRecordBatch

from pipeline.bus.kafka import KafkaLog, KafkaOptions, parse
from pipeline.bus.kafka.codec import Headers, Message, decode_message, encode
from pipeline.bus.kafka.log import nowhere
from pipeline.bus.kafka.records import Garbled
from pipeline.bus.kafka.writer import Writer
from pipeline.events import ObjectEvent, UndecodableEvent
from tests.bus.contract import events_of, nothing, take

NO_TEXT = b"na\xff\xc3me"
WRITTEN = r"na\xff\xc3me"
FIELDS = ("offset", "timestamp", "timestamp_type", "key", "value", "size_in_bytes")
CODECS = {"none": 0, "gzip": 1, "lz4": 3}
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class NoText(str):
    """A header's name that the client writes as bytes that are no text."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        """What goes over the wire."""
        return NO_TEXT


def batch(compression: int, headers: Sequence[Sequence[tuple[str, bytes | None]]]) -> bytes:
    """A batch of records with these headers, as a broker gives it out."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=1 << 20, offset=0)
    for number, each in enumerate(headers):
        key = b"k" * 200 if number % 2 else None
        assert builder.append(1_000 + number, key, b"na\xff\xc3me %d" % number, list(each))
    builder.close()
    return bytes(builder.buffer())


def read(batches: bytes) -> list[Any]:
    """All that the client makes of one batch."""
    return list(MemoryRecords(batches).next_batch())


@pytest.mark.parametrize("compression", CODECS.values(), ids=CODECS)
def test_only_the_name_is_read_otherwise(compression: int) -> None:
    """All else of such a record, and all of those around it, is what the client makes of it with another name."""
    others: list[tuple[str, bytes | None]] = [("", None), ("ü", b"na\xff\xc3me"), ("null", None)]
    bad = [[], [*others, (NoText(), None), *others], others, [(NoText(), b"1"), (NoText(), b"2")], []]
    good = [[("naXXme" if isinstance(name, NoText) else name, text) for name, text in each] for each in bad]
    found, wanted = read(batch(compression, bad)), read(batch(compression, good))

    for one, other in zip(found, wanted, strict=True):
        assert [getattr(one, field) for field in FIELDS] == [getattr(other, field) for field in FIELDS]
        assert one.headers == [(WRITTEN if name == "naXXme" else name, text) for name, text in other.headers]
        assert [isinstance(name, Garbled) for name, _ in one.headers] == [name == "naXXme" for name, _ in other.headers]


def test_the_client_itself_still_refuses_such_a_record() -> None:
    """When it reads them by itself, `records.py` has nothing left to do and can go."""
    with pytest.raises(CorruptRecordError, match="UnicodeDecodeError"):
        list(DefaultRecordBatch(batch(0, [[(NoText(), b"1")]])))


def test_a_damaged_record_is_still_refused() -> None:
    """Where more than a name is wrong, nothing is made up: not of such a record either, wherever it ends."""
    whole = batch(0, [[("some", b"text"), (NoText(), b"1" * 60), (NoText(), None)]])
    for end in range(DefaultRecordBatch.HEADER_STRUCT.size, len(whole)):
        with pytest.raises(CorruptRecordError):
            list(memory_records.DefaultRecordBatch(whole[:end]))


def test_a_name_that_reads_like_one_that_is_no_text_is_a_name() -> None:
    """What is text is passed over as any other header, and doesn't hide one beside it that is no text."""
    event = ObjectEvent("inbox", "k", version="v", time=1.0, id="i")
    message = encode(event)
    text = [*message.headers, (WRITTEN, b"1")]

    assert decode_message(message.value, text, nowhere) == [event]
    assert isinstance(decode_message(message.value, [*text, (Garbled(WRITTEN), b"1")], nowhere), UndecodableEvent)


@pytest.fixture(params=CODECS)
def options(request: pytest.FixtureRequest, kafka_url: str) -> KafkaOptions:
    """A topic of one partition, in which order is kept, of this test alone."""
    group = kafka_url.rpartition("/")[2]
    return parse(f"{kafka_url}?partitions=1&group={group}&compression={request.param}")


@pytest.fixture
def log(options: KafkaOptions) -> Iterator[KafkaLog]:
    """The log of this test, its topics made."""
    with closing(KafkaLog(options)) as opened:
        opened.ping()
        yield opened
    gc.collect()


def event(name: str) -> ObjectEvent:
    """An event of an object of this name."""
    return ObjectEvent("inbox", name, version="v", time=1.0, id=name)


def write(options: KafkaOptions, *names: str) -> list[Message]:
    """Write events one behind another, mostly into one batch: those named `bad…` have a header that is no text."""
    odd: Headers = [(NoText(), b"1")]
    messages = [encode(event(name)) for name in names]
    messages = [
        message._replace(headers=[*message.headers, *odd]) if name.startswith("bad") else message
        for name, message in zip(names, messages, strict=True)
    ]
    with closing(Writer(options)) as writer:
        writer.send(options.topic, messages)
    return messages


def letters(options: KafkaOptions, count: int) -> list[Any]:
    """The first dead letters, as any consumer sees them."""
    with closing(KafkaConsumer(bootstrap_servers=options.bootstrap[0], enable_auto_commit=False)) as reader:
        place = TopicPartition(options.dead_topic, 0)
        reader.assign([place])
        reader.seek_to_beginning()
        found: list[Any] = []
        while len(found) < count:
            found += reader.poll(500).get(place, [])
    return found


def test_a_header_that_is_no_text_makes_a_dead_letter_and_stops_nothing(log: KafkaLog, options: KafkaOptions) -> None:
    """Its record is put aside with bytes, reason and place, and all others come once and in order, wherever a poll
    ends."""
    sent = write(options, "a", "bad1", "b", "bad2", "bad3", "c")
    log.publish([event("d")])
    with closing(log.consumer(nothing)) as consumer:
        records = []
        while len(records) < 7:
            polled = take(consumer, 1, limit=2)[0]
            broken = [record for record in polled if isinstance(record.event, UndecodableEvent)]
            consumer.dead(broken, [record.event.reason for record in broken])  # type: ignore[union-attr]
            records += polled
        assert not consumer.poll(10, 0.3).records

    assert [record.offset for record in records] == list(range(7))
    assert events_of(records) == [event(name) for name in "abcd"]
    for offset, letter in zip([1, 3, 4], letters(options, 3), strict=True):
        original = sent[offset]
        assert (letter.key, letter.value) == (original.key, original.value)
        assert dict(letter.headers) == {
            **dict(original.headers[:-1]),
            WRITTEN: b"1",
            "labelfeed-reason": f"the header name {WRITTEN} is not UTF-8".encode(),
            "labelfeed-topic": options.topic.encode(),
            "labelfeed-partition": b"0",
            "labelfeed-offset": str(offset).encode(),
        }


def test_what_begins_at_a_header_that_is_no_text_is_read(log: KafkaLog, options: KafkaOptions) -> None:
    """A dispatcher whose position is that of such a record, as those are that stopped at it, goes on there."""
    write(options, "a", "bad", "b")
    with closing(log.consumer(lambda _partitions: {0: 1})) as consumer:
        records, positions = take(consumer, 2)

    assert [record.offset for record in records] == [1, 2]
    assert (events_of(records), positions) == ([event("b")], {0: 3})


def test_a_header_that_is_no_text_is_replayed_as_it_is_written_out(log: KafkaLog, options: KafkaOptions) -> None:
    """The name is text in what is replayed, whether from a dead letter or from the topic, so the event can be read."""
    write(options, "bad")
    with closing(log.consumer(nothing)) as consumer:
        records, _ = take(consumer, 1)
        consumer.dead(records, ["not UTF-8"])
        assert log.replay_dead() == 1
        assert log.replay({0: (0, 1)}) == 1
        again, _ = take(consumer, 2)

    assert events_of(again) == [event("bad")._replace(discovered_by="replay")] * 2
