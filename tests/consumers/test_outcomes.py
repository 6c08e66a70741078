"""The pure decisions over one object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.consumers.outcomes import LONGEST_BACK_OFF_SECONDS, back_off, mode_of
from pipeline.ledger import OnChange, Work


@pytest.mark.parametrize(
    ("imported", "live", "redo", "on_change", "mode"),
    [
        (None, False, False, "ignore", "new"),
        ("v1", True, False, "ignore", "ignored"),
        ("v1", True, False, "replace", "replace"),
        ("v1", True, False, "append", "append"),
        ("v1", False, False, "ignore", "new"),
        ("v2", True, False, "replace", "unchanged"),
        ("v2", False, False, "replace", "unchanged"),
        ("v2", True, True, "ignore", "replace"),
        ("v2", True, True, "append", "replace"),
        ("v2", False, True, "ignore", "new"),
    ],
)
def test_mode(imported: str | None, live: bool, redo: bool, on_change: OnChange, mode: str) -> None:
    """What reading version v2 does follows from what is imported, whether it is live, and the policy."""
    assert mode_of(Work(1, "s", "k", None, imported, live, redo, 0, 0), "v2", on_change) == mode


@given(st.integers(0, 10_000), st.floats(0.001, 60), st.none() | st.floats(0, 10_000))
def test_back_off_is_bounded(attempts: int, first: float, retry_after: float | None) -> None:
    """The wait never exceeds its bound, unless storage itself asked for more, and is never less than that."""
    seconds = back_off(attempts, first, retry_after)
    assert (retry_after or 0) <= seconds <= max(LONGEST_BACK_OFF_SECONDS, retry_after or 0)
    assert seconds <= max(first * 2.0 ** min(attempts, 100), retry_after or 0)
