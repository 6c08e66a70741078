"""Dead letters that are cut to what a topic takes."""

from __future__ import annotations

import pytest

from pipeline.bus.kafka.codec import Headers, Message
from pipeline.bus.kafka.letters import TRUNCATED, cut

OURS: Headers = [("labelfeed-reason", b"why"), ("labelfeed-offset", b"7")]


def size_of(letter: Message) -> int:
    """Bytes of all that is in a message."""
    return len(letter.key) + len(letter.value) + sum(len(name) + len(text) for name, text in letter.headers)


@pytest.mark.parametrize("limit", [9_000, 90_000, 900_000])
@pytest.mark.parametrize("key", [b"k", b"k" * 1_000_000])
@pytest.mark.parametrize("header", [("ce_type", b"t"), ("other", b"o" * 1_000_000)])
def test_a_letter_is_cut_to_its_limit(limit: int, key: bytes, header: tuple[str, bytes]) -> None:
    """Whatever makes it large, it is small after that, says how long its value was, and why and whence it came."""
    letter = Message(key, b"v" * 1_000_000, [header, *OURS])
    once = cut(letter, limit)
    headers = dict(once.headers)

    assert size_of(once) <= limit
    assert headers.items() >= dict(OURS).items()
    assert headers[TRUNCATED] == b"1000000"
    assert once.value
    assert cut(once, 9_000).headers.count((TRUNCATED, b"1000000")) == 1


def test_key_and_headers_that_are_small_stay() -> None:
    """Only the value's end is lost where that is enough."""
    letter = Message(b"k", b"v" * 1_000_000, [("ce_type", b"t"), *OURS])

    assert cut(letter, 9_000)[::2] == (b"k", [*letter.headers, (TRUNCATED, b"1000000")])
