"""The filter of keys that a pass has listed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.producers.seen import SeenKeys

ANY_KEY = st.text(st.characters())


@given(keys=st.sets(ANY_KEY), size=st.sampled_from([1, 64, 4096]))
def test_a_key_that_was_added_is_in_it(keys: set[str], size: int) -> None:
    """However small the filter and strange the key, none that was listed is ever asked for."""
    seen = SeenKeys(size)
    seen.add(keys)

    assert all(key in seen for key in keys)


def test_other_keys_are_hardly_ever_in_it() -> None:
    """At 33 bits a key, about one in 6,000 is taken for listed."""
    seen = SeenKeys(2**14)
    seen.add(f"here/{number}" for number in range(4000))

    assert sum(f"gone/{number}" in seen for number in range(20_000)) < 40


def test_two_filters_err_on_different_keys() -> None:
    """What one pass overlooks the next one finds, with the same chance as any other key."""
    first, second = SeenKeys(64), SeenKeys(64)
    for seen in (first, second):
        seen.add(f"here/{number}" for number in range(200))
    hidden = [key for number in range(4000) if (key := f"gone/{number}") in first]

    assert len(hidden) > 500
    assert sum(key in second for key in hidden) < 0.65 * len(hidden)
