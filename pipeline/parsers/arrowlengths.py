"""What the compressed buffers of an Arrow file come to, read before any is decoded.

A record batch is decoded as a whole. Each of its compressed buffers begins with its length once decoded, and where
the buffers are stands in the flatbuffer ahead of the batch. Only what is needed of it is read here, by the layout of
Arrow's Message.fbs and File.fbs: nothing is followed twice, and no offset beyond the bytes there are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn, Protocol

from pipeline.errors import ObjectFailed
from pipeline.parsers.contract import Limits

MAGIC = b"ARROW1"
_U16, _I32, _U32, _I64, _BYTE = (struct.Struct(form) for form in ("<H", "<i", "<I", "<q", "<B"))
_BUFFER = struct.Struct("<qq")
"""Where a buffer begins in the body, and its length there."""
_BLOCK = struct.Struct("<qi4xq")
"""Where a message begins in the file, the length ahead of its body, and the body's."""
_TAIL_BYTES = _I32.size + len(MAGIC)
_CONTINUES = -1
"""Ahead of a message's length, since Arrow 0.15."""
_AS_IT_IS = -1
"""In place of a length: the buffer is not compressed, although its batch is."""
_DICTIONARY, _BATCH = 2, 3
_LEAST_BYTES = 64
"""What a buffer counts at least, as that much is allocated for it; so there is an end to those that are empty."""
_BEFORE_1_0 = b"ARROW:experimental_compression"
"""Where Arrow 0.17 said that a batch is compressed."""


class File(Protocol):
    """A file of pyarrow's, or what is shaped alike."""

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """So many bytes from there."""

    def size(self) -> int:
        """All its bytes."""


def _number(form: struct.Struct, data: bytes, at: int) -> int:
    if not 0 <= at <= len(data) - form.size:
        raise ValueError("an offset leads out of the metadata")
    return int(form.unpack_from(data, at)[0])


class _Table(NamedTuple):
    """A table of a flatbuffer; a field of it goes by its place in the schema."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _number(_U32, data, 0))

    def _field(self, place: int) -> int | None:
        known = self.at - _number(_I32, self.data, self.at)
        entry = 2 * _U16.size + place * _U16.size
        if entry + _U16.size > _number(_U16, self.data, known):
            return None
        offset = _number(_U16, self.data, known + entry)
        return self.at + offset if offset else None

    def number(self, place: int, form: struct.Struct) -> int:
        at = self._field(place)
        return 0 if at is None else _number(form, self.data, at)

    def table(self, place: int) -> _Table | None:
        at = self._field(place)
        return None if at is None else _Table(self.data, at + _number(_U32, self.data, at))

    def structs(self, place: int, form: struct.Struct) -> Iterator[tuple[int, ...]]:
        at = self._field(place)
        if at is None:
            return
        begin = at + _number(_U32, self.data, at)
        size = _number(_U32, self.data, begin) * form.size
        begin += _U32.size
        if size > len(self.data) - begin:
            raise ValueError("a list leads out of the metadata")
        yield from form.iter_unpack(memoryview(self.data)[begin : begin + size])


class _Message(NamedTuple):
    """A message's metadata, and where its body begins in the file."""

    data: bytes
    body: int

    @property
    def table(self) -> _Table:
        return _Table.root(self.data)

    @property
    def kind(self) -> int:
        return self.table.number(1, _BYTE)

    @property
    def end(self) -> int:
        length = self.table.number(3, _I64)
        if length < 0:
            raise ValueError("a body has a negative length")
        return self.body + length


class Lengths:
    """Holds the record batches and dictionaries of one file to the limits, each before it is decoded.

    All methods raise ObjectFailed `compressed` for what gives too much, and ValueError for what is no Arrow.
    """

    def __init__(self, file: File, limits: Limits) -> None:
        self._file = file
        self._size = file.size()
        self._limits = limits
        self._given = 0
        self._dictionaries: dict[int, int] = {}
        self._held = 0
        self._seen = 0

    def opening(self) -> None:
        """Check that the first message of a stream, which is its schema, is there as a whole."""
        if self._size:
            self._message(0)

    def of_stream(self, at: int) -> None:
        """Check the messages of a stream from there to its next record batch, or its end."""
        while at < self._size and (message := self._message(at)):
            self._check(message)
            if message.kind == _BATCH:
                return
            at = message.end

    def of_file(self) -> Iterator[int]:
        """The numbers of a file's record batches, each once it is checked, and before the first all dictionaries."""
        tail = self._read(self._size - _TAIL_BYTES, _TAIL_BYTES)
        length = _number(_I32, tail, 0)
        footer = _Table.root(self._read(self._size - _TAIL_BYTES - length, length))
        for block in footer.structs(2, _BLOCK):
            self._check_block(block)
        for number, block in enumerate(footer.structs(3, _BLOCK)):
            self._check_block(block)
            yield number

    def _check_block(self, block: tuple[int, ...]) -> None:
        at, ahead, _ = block
        message = self._message(at)
        if message is None or message.body != at + ahead:
            raise ValueError("the footer and a message differ")
        self._seen += message.end - at
        if self._seen > self._size:
            raise ValueError("the footer names a message several times")
        self._check(message)

    def _message(self, at: int) -> _Message | None:
        length = self._number(at)
        at += _I32.size
        if length == _CONTINUES:
            length = self._number(at)
            at += _I32.size
        if length == 0:
            return None
        message = _Message(self._read(at, length), at + length)
        if message.end > self._size:
            raise ValueError("a message is cut off")
        return message

    def _check(self, message: _Message) -> None:
        """Count what a message comes to once it is decoded."""
        header = message.table.table(2)
        if header is None or message.kind not in (_DICTIONARY, _BATCH):
            return
        batch = header if message.kind == _BATCH else header.table(1)
        given = 0 if batch is None else self._decoded(message, batch)
        self._given += given
        if message.kind == _DICTIONARY:
            name, is_more = header.number(0, _I64), header.number(2, _BYTE)
            before = self._dictionaries.get(name, 0)
            self._dictionaries[name] = given + (before if is_more else 0)
            self._held += self._dictionaries[name] - before
            given = 0
        self._hold(self._held + given, message.body)

    def _decoded(self, message: _Message, batch: _Table) -> int:
        """What the compressed buffers of a batch say that they come to."""
        if batch.table(3) is None and _BEFORE_1_0 not in message.data:
            return 0
        total = 0
        for begin, size in batch.structs(2, _BUFFER):
            if size:
                length = _number(_I64, self._read(message.body + begin, _I64.size), 0)
                if length < _AS_IT_IS:
                    raise ValueError("a buffer has a negative length")
                total += max(_LEAST_BYTES, length)
        return total

    def _hold(self, at_once: int, at: int) -> None:
        limits, given = self._limits, self._given
        if given > limits.inflate_bytes:
            _fail(f"it gives more than {limits.inflate_bytes} bytes", at)
        if given > limits.inflate_free_bytes and given > self._size * limits.inflate_ratio:
            _fail(f"it grows more than {limits.inflate_ratio} times", at)
        if at_once > limits.batch_bytes:
            _fail(f"a record batch and its dictionaries give more than {limits.batch_bytes} bytes", at)

    def _number(self, at: int) -> int:
        return _number(_I32, self._read(at, _I32.size), 0)

    def _read(self, at: int, length: int) -> bytes:
        if length < 0 or not 0 <= at <= self._size - length:
            raise ValueError("an offset leads out of the file")
        return self._file.read_at(length, at)


def _fail(why: str, at: int) -> NoReturn:
    raise ObjectFailed("compressed", why, byte=at, hint="write it with fewer rows in a record batch")
