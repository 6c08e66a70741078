"""File names as keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stores.local.names import left_out, to_bytes, to_text

NASTY = st.lists(st.sampled_from([b"%", b"25", b"FF", b"C3", b"ff", b"\xff", b"\xc3", b"\xa9", b"a", b"/", b"8", b"0"]))
RAW = NASTY.map(b"".join) | st.binary().map(lambda raw: raw.replace(b"\x00", b""))


@given(RAW)
def test_every_name_comes_back_from_its_key(raw: bytes) -> None:
    """The rule for bytes can be undone, whatever the bytes."""
    assert to_bytes(to_text(raw)) == raw


@given(RAW, RAW)
def test_two_names_never_share_a_key(one: bytes, other: bytes) -> None:
    """Different files have different keys."""
    assert (to_text(one) == to_text(other)) == (one == other)


@given(st.text() | NASTY.map(lambda parts: b"".join(parts).decode("latin-1")))
def test_a_key_names_a_file_only_as_the_rule_writes_it(key: str) -> None:
    """No file has a second key."""
    raw = to_bytes(key)

    assert raw is None or to_text(raw) == key


@given(st.text(st.characters(exclude_characters="%", exclude_categories=["Cs"])))
def test_ordinary_names_are_their_own_keys(name: str) -> None:
    """UTF-8 without a percent sign is left as it is."""
    assert to_text(name.encode()) == name


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"caf\xe9.txt", "caf%E9.txt"),
        (b"100%.txt", "100%.txt"),
        (b"a%20b", "a%20b"),
        (b"a%E9", "a%25E9"),
        (b"a%25E9", "a%2525E9"),
        (b"a%e9", "a%e9"),
        (b"%\xff", "%%FF"),
    ],
)
def test_the_rule_by_example(raw: bytes, key: str) -> None:
    """Only invalid bytes, and what could be mistaken for them, are written otherwise."""
    assert to_text(raw) == key


@pytest.mark.parametrize("name", [".hidden", ".", "..", "", "a.tmp", "b.part", "c.crdownload", "d.txt~", "E.TMP"])
def test_hidden_and_unfinished_names_are_left_out(name: str) -> None:
    """What programs hide or have not finished is none of ours."""
    assert left_out(name)
