"""Records with a header whose name is not UTF-8: a broker takes them, clients in C and Go write them, Java's reads
them. kafka-python doesn't, and reads nothing behind such a record in its partition either, unless it is helped here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint


class Garbled(str):
    r"""A header's name that is not UTF-8; the bytes that aren't are written out, as in `na\xffme`."""

    __slots__ = ()


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python has no types
    """A batch as the client reads it, but for names that it can't decode: those are `Garbled`."""

    __slots__ = ()

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
# it looks up what reads a batch, for all consumers of the process; what `_Batch` builds upon is `_read_msg`, `_buffer`
# and `_pos`.
memory_records.DefaultRecordBatch = _Batch


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
