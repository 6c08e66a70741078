"""The topic of dead letters, written to: it takes larger messages than the events' topic, and what is too large for
it all the same is cut, so that nothing has to wait behind it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.bus.kafka.codec import Headers, Message
from pipeline.bus.kafka.options import KafkaOptions
from pipeline.bus.kafka.writer import Writer
from pipeline.errors import UnavailableError

HEADER = "labelfeed-"
"""Prefix of the headers that a dead letter has beyond the original's."""
REASON = f"{HEADER}reason"
TRUNCATED = f"{HEADER}truncated"
"""Header of a letter that was cut: how many bytes its value had."""
REASON_BYTES = 1_000
CUT_BYTES = (900_000, 90_000, 9_000)
"""What a letter that is too large is cut to, one after another: the first fits into a topic that is left as it was."""
HEADER_BYTES = 16
"""More than what a header takes beside its name and its text."""


class Letters:
    """Puts dead letters onto their topic, by a writer of large messages. Thread-safe."""

    def __init__(self, options: KafkaOptions, writer: Writer) -> None:
        self._topic = options.dead_topic
        self._writer = writer

    def bury(self, letters: Sequence[Message]) -> None:
        """Write letters durably, one that is too large without its end. Raises UnavailableError if any may be lost."""
        left = self._offered(letters)
        for limit in CUT_BYTES:
            left = self._offered([cut(letter, limit) for letter in left])
        if left:
            raise UnavailableError(f"the topic {self._topic} takes no messages of {CUT_BYTES[-1]} bytes")

    def _offered(self, letters: Sequence[Message]) -> list[Message]:
        return [letters[number] for number in self._writer.offer(self._topic, letters)] if letters else []


def reason_header(reason: str) -> tuple[str, bytes]:
    """Why a letter was put aside, as its header says it."""
    return REASON, reason.encode(errors="replace")[:REASON_BYTES]


def cut(letter: Message, limit: int) -> Message:
    """A letter of no more than `limit` bytes: its value's beginning, and key and headers where they are small."""
    ours = [(name, text) for name, text in letter.headers if name.startswith(HEADER) and name != TRUNCATED]
    said = dict(letter.headers).get(TRUNCATED, str(len(letter.value)).encode())
    small = len(letter.key) + _size(letter.headers) <= limit // 2
    key, headers = (letter.key, letter.headers) if small else (b"", ours)
    kept = [*(header for header in headers if header[0] != TRUNCATED), (TRUNCATED, said)]
    return Message(key, letter.value[: max(0, limit - len(key) - _size(kept) - HEADER_BYTES)], kept)


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(text) + HEADER_BYTES for name, text in headers)
