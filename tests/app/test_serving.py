"""Tokens and ranges, as rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.app.serving.ranges import Span, asked, tag_of, unchanged
from pipeline.app.serving.tokens import Links
from pipeline.config.models import Links as LinksConfig

KEYS = ["key-number-one-of-links", "key-number-two-of-links"]
TAG = tag_of("1")
TEXT = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def links(key: str, *previous: str) -> Links:
    """Links with a key, and previous ones."""
    return Links(LinksConfig.model_validate({"base_url": "https://h/", "key": key, "previous": previous}))


@given(source=some.from_regex(r"[A-Za-z0-9._-]{1,63}", fullmatch=True), key=TEXT)
def test_a_token_names_its_object(source: str, key: str) -> None:
    """Source and key come back from their token, by the key that signed it, also as a previous one, and by no other."""
    token = links(KEYS[0]).token(source, key)

    assert links(KEYS[0]).read(token) == links(KEYS[1], KEYS[0]).read(token) == (source, key)
    assert links(KEYS[1]).read(token) is None


@given(key=TEXT, other=TEXT, place=some.integers(0, 10_000), sign=some.sampled_from("AZaz09-_=.~/%\0é"))
def test_another_token_names_nothing(key: str, other: str, place: int, sign: str) -> None:
    """A token with any character changed, added or missing, or with the digest of another's, names nothing."""
    made = links(KEYS[0])
    token = made.token("s", key)
    at = place % len(token)
    forged = {token[:at] + sign + token[at + 1 :], token[:at] + sign + token[at:], token[:at] + token[at + 1 :]}
    if other != key:
        forged.add(token[:40] + made.token("s", other)[40:])

    assert all(made.read(each) in (None, ("s", key)) for each in forged)
    assert all(made.read(each) is None for each in forged - {token})


def test_the_longest_key_has_a_token() -> None:
    """What the ledger keeps can be linked to."""
    key = "ü" * 512

    assert links(KEYS[0]).read(links(KEYS[0]).token("s" * 63, key)) == ("s" * 63, key)


@given(size=some.integers(0, 30), first=some.none() | some.integers(0, 40), last=some.none() | some.integers(0, 40))
def test_spans_are_slices(size: int, first: int | None, last: int | None) -> None:
    """What is asked for is what Python's slices give; nothing of it is no span."""
    content = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    span = asked({"range": header}, TAG, size)

    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert span == Span(0, size, size)
        return
    expected = (
        content[max(0, size - (last or 0)) :] if first is None else content[first : None if last is None else last + 1]
    )
    assert (b"" if span is None else content[span.start : span.end]) == expected
    assert span is None or span.end > span.start


@pytest.mark.parametrize("header", ["", "bytes=", "bytes=-", "bytes=1-2,4-5", "lines=1-2", "bytes=a-b", "bytes=2-1"])
def test_other_ranges_are_all(header: str) -> None:
    """Several ranges, other units and nonsense are answered with the whole."""
    assert asked({"range": header}, TAG, 9) == Span(0, 9, 9)


def test_what_the_client_has() -> None:
    """If-None-Match is compared weakly, in a list, and with a star."""
    assert [unchanged({"if-none-match": each}, TAG) for each in (TAG, f'"a", W/{TAG}', "*", '"a"', "")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not unchanged({}, TAG)
