"""From a body's bytes to UTF-8 bytes or to text, by byte order mark or by the source's own word.

A byte that cannot be decoded fails the whole object, with its offset, whatever the kind of file.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from pipeline.errors import ObjectFailed
from pipeline.parsers.contract import Body, Rules, check_encoding

BLOCK_BYTES = 24 * 1024
"""So much is read from a stream at a time. What it becomes is small enough for the allocator to use the same memory
for the next block; with larger ones it gives it back to the system and asks for it again, at more than half the speed
of reading JSON."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = 4


def mark_of(head: bytes) -> tuple[int, str | None]:
    """The length of the byte order mark that the bytes begin with, and its encoding; (0, None) without one."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return len(mark), encoding
    return 0, None


def read_up_to(stream: BinaryIO, size: int) -> bytes:
    """Bytes of the stream, fewer than `size` only at its end, however short its own reads are."""
    first = stream.read(size)
    if len(first) == size or not first:
        return first
    parts, missing = [first], size - len(first)
    while missing > 0 and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def failed(offset: int, encoding: str, reason: str) -> NoReturn:
    """Raise what a byte that cannot be decoded makes of its object."""
    raise ObjectFailed(
        "encoding",
        f"byte {offset} is not {encoding}: {reason}",
        byte=offset,
        hint="if the file has another encoding, give it as `encoding:` of the source",
    )


def decode(content: bytes, encoding: str, offset: int = 0) -> str:
    """The text of some bytes; `offset` is where they begin in the body.

    Raises:
        ObjectFailed: `encoding`, with the place.
    """
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        failed(offset + error.start, encoding, error.reason)
    except UnicodeError as error:
        failed(offset, encoding, str(error))


class TextReader:
    """The text of a body, in blocks, without its byte order mark."""

    def __init__(self, stream: BinaryIO, encoding: str | None) -> None:
        self._stream = stream
        head = read_up_to(stream, _LONGEST_MARK)
        length, marked = mark_of(head)
        name = check_encoding(encoding) if encoding else marked or "utf-8"
        if encoding and marked is not None and not _same(name, marked):
            length = 0
        elif encoding and marked is not None:
            name = marked
        self.encoding = name
        self._decoder = codecs.getincrementaldecoder(name)("strict")
        self._offset = length
        self._pending = head[length:]
        self._ended = False
        self._odd = encoding is not None and not name.startswith(("utf-8", "utf-16", "utf-32", "iso8859", "cp"))

    def _check_surrogates(self, text: str) -> None:
        """Refuse what only encodings like utf-7 can bring forth: text that is no valid Unicode."""
        try:
            text.encode()
        except UnicodeEncodeError:
            failed(self._offset, self.encoding, "it gives half a surrogate pair")

    def read(self, size: int = BLOCK_BYTES) -> str:
        """The next text, of about `size` bytes; empty only at the end."""
        while not self._ended:
            content = self._pending + read_up_to(self._stream, size)
            self._pending = b""
            self._ended = not content
            held = len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(content, final=self._ended)
            except UnicodeDecodeError as error:
                failed(self._offset - held + error.start, self.encoding, error.reason)
            except UnicodeError as error:
                failed(self._offset, self.encoding, str(error))
            if self._odd:
                self._check_surrogates(text)
            self._offset += len(content)
            if text:
                return text
        return ""

    def __iter__(self) -> Iterator[str]:
        while text := self.read():
            yield text


def _same(name: str, marked: str) -> bool:
    return name.replace("_", "-").startswith(marked) or marked.startswith(name.replace("_", "-"))


class _AsUtf8:
    """A text reader, as a stream of UTF-8 bytes."""

    def __init__(self, reader: TextReader, stream: BinaryIO) -> None:
        self._reader = reader
        self._stream = stream

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        return self._reader.read(size).encode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._stream.close()


def _characters(content: bytes) -> int:
    return len(content) if content.isascii() else len(content.decode("utf-8", "replace"))


class Window:
    """A window that slides over a stream of UTF-8 bytes.

    `data` is what it shows, `base` the offset of its first byte, `line` and `column` that byte's place (from
    1), `final` whether the stream ends where the window ends.
    """

    __slots__ = ("_pending", "_stream", "base", "column", "data", "final", "line")

    def __init__(self, body: Body, rules: Rules) -> None:
        stream = body.open()
        head = read_up_to(stream, _LONGEST_MARK)
        length, marked = mark_of(head)
        encoding = rules.options.encoding
        self._stream: BinaryIO = stream
        self._pending = head[length:]
        self.base = length
        if marked not in (None, "utf-8") or (encoding and check_encoding(encoding) != "utf-8"):
            stream.close()
            stream = body.open()
            self._stream = _AsUtf8(TextReader(stream, encoding), stream)  # type: ignore[assignment]
            self._pending, self.base = b"", 0
        self.data = b""
        self.line = self.column = 1
        self.final = False

    def more(self, size: int) -> None:
        """Widen the window to at least `size` bytes, or to the stream's end."""
        parts, have = [self.data, self._pending], len(self.data) + len(self._pending)
        self._pending = b""
        while have < size:
            part = self._stream.read(size - have)
            if not part:
                self.final = True
                break
            parts.append(part)
            have += len(part)
        self.data = b"".join(parts)

    def drop_lines(self, count: int, lines: int) -> None:
        """Slide over `count` bytes that are so many whole lines."""
        self.base += count
        self.line += lines
        self.column = 1
        self.data = self.data[count:]

    def drop(self, count: int) -> None:
        """Slide over `count` bytes."""
        newline = self.data.rfind(b"\n", 0, count)
        if newline >= 0:
            self.line += self.data.count(b"\n", 0, count)
            self.column = 1
        self.column += _characters(self.data[newline + 1 : count])
        self.base += count
        self.data = self.data[count:]

    def drop_text(self, text: str, count: int) -> None:
        """Slide over the first `count` characters of `text`, which `text()` gave."""
        self.drop(count if text.isascii() else len(text[:count].encode()))

    def text(self, start: int = 0) -> str:
        """The window's bytes from `start` as text, without a character that its end cuts off.

        Raises:
            ObjectFailed: `encoding`, with the place.
        """
        content = self.data[start:]
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            if not self.final and error.end == len(content) and error.reason == "unexpected end of data":
                return content[: error.start].decode()
            failed(self.base + start + error.start, "utf-8", error.reason)

    def drain(self) -> None:
        """Read to the end, only to find out whether all of it can be decoded."""
        while self.data or not self.final:
            taken = len(self.text().encode())
            self.drop(taken)
            if not self.final:
                self.more(BLOCK_BYTES)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
