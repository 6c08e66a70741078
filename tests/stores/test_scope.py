"""Which keys globs cover."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.stores.scope import Scope


@pytest.mark.parametrize(
    ("glob", "covered", "others"),
    [
        ("**/*", ["a", "a/b", "a/b/c.txt", "a\nb"], []),
        ("*.json", ["a.json", ".json"], ["a/b.json", "a.jsonl", "ajson"]),
        ("**/*.json", ["a.json", "a/b.json", "a/b/c.json"], ["a.jsonl", "json"]),
        ("logs/**", ["logs/a", "logs/a/b"], ["logs", "log/a", "a/logs/b"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz"]),
        ("?.txt", ["a.txt", "é.txt"], ["ab.txt", "/.txt", ".txt"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[!a]x", ["bx"], ["ax", "/x"]),
        ("[]]x", ["]x"], ["x"]),
        ("*.{json,csv}", ["a.json", "a.csv"], ["a.txt", "a.json,csv"]),
        ("{a,b/{c,d}}/*", ["a/x", "b/c/x", "b/d/x"], ["b/x", "c/x"]),
        ("a.b+(c)|d", ["a.b+(c)|d"], ["aXb+(c)|d", "d"]),
        ("a,b}", ["a,b}"], ["a"]),
    ],
)
def test_a_glob_covers(glob: str, covered: list[str], others: list[str]) -> None:
    """Stars stay in their segment, double stars cross, and every other character is itself."""
    scope = Scope([glob])

    assert [key for key in covered if not scope.covers(key)] == []
    assert [key for key in others if scope.covers(key)] == []


def test_several_globs_cover_what_any_covers_and_exclusion_wins() -> None:
    """A key is taken if one glob matches and none excludes it."""
    scope = Scope(["*.json", "b/*"], ["b/secret*"])

    assert [key for key in ("a.json", "b/x", "b/secret1", "c/x") if scope.covers(key)] == ["a.json", "b/x"]


def test_everything_is_known_as_such() -> None:
    """The usual scope leaves nothing out, and says so, so that nobody need ask."""
    assert Scope().everything
    assert not Scope(exclude=["x"]).everything
    assert not Scope(["*"]).everything


@pytest.mark.parametrize("glob", ["{a,b", "[abc", "[z-a]"])
def test_a_glob_that_cannot_be_read_is_refused(glob: str) -> None:
    """A mistake in a glob is told, not taken for a name."""
    with pytest.raises(UsageError, match="glob"):
        Scope([glob])
