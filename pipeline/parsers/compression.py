"""Compressed bodies as streams: every member is read, and a bomb is stopped while it goes off."""

from __future__ import annotations

import bz2
import io
import zlib
from typing import Any, BinaryIO, NoReturn, Protocol

from pipeline.errors import ObjectFailed, UsageError
from pipeline.parsers.contract import Body, Limits, Rules

SUFFIXES = frozenset({".gz", ".bz2", ".zst"})
SMALL_BYTES = 1024 * 1024
"""A body that comes to no more than this is kept in memory, as stores do with small objects."""
_GROWTH_BYTES = 256 * 1024
"""Most that one step of decompression may give."""
_GZIP = 31
"""zlib's window argument for gzip members."""


class _Member(Protocol):
    """One member of a compressed stream, while it is read."""

    read_bytes: int
    """Most that one step should be given."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def step(self, data: bytes) -> tuple[bytes, bool]:
        """Give it more bytes (none to go on with those it has): what came out, and whether it can go on."""


class _Gzip:
    read_bytes = 64 * 1024

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def step(self, data: bytes) -> tuple[bytes, bool]:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, _GROWTH_BYTES)
        return out, bool(self._inner.unconsumed_tail) or len(out) == _GROWTH_BYTES


class _Bzip2:
    read_bytes = 64 * 1024

    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def step(self, data: bytes) -> tuple[bytes, bool]:
        out = self._inner.decompress(data, _GROWTH_BYTES)
        return out, not self._inner.needs_input and not self._inner.eof


class _Inflated(io.RawIOBase):
    """A stream of what comes out of a compressed one."""

    def __init__(self, stream: BinaryIO, member: type[_Member], limits: Limits) -> None:
        self._stream = stream
        self._new_member = member
        self._member: _Member | None = None
        self._limits = limits
        self._held = b""
        self._waiting = b""
        self._more = False
        self._read = 0
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._piece()
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(piece))
        room[:count] = piece[:count]
        self._held = piece[count:]
        return count

    def _piece(self) -> bytes:
        if self._held:
            return self._held
        while True:
            out = self._step()
            if out is None or out:
                return out or b""

    def _step(self) -> bytes | None:
        """Some bytes, perhaps none; None at the end."""
        if not self._waiting and not self._more:
            self._waiting = self._stream.read(self._new_member.read_bytes)
            self._read += len(self._waiting)
            if not self._waiting:
                self._check_end()
                return None
        if self._member is None:
            if self._given:
                # Members may be padded with zeros, at the end of the stream and between them.
                self._waiting = self._waiting.lstrip(b"\x00")
                if not self._waiting:
                    return b""
            self._member = self._new_member()
        data, self._waiting = self._waiting, b""
        try:
            out, self._more = self._member.step(data)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            self._fail(f"the compressed stream is corrupt: {error}")
        if self._member.eof:
            self._waiting, self._member, self._more = self._member.unused_data, None, False
            self._given = max(self._given, 1)
        return self._checked(out)

    def _check_end(self) -> None:
        if self._member is not None or self._read == 0:
            self._fail("the compressed stream is cut off")

    def _checked(self, out: bytes) -> bytes:
        self._given += len(out)
        limits = self._limits
        if self._given > limits.inflate_bytes:
            self._fail(f"it gives more than {limits.inflate_bytes} bytes")
        if self._given > limits.inflate_free_bytes and self._given > self._read * limits.inflate_ratio:
            self._fail(f"it grows more than {limits.inflate_ratio} times")
        return out

    def _fail(self, why: str) -> NoReturn:
        raise ObjectFailed("compressed", why, byte=self._read)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def inflated(body: Body, suffix: str, rules: Rules) -> Body:
    """The body as it is inside; `suffix` is one of SUFFIXES.

    Raises:
        ObjectFailed: `compressed`, here or from a read of the new body.
        UsageError: the extra that this compression needs is not installed.
    """
    member = _member_of(suffix)

    def reopen() -> BinaryIO:
        return io.BufferedReader(_Inflated(body.open(), member, rules.limits), _GROWTH_BYTES)

    key = body.key[: -len(suffix)]
    if body.content is None:
        return Body(key, body.uri, None, None, reopen)
    with reopen() as stream:
        content = stream.read(SMALL_BYTES + 1)
    if len(content) <= SMALL_BYTES:
        return Body(key, body.uri, len(content), content)
    return Body(key, body.uri, None, None, reopen)


def _member_of(suffix: str) -> type[_Member]:
    if suffix == ".gz":
        return _Gzip
    if suffix == ".bz2":
        return _Bzip2
    try:
        from pipeline.parsers.zstd import Zstandard  # noqa: PLC0415 - an optional extra, imported only when used
    except ModuleNotFoundError:
        raise UsageError(".zst files need the extra `zstd`: pip install 'labelfeed[zstd]'") from None
    return Zstandard
