"""What every store must do: `class TestMine(StoreContract)` with a fixture `made` takes the suite.

`made` gives the store, `put(key, content)` and `delete(key)`; a put object is settled by the time `put` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from pipeline.errors import ObjectGone
from pipeline.stores import SMALL_BYTES, Entry, Store

ODD_KEYS = ["a b.txt", "a%41.txt", "a+b&c=d.txt", "a/b/c.txt", "a-b", "ab", "a0/x", "é/ü.txt", "日本/語.json", "🦡.csv"]


class Made(NamedTuple):
    """A store under test and the means to change what it holds."""

    store: Store
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]


def listed(store: Store, limit: int = 1000) -> list[Entry]:
    """All that a store lists, in pages of `limit`."""
    entries: list[Entry] = []
    after = None
    while True:
        page = store.list(after, limit)
        assert len(page.entries) <= limit
        entries += page.entries
        if page.complete:
            return entries
        assert page.entries, "an incomplete page says where to go on"
        after = page.entries[-1].key


class StoreContract:
    """The suite."""

    def test_an_empty_store_lists_one_complete_empty_page(self, made: Made) -> None:
        """Nothing there is an answer, not an error."""
        page = made.store.list(None, 10)

        assert (page.entries, page.complete) == ([], True)

    def test_keys_come_back_as_they_went_in(self, made: Made) -> None:
        """Whatever characters a key has, listing, head and open agree on it."""
        for key in ODD_KEYS:
            made.put(key, key.encode())

        assert {entry.key for entry in listed(made.store)} == set(ODD_KEYS)
        for key in ODD_KEYS:
            head = made.store.head(key)
            with made.store.open(key) as reading:
                assert head is not None
                assert (head.key, reading.entry.key, reading.content) == (key, key, key.encode())

    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    def test_an_ordered_store_lists_in_byte_order_whatever_the_page(self, made: Made, limit: int) -> None:
        """Pages of any size give each key once, in the byte order of its UTF-8."""
        for key in ODD_KEYS:
            made.put(key, b"x")

        keys = [entry.key for entry in listed(made.store, limit)]

        if made.store.ordered:
            assert keys == sorted(ODD_KEYS, key=str.encode)
        else:
            assert sorted(keys) == sorted(ODD_KEYS)

    def test_an_ordered_store_goes_on_after_any_key(self, made: Made) -> None:
        """A listing may begin after a key that was never there, or no longer is."""
        if not made.store.ordered:
            return
        for key in ODD_KEYS:
            made.put(key, b"x")
        keys = sorted(ODD_KEYS, key=str.encode)

        for after in [*keys, "", "a", "a/", "a/b/", "a/z", "b/c/d", "\U0010ffff"]:
            expected = [key for key in keys if key.encode() > after.encode()]
            assert [entry.key for entry in made.store.list(after, 1000).entries] == expected

    def test_listing_and_head_and_reading_agree_on_the_version(self, made: Made) -> None:
        """One content has one version, however it is looked at."""
        made.put("one", b"content")

        (entry,) = listed(made.store)
        with made.store.open("one") as reading:
            assert made.store.head("one") == entry
            assert reading.entry.version == entry.version
        assert entry.size == len(b"content")
        assert entry.settled

    def test_other_content_is_another_version(self, made: Made) -> None:
        """Content that was replaced never keeps its version, even at the same size."""
        made.put("one", b"first ")
        before = made.store.head("one")
        made.put("one", b"second")
        after = made.store.head("one")

        assert before is not None
        assert after is not None
        assert before.version != after.version

    def test_what_is_not_there_is_gone(self, made: Made) -> None:
        """A missing object is None to head and ObjectGone to open, also after a deletion."""
        made.put("one", b"x")
        made.delete("one")

        for key in ("one", "never", "never/in/here"):
            assert made.store.head(key) is None
            with pytest.raises(ObjectGone), made.store.open(key):
                pass
        assert listed(made.store) == []

    def test_an_empty_object_is_an_object(self, made: Made) -> None:
        """No bytes are content too."""
        made.put("empty", b"")

        with made.store.open("empty") as reading:
            assert reading.content == b""
            assert reading.stream().read() == b""

    def test_a_large_object_is_streamed_as_often_as_asked(self, made: Made) -> None:
        """Beyond SMALL_BYTES there is no content at once, and each stream begins anew."""
        body = bytes(range(256)) * (SMALL_BYTES // 256) + b"end"
        made.put("large", body)

        with made.store.open("large") as reading:
            assert reading.content is None
            first = reading.stream()
            assert first.read(1000) == body[:1000]
            assert reading.stream().read() == body
            assert first.read() == body[1000:]

    def test_an_object_of_just_the_small_size_is_read_at_once(self, made: Made) -> None:
        """The limit itself is small."""
        made.put("small", b"x" * SMALL_BYTES)

        with made.store.open("small") as reading:
            assert reading.content == b"x" * SMALL_BYTES
            assert reading.stream().read() == reading.content

    def test_ping_speaks(self, made: Made) -> None:
        """A store that can be used says what it found, and who it is."""
        assert made.store.ping()
        assert made.store.identity()
        assert made.store.uri("a b") != made.store.uri("a c")

    def test_a_listing_begins_after_any_text(self, made: Made) -> None:
        """A store that `jumps` passes over nothing, wherever it is told to begin; others begin at the start."""
        keys = ["a-b", "a/1", "a/2/x", "ab", "b/1", "b/2", "c"]
        for key in keys:
            made.put(key, b"x")
        jumps = getattr(made.store, "jumps", False)
        texts = [f"{text}\U0010ffff" for text in ("a.", "a/", "a/2/", "b.", "b/", "b/1", "c")] + ["a/", "a0", "bb"]

        for after in texts if jumps else [None]:
            found = [entry.key for entry in made.store.list(after, 1000).entries]
            assert sorted(found) == [key for key in keys if after is None or key > after]
