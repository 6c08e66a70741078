"""Batches of the topic that the client cannot read: where they are, why, and what a person can do about it."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer
from kafka.errors import CorruptRecordError, UnsupportedCodecError

from pipeline.bus.kafka.options import CODECS, KafkaOptions
from pipeline.bus.kafka.records import DamagedBatch, MissingCodec
from pipeline.errors import UnavailableError

CODE = "unreadable_batch"


def explained(error: Exception, consumer: KafkaConsumer | None, options: KafkaOptions) -> Exception:
    """What to raise for an error of a poll: another one where it is of a batch, else the error itself."""
    if isinstance(error, MissingCodec):
        package = CODECS.get(error.codec)
        advice = f"install {package} and start again" if package else "no client of ours reads that"
        return _told(options, consumer, f"{error.place} is compressed with {error.codec}; {advice}")
    if isinstance(error, DamagedBatch):
        advice = (
            "where no replica has it whole, pass over it: kafka-delete-records.sh with this partition and the offset"
            f" {error.after}; the next pass lists what it told of"
        )
        return _told(options, consumer, f"{error.place} is damaged ({error}); {advice}")
    if isinstance(error, CorruptRecordError | UnsupportedCodecError):
        at = _offset(consumer)
        place = f"a record at offset {at}" if at is not None else "a record"
        return _told(options, consumer, f"{place} is damaged ({error}); kafka-delete-records.sh can pass over it")
    return error


def _told(options: KafkaOptions, consumer: KafkaConsumer | None, text: str) -> UnavailableError:
    fetched = _fetched(consumer)
    place = "" if fetched is None else f", partition {fetched.topic_partition.partition}"
    return UnavailableError(f"{options.canonical}{place}: {text}", code=CODE)


def _offset(consumer: KafkaConsumer | None) -> int | None:
    fetched = _fetched(consumer)
    return None if fetched is None else int(fetched.next_fetch_offset)


def _fetched(consumer: KafkaConsumer | None) -> Any:
    """What the client was reading when it raised: it says nowhere else of which partition that is."""
    return None if consumer is None else consumer._fetcher._next_partition_records  # noqa: SLF001
