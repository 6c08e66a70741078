"""What a source leaves out, and by which rule."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Source, build
from pipeline.errors import ConfigError, UsageError
from pipeline.events import ObjectEvent
from pipeline.stores import Entry
from pipeline.stores.scope import RULES, Scope

DAY = 86400.0


def scope(**options: Any) -> Scope:
    """The scope of a source with these options."""
    return Scope.of(Source.model_validate({"name": "s", "project": "p", "url": "s3://b"} | options))


def entry(key: str = "a", size: int = 10, age: float = 0.0) -> Entry:
    """An object that was changed `age` seconds ago."""
    return Entry(key, "v", size, time.time() - age)


@pytest.mark.parametrize(
    ("options", "key", "rule"),
    [
        ({}, "a/b.json", None),
        ({}, "a/", "placeholder"),
        ({}, "a_$folder$", "placeholder"),
        ({"match": "*.json"}, "a.txt", "match"),
        ({"regex": r"\d{4}"}, "log-2024.json", None),
        ({"regex": r"^\d{4}$"}, "log-2024.json", "regex"),
        ({"exclude": "tmp/**"}, "tmp/a", "exclude"),
        ({"prefixes": ["a/", "b-"]}, "a/x/y", None),
        ({"prefixes": ["a/", "b-"]}, "b-c/d", None),
        ({"prefixes": ["a/", "b-"]}, "ab", "prefixes"),
        ({"recursive": False}, "a", None),
        ({"recursive": False}, "a/b", "recursive"),
        ({"recursive": False, "prefixes": ["a/", "b/c-"]}, "a/b", None),
        ({"recursive": False, "prefixes": ["a/", "b/c-"]}, "b/c-d", None),
        ({"recursive": False, "prefixes": ["a/", "b/c-"]}, "a/b/c", "recursive"),
        ({"recursive": False, "prefixes": ["a/", "b/c-"]}, "b/c-d/e", "recursive"),
        ({"prefixes": ["a/"], "match": "*.json"}, "b", "prefixes"),
    ],
)
def test_by_the_key(options: dict[str, Any], key: str, rule: str | None) -> None:
    """The first rule that leaves a key out is told; folders' placeholders are never taken."""
    assert scope(**options).left_out(key) == rule
    assert scope(**options).covers(key) is (rule is None)
    assert rule is None or rule in RULES


@pytest.mark.parametrize(
    ("options", "found", "rule"),
    [
        ({"min_size": "1kB"}, entry(size=999), "min_size"),
        ({"min_size": "1kB"}, entry(size=1000), None),
        ({"max_size": 10}, entry(size=11), "max_size"),
        ({"max_size": 10}, entry(size=10), None),
        ({"newer_than": "1d"}, entry(age=2 * DAY), "newer_than"),
        ({"newer_than": "1d"}, entry(age=DAY / 2), None),
        (
            {"newer_than": "2020-01-01"},
            Entry("a", "v", 1, datetime(2019, 12, 31, tzinfo=UTC).timestamp()),
            "newer_than",
        ),
        ({"newer_than": "2020-01-01"}, Entry("a", "v", 1, datetime(2020, 1, 1, tzinfo=UTC).timestamp()), None),
        ({"older_than": "10d"}, entry(age=DAY), "older_than"),
        ({"older_than": "10d"}, entry(age=20 * DAY), None),
        ({"match": "*.json", "max_size": 1}, entry("a.txt", size=2), "match"),
    ],
)
def test_by_size_and_age(options: dict[str, Any], found: Entry, rule: str | None) -> None:
    """Limits of size take what is as large as they say; ages are lengths of time or dates."""
    assert scope(**options).refuses(found) == rule
    event = ObjectEvent("s", found.key, size=found.size, modified=found.modified)
    assert scope(**options).of_event(event) == rule
    blind = ObjectEvent("s", found.key)
    assert scope(**options).of_event(blind) == (rule if rule == "match" else None)


def test_a_deletion_has_no_size() -> None:
    """Whatever the size that it tells of, the deletion of an object that is covered is for us."""
    assert scope(min_size=5, older_than="1d").of_event(ObjectEvent("s", "a", "deleted", size=0, modified=1e12)) is None


def test_everything_is_known_as_such() -> None:
    """Only what has neither rules of keys nor limits takes all there is."""
    assert scope().everything
    assert scope().bounds is None
    assert not scope(regex="x").everything
    assert scope(max_size=1).bounds is not None


def test_what_cannot_be_read_is_refused() -> None:
    """A regular expression or an age that means nothing is a mistake, not a rule."""
    with pytest.raises(UsageError, match="regular expression"):
        scope(regex="(")
    with pytest.raises(ValueError, match="no duration"):
        scope(newer_than="yesterday")


# --- routes -----------------------------------------------------------------------------------------------

ROUTES = [
    {"match": "cats/**", "project": "cats"},
    {"match": ["**/*.txt", "dogs/*"], "project": "dogs"},
    {"match": "cats/odd/*", "project": "dogs"},
]


def routed(tmp_path: Any, **options: Any) -> dict[str, Source]:
    """The sources that a source with routes becomes."""
    values = {"name": "s", "project": "rest", "url": "./inbox", "routes": ROUTES} | options
    projects: dict[str, Any] = {name: {} for name in ("cats", "dogs", "rest")}
    return {source.name: source for source in build({"projects": projects, "sources": [values]}, tmp_path).sources}


def test_each_key_goes_to_the_project_of_the_first_route_that_matches(tmp_path: Any) -> None:
    """What none matches goes into the source's own project; each object belongs to exactly one source."""
    sources = routed(tmp_path)
    assert {name: source.project for name, source in sources.items()} == {
        "s": "rest",
        "s.cats": "cats",
        "s.dogs": "dogs",
    }
    scopes = {name: Scope.of(source) for name, source in sources.items()}
    expected = {
        "cats/a": "s.cats", "cats/odd/a": "s.cats", "cats/a.txt": "s.cats", "b/a.txt": "s.dogs", "dogs/x": "s.dogs",
        "dogs/x/y": "s", "x": "s",
    }  # fmt: skip
    for key, name in expected.items():
        assert [each for each, scope in scopes.items() if scope.covers(key)] == [name]
    assert scopes["s"].left_out("cats/a") == "routes"


def test_a_route_to_the_sources_own_project_keeps_its_objects(tmp_path: Any) -> None:
    """Then they belong to the source itself, and there is no further one."""
    sources = routed(tmp_path, project="cats")
    assert set(sources) == {"s", "s.dogs"}
    assert Scope.of(sources["s"]).covers("cats/a")
    assert Scope.of(sources["s"]).covers("anything")


def test_routes_that_lead_nowhere_are_refused(tmp_path: Any) -> None:
    """A project that is not there, and a name that is taken, are told with their place."""
    with pytest.raises(ConfigError, match="there is no project 'birds'"):
        routed(tmp_path, routes=[{"match": "*", "project": "birds"}])
    values = [
        {"name": "s", "project": "rest", "url": "./a", "routes": ROUTES},
        {"name": "s.cats", "project": "cats", "url": "./b"},
    ]
    with pytest.raises(ConfigError, match=r"there is a source 's\.cats' already"):
        build({"projects": {name: {} for name in ("cats", "dogs", "rest")}, "sources": values}, tmp_path)
    values = [
        {"name": "s", "project": "rest", "url": "./a", "routes": ROUTES},
        {"name": "t", "project": "cats", "url": "./a/b"},
    ]
    with pytest.raises(ConfigError, match="covers objects that"):
        build({"projects": {name: {} for name in ("cats", "dogs", "rest")}, "sources": values}, tmp_path)


def test_sources_of_different_prefixes_do_not_overlap(tmp_path: Any) -> None:
    """Two sources may share a bucket and a project where their prefixes part them."""
    sources = [{"name": name, "project": "p", "url": "./a", "prefixes": [f"{name}/"]} for name in "xy"]
    assert len(build({"projects": {"p": {}}, "sources": sources}, tmp_path).sources) == 2


# --- listing ------------------------------------------------------------------------------------------------

keys = st.lists(st.text(st.sampled_from("ab/.\x01\ue000\U0010ffff"), min_size=1, max_size=6), unique=True, max_size=40)


@given(keys, st.lists(st.text(st.sampled_from("ab/\x01\ue000"), min_size=1, max_size=3), max_size=3), st.booleans())
def test_a_listing_that_skips_passes_over_nothing(names: list[str], prefixes: list[str], recursive: bool) -> None:
    """From wherever a listing goes on, all that is covered after that is still to come."""
    taken = scope(prefixes=prefixes, recursive=recursive)
    ordered = sorted(names, key=str.encode)
    for after in [None, *ordered]:
        start = taken.skip(after)
        rest = [key for key in ordered if after is None or key.encode() > after.encode()]
        left = [key for key in rest if start is not None and key.encode() <= start.encode()]
        assert not [key for key in left if taken.covers(key)]
        if after is not None and taken.beyond(after):
            assert not [key for key in rest if taken.covers(key)]
    for first, second in pairwise(taken.prefixes if recursive else ()):
        assert not second.startswith(first)
