"""Records with a header whose name is not UTF-8: a broker takes them, clients in C and Go write them, Java's reads
them. kafka-python doesn't, and reads nothing behind such a record in its partition either, unless it is helped here.

And batches that it cannot read at all: here they say which ones they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Methods of compression by their number in a batch."""


class Garbled(str):
    r"""A header's name that is not UTF-8; the bytes that aren't are written out, as in `na\xffme`."""

    __slots__ = ()


class DamagedBatch(CorruptRecordError):  # type: ignore[misc]  # kafka-python has no types
    """The bytes of a batch are not what was written: `place` says which it is, `after` is the offset behind it."""

    def __init__(self, batch: DefaultRecordBatch, why: str) -> None:
        super().__init__(why)
        self.place, self.after = _batch(batch), batch.next_offset


class MissingCodec(UnsupportedCodecError):  # type: ignore[misc]
    """A batch is compressed with `codec`, for which there is no library; `place` says which batch it is."""

    def __init__(self, batch: DefaultRecordBatch) -> None:
        super().__init__()
        self.place, self.codec = _batch(batch), _CODECS.get(batch.compression_type, f"method {batch.compression_type}")


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python has no types
    """A batch as the client reads it, but for names that it can't decode: those are `Garbled`."""

    __slots__ = ()

    def validate_crc(self) -> bool:
        if not super().validate_crc():
            raise DamagedBatch(self, "its checksum is another one")
        return True

    def _maybe_uncompress(self) -> None:
        try:
            super()._maybe_uncompress()
        except UnsupportedCodecError as error:
            raise MissingCodec(self) from error
        except Exception as error:
            raise DamagedBatch(self, f"it can't be decompressed: {error}") from error

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_garbled()

    def _read_garbled(self) -> Any:
        """The record that was just refused, read again with all its names masked, so that the client reads the rest."""
        places = list(_places(self._buffer, self._pos))
        names = [_name(bytes(self._buffer[place])) for place in places]
        for place in places:
            self._buffer[place] = b"?" * (place.stop - place.start)
        record = super()._read_msg()
        record.headers[:] = [(name, text) for name, (_, text) in zip(names, record.headers, strict=True)]
        return record


# The client has no setting for how names are decoded or batches are read, and skips nothing by itself. This is where
# it looks up what reads a batch, for all consumers of the process; what `_Batch` builds upon is `_read_msg`, `_buffer`,
# `_pos` and `_maybe_uncompress`.
memory_records.DefaultRecordBatch = _Batch


def _batch(batch: DefaultRecordBatch) -> str:
    return f"the batch of the offsets {batch.base_offset} to {batch.last_offset}"


def _places(buffer: bytearray, at: int) -> Iterator[slice]:
    """Where the names of a record's headers are; it begins at `at`, in the format of messages 2."""
    for _ in ("length", "attributes", "timestamp", "offset"):
        _, at = decode_varint(buffer, at)
    for _ in ("key", "value"):
        at = _sized(buffer, at).stop
    count, at = decode_varint(buffer, at)
    for _ in range(count):
        name = _sized(buffer, at)
        yield name
        at = _sized(buffer, name.stop).stop


def _sized(buffer: bytearray, at: int) -> slice:
    """Where the bytes are that follow their length; that of null is -1."""
    length, at = decode_varint(buffer, at)
    return slice(at, at + max(length, 0))


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return Garbled(name.decode(errors="backslashreplace"))
