"""The bodies of answers: bounded, decoded, checked against what was announced; and their versions."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import NamedTuple

import httpx

from pipeline.errors import ObjectFailed, UnavailableError
from pipeline.stores.http.bounds import Bounds
from pipeline.stores.http.client import converted, surplus

VERSION_CHARACTERS = 200
"""A longer ETag is hashed."""
RECENT_SECONDS = 2.0
"""A file changed so shortly before the answer may change again without another Last-Modified, which counts seconds; and
some servers say `now` of whatever they make. There the content tells the version."""
HASH = "hash-"
"""What versions begin with that the content tells."""
STEP_BYTES = 256 * 1024
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

_GZIP = 31
_DECODERS: dict[str, tuple[int, ...]] = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (15, -15)}
"""zlib's window argument; deflate is sent with a header and without."""


class Stated(NamedTuple):
    """What an answer's head says of a file: `version` is None where only its content can tell."""

    version: str | None
    size: int | None
    modified: float


def stated(response: httpx.Response) -> Stated:
    """Read an answer's head."""
    headers = response.headers
    size = announced(response)
    modified, now = _seconds(headers.get("last-modified")), _seconds(headers.get("date"))
    tag = headers.get("etag", "").strip()
    if tag:
        return Stated(_of_tag(tag), size, modified or 0.0)
    recent = modified is not None and now is not None and now - modified < RECENT_SECONDS
    if modified is None or size is None or recent:
        return Stated(None, size, modified or 0.0)
    return Stated(f"{size}-{int(modified)}", size, modified)


def _of_tag(tag: str) -> str:
    version = tag.replace('"', "")
    if len(version) > VERSION_CHARACTERS or not version.isascii() or not version.isprintable():
        return "~" + blake2b(tag.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return version


def strong_tag(response: httpx.Response) -> str | None:
    """The ETag to name in If-Match, or None."""
    tag: str = response.headers.get("etag", "").strip()
    return tag if tag.startswith('"') else None


def announced(response: httpx.Response) -> int | None:
    """The Content-Length, where it counts the file's own bytes."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() and not _encoding(response) else None


def _seconds(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _encoding(response: httpx.Response) -> str:
    text: str = response.headers.get("content-encoding", "").strip().lower()
    return "" if text == "identity" else text


def is_html(response: httpx.Response) -> bool:
    """Whether the answer calls itself HTML."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower() in HTML_TYPES


def chunks(response: httpx.Response, uri: str, bounds: Bounds, limit: int, *, packed: bool = False) -> Iterator[bytes]:
    """The file's bytes as they come, never more than `limit`. `packed` says that the file itself is compressed, so
    that a content encoding of the same name is the server's mistake.

    Raises ObjectFailed (`too_large`, `length`, `compressed`) and UnavailableError.
    """
    encoding = _encoding(response)
    raw = _raw(response, uri, limit)
    if not encoding or (packed and encoding in _DECODERS):
        yield from raw
    elif encoding in _DECODERS:
        yield from _decoded(raw, _DECODERS[encoding], uri, bounds, limit)
    else:
        raise ObjectFailed("compressed", f"{uri}: the server sends it in the content encoding {encoding[:40]!r}")


def _raw(response: httpx.Response, uri: str, limit: int) -> Iterator[bytes]:
    length = response.headers.get("content-length", "")
    expected = int(length) if length.isdecimal() and "transfer-encoding" not in response.headers else None
    if expected is not None and expected > limit:
        raise _too_large(uri, limit)
    total = 0
    with converted(uri):
        # Not by `iter_raw`, which gives the connection back before it could be looked at.
        assert isinstance(response.stream, httpx.SyncByteStream)
        for chunk in response.stream:
            total += len(chunk)
            if total > limit:
                raise _too_large(uri, limit)
            yield chunk
        if expected is not None and surplus(response, expected):
            raise ObjectFailed("length", f"{uri}: the server sends more than the {expected} bytes that it announces")


def _too_large(uri: str, limit: int) -> ObjectFailed:
    return ObjectFailed("too_large", f"{uri} is larger than {limit} bytes")


def _decoded(raw: Iterator[bytes], windows: tuple[int, ...], uri: str, bounds: Bounds, limit: int) -> Iterator[bytes]:
    read = given = 0
    member = None
    for chunk in raw:
        read += len(chunk)
        waiting = chunk
        while waiting:
            if member is None:
                member = _member(windows, waiting, uri)
            out = _step(member, waiting, uri)
            given += len(out)
            if given > limit:
                raise _too_large(uri, limit)
            if given > bounds.inflate_free_bytes and given > read * bounds.inflate_ratio:
                raise ObjectFailed("compressed", f"{uri} grows more than {bounds.inflate_ratio} times")
            if out:
                yield out
            waiting = member.unused_data if member.eof else member.unconsumed_tail
            member = None if member.eof else member
    if member is not None or not read:
        raise UnavailableError(f"{uri}: its content encoding is cut off")


def _member(windows: tuple[int, ...], head: bytes, uri: str) -> zlib._Decompress:
    for window in windows:
        try:
            zlib.decompressobj(window).decompress(head, 1)
        except zlib.error:
            continue
        return zlib.decompressobj(window)
    raise ObjectFailed("compressed", f"{uri}: its content encoding is corrupt")


def _step(member: zlib._Decompress, data: bytes, uri: str) -> bytes:
    try:
        return member.decompress(data, STEP_BYTES)
    except zlib.error:
        raise ObjectFailed("compressed", f"{uri}: its content encoding is corrupt") from None


class Hashed:
    """The version of content that the server gives no version for."""

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)
        self.size = 0

    def add(self, chunk: bytes) -> bytes:
        """Take a chunk into account, and give it."""
        self._digest.update(chunk)
        self.size += len(chunk)
        return chunk

    @property
    def version(self) -> str:
        """The version of what was added."""
        return HASH + self._digest.hexdigest()


class BodyStream(io.RawIOBase):
    """A file's bytes from one request, which is made by the first read. Raises as `chunks`."""

    def __init__(self, request: Callable[[], Iterator[bytes]]) -> None:
        self._request = request
        self._chunks: Iterator[bytes] | None = None
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # any writable buffer
        """Fill a buffer, at least partly; 0 at the end."""
        if self._chunks is None:
            self._chunks = self._request()
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        """Close the connection."""
        if self._chunks is not None:
            self._chunks.close()  # type: ignore[attr-defined]  # requests are generators
        self._left = memoryview(b"")
        super().close()
