"""The pure decisions over one object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.models import Limits
from pipeline.consumers.outcomes import LONGEST_BACK_OFF_SECONDS, back_off, mode_of, of_passing
from pipeline.errors import ObjectFailed, ObjectUnsettled, UnavailableError
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


def tried(attempts: int) -> Work:
    """An object that was tried so often already."""
    return Work(1, "s", "k", "v", None, False, False, attempts, 0)


def test_an_outage_has_attempts_of_its_own() -> None:
    """Storage that does not answer fails an object after `storage_attempts`; one that changes, after `attempts`."""
    limits = Limits(attempts=3, storage_attempts=5)
    away, moving = UnavailableError("no answer"), ObjectUnsettled("it changed")
    assert [of_passing(tried(n), away, limits).state for n in range(5)] == ["ready"] * 4 + ["failed"]
    assert [of_passing(tried(n), moving, limits).state for n in range(3)] == ["ready"] * 2 + ["failed"]


def test_an_outage_without_an_end_uses_up_no_attempts() -> None:
    """Where outages have no end they fail nothing, count no more attempts than others have, and back off no longer
    than they may."""
    limits = Limits(attempts=3, storage_attempts=0, storage_backoff=2.0)
    found = [of_passing(tried(n), UnavailableError("no answer"), limits) for n in range(200)]
    assert {outcome.state for outcome in found} == {"ready"}
    assert [n for n, outcome in enumerate(found) if outcome.counted] == [0, 1, 2]
    assert max(outcome.retry_after for outcome in found) <= 2.0


@pytest.mark.parametrize("text", ["a", "é", "日", "a😀", "\ud800"])
def test_the_excerpt_of_a_reason_is_at_most_a_kibibyte(text: str) -> None:
    """In any script a failed object's excerpt has at most 1,024 bytes, no half sign at its end, and what fits whole."""
    kept = ObjectFailed("syntax", "bad", excerpt=text * 2000).excerpt
    assert kept is not None
    assert ObjectFailed.EXCERPT_LIMIT - 3 <= len(kept.encode()) <= ObjectFailed.EXCERPT_LIMIT
    assert (text * 2000).encode("utf-8", "replace").decode().startswith(kept)
    assert ObjectFailed("syntax", "bad", excerpt=text).excerpt == text.encode("utf-8", "replace").decode()
