"""Passes over sources that take only some of what is there: by rule, by prefix, from the last key on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.producers import listing
from pipeline.stores import Entry, Page, Store
from tests.producers.conftest import House


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three keys, so that few files make many pages."""
    monkeypatch.setattr(listing, "PAGE_KEYS", 3)


class Asked:
    """A store that remembers from where it was listed, and can be listed from anywhere."""

    jumps = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self.starts: list[str | None] = []
        self.pages: list[Page] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, after: str | None, limit: int) -> Page:
        """As the store itself."""
        self.starts.append(after)
        self.pages.append(self._store.list(after, limit))
        return self.pages[-1]

    def seen(self) -> Iterator[Entry]:
        """All entries that it gave."""
        return (entry for page in self.pages for entry in page.entries)


def test_what_is_left_out_is_counted_by_rule(house: House) -> None:
    """In the pass, which `status` shows, and in the metric; the next pass begins to count anew."""
    for name in ("a.json", "b.json", "c.log", "d.log", "e.json"):
        house.put(name, b"[]" if name != "e.json" else b"[" + b" " * 100 + b"]")

    for times in (1, 2):
        state = house.list(exclude=("*.log",), max_size=50)
        assert (state.listed, state.left_out) == (2, {"exclude": 2, "max_size": 1})
        assert house.metric("left_out_objects_total", source="inbox", rule="exclude") == 2 * times
        assert house.metric("left_out_objects_total", source="inbox", rule="max_size") == times
    assert max(house.record()) == ("created", "b.json")
    (row,) = house.ledger.reports().sources()
    assert row["last_pass"]["left_out"] == {"exclude": 2, "max_size": 1}


def test_an_imported_object_that_grows_beyond_the_limit_is_set_aside(house: House) -> None:
    """It is out of scope, its tasks stay; within the limit again it is taken again."""
    house.put("a")
    house.list(max_size=50)
    house.bring_in()
    house.put("a", b" " * 100)
    house.list(max_size=50)
    assert (house.published(), house.states()) == ([], {"a": "out_of_scope"})

    house.put("a", b"[1]")
    house.list(max_size=50)
    assert house.bring_in() == [("updated", "a")]
    assert house.states() == {"a": "done"}


def test_ages_decide_what_is_taken_and_not_what_stays(house: House) -> None:
    """An old file is not taken; one that was taken and has grown old stays as it is."""
    for name, age in (("new", 0), ("old", 7200)):
        path = house.put(name)
        os.utime(path, (time.time() - age, time.time() - age))
    house.list(newer_than=3600.0)
    assert house.bring_in() == [("created", "new")]
    path = house.root / "new"
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    state = house.list(newer_than=3600.0)
    assert (house.published(), house.states(), state.candidates) == ([], {"new": "done"}, 0)
    assert state.left_out == {"newer_than": 2}


def test_young_files_wait_and_are_not_missed_by_notifications(house: House) -> None:
    """With `older_than` what was just written waits for a later pass, and counts as nobody's failure."""
    runner = house.passes(older_than=3600.0)
    runner.watched_since = 0.0
    house.put("young")
    os.utime(house.put("aged"), (time.time() - 7200, time.time() - 7200))
    state = runner.run(house.stop)
    assert [event.key for event in house.published()] == ["aged"]
    assert state.left_out == {"older_than": 1}
    assert house.metric("missed_by_notification_total", source="inbox") == 0


def test_only_prefixes_are_listed(house: House) -> None:
    """What no prefix covers is passed over without being listed, and the listing ends behind the last one."""
    for folder in "abcde":
        for number in range(9):
            house.put(f"{folder}/{number}")
    house.store = store = Asked(house.store)
    state = house.list(prefixes=("b/", "d/"))

    assert state.listed == 18
    assert {key[0] for _, key in house.record()} == {"b", "d"}
    assert sum(entry.key[0] not in "bd" for entry in store.seen()) <= 6
    assert state.finished is not None


def test_prefixes_that_were_narrowed_set_aside_what_is_between(house: House) -> None:
    """Known objects in the gaps are out of scope, not gone; those within are found gone as ever."""
    for name in ("a/1", "b/1", "b/2", "c/1", "d/1"):
        house.put(name)
    house.list()
    house.bring_in()
    (house.root / "b/1").unlink()
    house.store = Asked(house.store)
    house.list(prefixes=("b/", "d/"))
    assert house.bring_in() == [("deleted", "b/1")]
    assert house.states() == {
        "a/1": "out_of_scope", "b/1": "gone", "b/2": "done", "c/1": "out_of_scope", "d/1": "done",
    }  # fmt: skip


def test_folders_are_passed_over_where_they_are_not_wanted(house: House) -> None:
    """With `recursive: false` a large folder costs one page, whatever is in it."""
    for number in range(60):
        house.put(f"many/{number:02}")
    for name in ("a", "z"):
        house.put(name)
    house.store = store = Asked(house.store)
    state = house.list(recursive=False)
    assert sorted(house.record()) == [("created", "a"), ("created", "z")]
    assert len(store.starts) <= 4
    assert state.left_out["recursive"] <= 6


# --- from the last key on -----------------------------------------------------------------------------------


def latest(house: House, **options: Any) -> Any:
    """A pass with `start_after: latest`, everything recorded and imported."""
    state = house.list(start_after="latest", **options)
    house.bring_in()
    return state


def test_only_what_comes_after_the_last_key_is_listed(house: House) -> None:
    """Until a whole pass is due, a pass looks at new names only, and concludes nothing of the others."""
    for number in range(20):
        house.put(f"2024-{number:02}")
    first = latest(house)
    house.put("2025-01")
    house.put("2023-99")
    (house.root / "2024-03").unlink()
    house.store = store = Asked(house.store)
    second = latest(house)

    assert (first.whole, first.listed, second.whole, second.listed) == (True, 20, False, 1)
    assert store.starts == ["2024-19"]
    assert (house.states()["2025-01"], house.states()["2024-03"]) == ("done", "done")
    assert "2023-99" not in house.states()
    (row,) = house.ledger.reports().sources()
    assert (row["last_pass"]["whole"], row["last_pass"]["whole_at"]) == (False, pytest.approx(first.started, abs=1e-3))

    third = latest(house)
    assert (third.listed, third.after) == (0, "2025-01")
    whole = latest(house, reconcile=0.000001)
    assert (whole.whole, whole.candidates) == (True, 1)
    assert (house.states()["2023-99"], house.states()["2024-03"]) == ("done", "gone")


def test_a_pass_from_the_last_key_that_is_interrupted_goes_on(house: House) -> None:
    """It goes on from where it was, and is still no whole one."""
    house.put("a")
    latest(house)
    for number in range(9):
        house.put(f"b{number}")
    house.store = store = Asked(house.store)
    runner = house.passes(start_after="latest")
    real = store.list

    def once(after: str | None, limit: int) -> Page:
        page = real(after, limit)
        if len(store.starts) == 2:
            house.stop.set()
        return page

    store.list = once  # type: ignore[method-assign]  # the process ends after two pages
    assert runner.run(house.stop).finished is None
    house.stop.clear()
    state = latest(house)
    assert (state.whole, state.listed, state.finished is not None) == (False, 9, True)
    assert len(house.states()) == 10


def test_a_run_that_waits_makes_one_pass_from_the_last_key(house: House) -> None:
    """`run --once` takes a new pass from the last key for what it is, not for an unfinished one."""
    house.put("a")
    latest(house)
    house.put("b")
    state = house.list(start_after="latest", wait=True)
    assert (state.whole, state.listed) == (False, 1)


# --- missed by notification -------------------------------------------------------------------------------------


def test_what_a_notification_told_of_was_not_missed(house: House) -> None:
    """A change that was noticed and is still on its way to the ledger does not count; one that was not noticed does."""
    runner = house.passes()
    runner.watched_since = 0.0
    for name in ("noticed", "missed"):
        os.utime(house.put(name), (time.time() - 60, time.time() - 60))
    runner.noticed.add(["noticed"])
    runner.run(house.stop)
    assert len(house.published()) == 2
    assert house.metric("missed_by_notification_total", source="inbox") == 1
