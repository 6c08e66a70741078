"""Passes: what they publish, what they take for gone, and where they go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ObjectFailed, UnavailableError
from pipeline.events import ObjectEvent
from pipeline.ledger import Pass
from pipeline.producers import deletions, listing
from pipeline.producers.seen import SeenKeys
from pipeline.stores import Entry, Page
from pipeline.stores.local import LocalStore
from tests.producers.conftest import House


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three keys, so that few files make many pages."""
    monkeypatch.setattr(listing, "PAGE_KEYS", 3)
    monkeypatch.setattr(listing, "KNOWN_ROWS", 4)


def test_a_first_pass_publishes_every_file_and_a_second_one_nothing(house: House) -> None:
    """What the ledger knows as it is makes no events."""
    names = [f"{number}.json" for number in range(8)]
    for name in names:
        house.put(name)

    first = house.list()
    assert house.bring_in() == [("created", name) for name in names]
    second = house.list()

    assert (first.listed, first.published, second.listed, second.published) == (8, 8, 8, 0)
    assert first.finished is not None
    assert house.published() == []
    assert set(house.states().values()) == {"done"}
    assert house.metric("passes_total", source="inbox", outcome="complete") == 2
    assert house.metric("listed_objects_total", source="inbox") == 16


def test_an_empty_source_is_a_complete_pass(house: House) -> None:
    """Nothing to list is no failure."""
    state = house.list()

    assert (state.listed, state.published, state.stopped) == (0, 0, None)
    assert state.finished is not None


def test_a_changed_file_is_published_until_the_ledger_wants_it(house: House) -> None:
    """A version is news when it is not the wanted one, however often it was seen."""
    house.put("a", b"first")
    house.list()
    house.bring_in()
    house.put("a", b"other")

    house.list()
    assert house.bring_in() == [("updated", "a")]
    house.list()
    assert house.published() == []


def test_a_version_that_was_ignored_is_published_once_the_policy_follows_changes(house: House) -> None:
    """Switching from ignore to replace imports what was passed over."""
    house.put("a", b"first")
    house.list()
    house.bring_in()
    house.put("a", b"other")
    house.list()
    house.record("ignore")

    house.list()
    assert house.published() == []
    house.list(on_change="replace")
    assert house.bring_in("replace") == [("updated", "a")]
    house.list(on_change="replace")
    assert house.published() == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_every_deletion_is_found_wherever_it_lies(house: House, data: st.DataObject) -> None:
    """At the start, at the end, between pages, whole folders, everything: each is gone after one pass."""
    names = [f"{folder}/{number}" for folder in "abc" for number in range(5)] + ["a-", "b0", "d"]
    for name in names:
        house.put(name)
    house.list()
    house.bring_in()
    missing = data.draw(st.sets(st.sampled_from(names)) | st.just(set(names)))
    for name in missing:
        (house.root / name).unlink()

    house.list()
    told = house.bring_in()

    assert sorted(told) == sorted(("deleted", name) for name in missing)
    assert {key for key, state in house.states().items() if state == "gone"} == missing


def test_a_deleted_file_that_comes_back_is_published(house: House) -> None:
    """Gone is not for ever, whatever the version."""
    path = house.put("a")
    house.list()
    house.bring_in()
    away = path.rename(house.root.parent / "away")
    house.list()
    house.bring_in()
    assert house.states() == {"a": "gone"}

    away.rename(path)
    house.list()

    assert house.bring_in() == [("updated", "a")]
    assert house.states() == {"a": "done"}


def test_deletions_wait_for_the_end_of_the_pass(house: House) -> None:
    """An unfinished pass publishes none; the one that goes on from it publishes all."""
    for number in range(9):
        house.put(str(number))
    house.list()
    house.bring_in()
    for number in (0, 8):
        (house.root / str(number)).unlink()

    runner = house.passes()
    runner.store = Stopping(house.store, house.stop, pages=2)
    state = runner.run(house.stop)
    assert state.finished is None
    assert house.published() == []

    house.stop.clear()
    state = house.list()
    assert (state.finished is not None, state.candidates) == (True, 2)
    assert house.bring_in() == [("deleted", "0"), ("deleted", "8")]


@pytest.mark.parametrize("pages", [[0], [1], [4], [5], [2, 0, 1], [1, 1, 1, 1]])
def test_a_pass_that_is_ended_anywhere_goes_on_without_a_gap(house: House, pages: list[int]) -> None:
    """However often it is stopped, each new file is published and each missing one found."""
    for number in range(14):
        house.put(f"{number:02}")
    house.list()
    house.bring_in()
    for number in range(0, 14, 2):
        (house.root / f"{number:02}").unlink()
        house.put(f"{number:02}-new")

    for count in pages:
        runner = house.passes()
        runner.store = Stopping(house.store, house.stop, pages=count)
        runner.run(house.stop)
        house.stop.clear()
    house.list()

    told = set(house.bring_in())
    new = [f"{number:02}-new" for number in range(0, 14, 2)]
    assert told == {("created", key) for key in new} | {("deleted", key[:2]) for key in new}


def test_a_run_that_waits_lists_anew_after_an_unfinished_pass(house: House) -> None:
    """What has landed before the place that the old pass had come to is published too."""
    for number in range(6):
        house.put(str(number))
    runner = house.passes()
    runner.store = Stopping(house.store, house.stop, pages=1)
    runner.run(house.stop)
    house.stop.clear()
    house.put("0-late")

    house.list(wait=True)

    assert ("created", "0-late") in house.record()


def test_a_file_that_the_configuration_no_longer_covers_is_out_of_scope_and_not_gone(house: House) -> None:
    """Its tasks are not archived, whether the file is there or not; covered again, it is done as it was."""
    for key in ("a.json", "b.csv", "c.csv"):
        house.put(key)
    house.list()
    house.bring_in()
    (house.root / "c.csv").unlink()

    state = house.list(match=("*.json",), on_delete="archive")
    assert (state.candidates, state.stopped, house.published()) == (0, None, [])
    assert house.states() == {"a.json": "done", "b.csv": "out_of_scope", "c.csv": "out_of_scope"}

    house.list()
    house.record()
    assert house.states() == {"a.json": "done", "b.csv": "done", "c.csv": "out_of_scope"}


def test_a_row_that_was_recorded_after_the_page_was_asked_for_is_not_judged(house: House) -> None:
    """A notification that overtakes the listing makes nothing gone or changed."""
    house.put("a")
    house.list()
    house.bring_in()
    house.put("b")
    hidden = HidingStore(house.store, {"a"}, lambda: house.ledger.record("test", [later], {}, {"inbox": "ignore"}))
    later = ObjectEvent("inbox", "a", version="newer than the listing")

    runner = house.passes()
    runner.store = hidden
    state = runner.run(house.stop)

    assert (state.candidates, hidden.heads) == (0, [])
    assert house.bring_in() == [("created", "b")]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_page_is_listed_while_the_one_before_is_compared_and_overrules_nothing_recorded_meanwhile(
    house: House, concurrency: int
) -> None:
    """What is recorded after the next page was asked for, and before its turn, is newer than that page."""
    for key in "abcdef":
        house.put(key)
    house.list()
    house.bring_in()
    house.put("a", b"[1]")
    later = ObjectEvent("inbox", "e", version="newer than the listing")
    runner = house.passes()
    runner.store = store = Counting(house.store)
    store.concurrency = concurrency
    runner.log = Interrupted(
        house.log, lambda: store.second.wait(5) and house.ledger.record("test", [later], {}, {"inbox": "ignore"})
    )

    runner.run(house.stop)

    assert store.second.is_set()
    assert [event.key for event in house.published()] == ["a"]


def test_only_the_store_itself_says_that_an_object_is_gone(house: House) -> None:
    """A listing that leaves a key out is asked again by HEAD; where that may not look, nothing is known."""
    house.put("a")
    house.put("b")
    house.list()
    house.bring_in()

    runner = house.passes()
    runner.store = HidingStore(house.store, {"a", "b"}, forbidden={"b"})
    state = runner.run(house.stop)

    assert (state.candidates, runner.store.heads) == (0, ["a", "b"])
    assert house.published() == []


def test_a_missing_root_makes_nothing_gone(house: House) -> None:
    """The pass fails and may be tried again; no deletion is published, before or after."""
    house.put("a")
    house.list()
    house.bring_in()
    house.root.rename(house.root.with_name("away"))

    with pytest.raises(UnavailableError):
        house.list()
    house.root.with_name("away").rename(house.root)
    house.list()

    assert house.published() == []
    assert house.states() == {"a": "done"}


def test_a_pass_that_would_archive_too_much_stops_and_asks(house: House) -> None:
    """More than the guard's share waits for a person's word; the next pass with it goes through."""
    for number in range(10):
        house.put(str(number))
    house.list()
    house.bring_in()
    for number in range(3):
        (house.root / str(number)).unlink()
    house.put("new")

    state = house.list(on_delete="archive")
    assert state.stopped is not None
    assert state.stopped.startswith("3 of 10 objects")
    assert "sources accept inbox --deletions" in state.stopped
    assert house.bring_in() == [("created", "new")]
    assert house.metric("passes_total", source="inbox", outcome="stopped") == 1

    assert house.list(on_delete="archive", accept=True).stopped is None
    assert house.bring_in() == [("deleted", "0"), ("deleted", "1"), ("deleted", "2")]


def test_the_guard_counts_objects_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small share of a large source is much all the same; and where tasks are kept, nothing is asked."""
    monkeypatch.setattr(deletions, "ARCHIVE_LIMIT", 1)
    for number in range(20):
        house.put(str(number))
    house.list()
    house.bring_in()
    for number in range(2):
        (house.root / str(number)).unlink()

    assert house.list(on_delete="archive").stopped is not None
    assert house.list(on_delete="keep").stopped is None
    assert len(house.published()) == 2


def test_a_file_being_written_is_left_for_later_or_waited_for(house: House) -> None:
    """A pass leaves it; a run that ends with its pass waits until it is settled."""
    house.store = LocalStore(house.root, settle=0.2)
    (house.root / "growing").write_bytes(b"half")

    assert house.list(settle=0.2).published == 0
    assert house.list(settle=0.2, wait=True).published == 1


def test_a_file_that_never_rests_is_counted_and_left(house: House) -> None:
    """Waiting is bounded by ten times the settling time."""
    house.store = LocalStore(house.root, settle=3600)
    (house.root / "log").write_bytes(b"line")
    runner = house.passes(settle=0.01)

    state = runner.run(house.stop, wait_for_unsettled=True)

    assert (state.published, runner.unsettled) == (0, 1)
    assert state.finished is not None


def test_a_key_that_no_ledger_takes_is_published_once(house: House) -> None:
    """The dispatcher puts it aside with its reason; the next passes do not repeat it."""
    folder = "d" * 250
    house.put("/".join([folder] * 4 + ["long" * 10]))
    runner = house.passes()

    assert [runner.run(house.stop).published for _ in range(3)] == [1, 0, 0]


def test_an_unordered_store_is_compared_by_keys_and_asked_for_each_missing_one(house: House) -> None:
    """Where pages say nothing of what lies between them, each known object is looked at after the listing."""
    for number in range(8):
        house.put(str(number))
    shuffled = Unordered(house.store)
    runner = house.passes()
    runner.store = shuffled
    runner.run(house.stop)
    assert len(house.bring_in()) == 8
    for key in ("0", "5"):
        (house.root / key).unlink()
    house.put("3", b"changed")
    house.put("9")

    runner.run(house.stop)

    assert sorted(house.bring_in()) == [("created", "9"), ("deleted", "0"), ("deleted", "5"), ("updated", "3")]


def test_an_unordered_store_is_not_asked_for_what_it_has_listed(house: House) -> None:
    """A pass over objects that are all there costs its pages and nothing more, known or new."""
    for number in range(20):
        house.put(str(number))
    runner = house.passes()
    runner.store = watched = HidingStore(Unordered(house.store), {"7"})
    runner.run(house.stop)
    house.bring_in()

    watched.hidden = set()
    runner.run(house.stop)
    house.bring_in()
    assert (watched.heads, set(house.states().values())) == ([], {"done"})

    watched.hidden = {"7", "11"}
    (house.root / "11").unlink()
    runner.run(house.stop)
    assert (watched.heads, house.bring_in()) == (["11", "7"], [("deleted", "11")])


def test_an_unordered_pass_that_goes_on_asks_for_what_it_listed_before(house: House) -> None:
    """What was listed before a restart is no longer in mind, and nothing of it is taken for gone."""
    for number in range(9):
        house.put(str(number))
    runner = house.passes()
    runner.store = Unordered(house.store)
    runner.run(house.stop)
    house.bring_in()
    runner.store = Stopping(Unordered(house.store), house.stop, pages=1)
    runner.run(house.stop)
    house.stop.clear()
    (house.root / "8").unlink()

    runner.store = watched = HidingStore(Unordered(house.store), set())
    state = runner.run(house.stop)

    assert (state.finished is not None, watched.heads) == (True, ["6", "7", "8"])
    assert house.bring_in() == [("deleted", "8")]


def test_a_deletion_that_the_filter_hides_is_found_by_a_later_pass(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that is much too small errs on other keys in each pass, so that every deletion is found in the end."""
    monkeypatch.setattr(listing, "SeenKeys", partial(SeenKeys, 4))
    for number in range(16):
        house.put(str(number))
    runner = house.passes()
    runner.store = Unordered(house.store)
    runner.run(house.stop)
    house.bring_in()
    gone = {str(number) for number in range(8)}
    for key in gone:
        (house.root / key).unlink()

    told: list[tuple[str, str]] = []
    for _ in range(200):
        runner.run(house.stop)
        told += house.bring_in()
        if len(told) == len(gone):
            break

    assert sorted(told) == sorted(("deleted", key) for key in gone)


def test_a_store_that_gives_only_empty_pages_is_unavailable(house: House) -> None:
    """A pass never turns in place."""
    runner = house.passes()
    runner.store = Empty(house.store)

    with pytest.raises(UnavailableError):
        runner.run(house.stop)


def test_a_pass_that_finds_what_no_notification_brought_counts_it(house: House) -> None:
    """Changes made while the source was watched, and long enough ago, were missed."""
    path = house.put("a")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 60))
    house.put("b")
    runner = house.passes()
    runner.watched_since = path.stat().st_mtime - 1

    runner.run(house.stop)

    assert house.metric("missed_by_notification_total", source="inbox") == 1


# --- stores that behave oddly ----------------------------------------------------------------------------------


@dataclass
class Wrapped:
    """A store in front of another."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Stopping(Wrapped):
    """Lets the pass be stopped after some pages."""

    def __init__(self, inner: Any, stop: threading.Event, pages: int) -> None:
        super().__init__(inner)
        self.stop = stop
        self.pages = pages

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        page = self.inner.list(after, limit)
        self.pages -= 1
        return page if self.pages >= 0 else StoppingPage(page, self.stop)  # type: ignore[return-value]


class StoppingPage(Wrapped):
    """A page at whose turn the pass is stopped."""

    def __init__(self, inner: Page, stop: threading.Event) -> None:
        super().__init__(inner)
        self.stop = stop

    @property
    def entries(self) -> Any:
        """As `Page.entries`."""
        self.stop.set()
        return self.inner.entries


class Counting(Wrapped):
    """Tells when its second page has been listed; a remote store."""

    concurrency = 2

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.second = threading.Event()
        self._pages = 0

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        page = self.inner.list(after, limit)
        self._pages += 1
        if self._pages > 1:
            self.second.set()
        return page


class Interrupted(Wrapped):
    """A log; somebody is called before anything is published in it."""

    def __init__(self, inner: Any, before: Any) -> None:
        super().__init__(inner)
        self.before = before

    def publish(self, events: Sequence[ObjectEvent]) -> Any:
        """As `EventLog.publish`."""
        self.before()
        return self.inner.publish(events)


class HidingStore(Wrapped):
    """Leaves keys out of its listing, and calls somebody while it lists."""

    def __init__(
        self, inner: Any, hidden: set[str], meanwhile: Any = None, forbidden: Sequence[str] | set[str] = ()
    ) -> None:
        super().__init__(inner)
        self.hidden = hidden
        self.meanwhile = meanwhile
        self.forbidden = forbidden
        self.heads: list[str] = []

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        page = self.inner.list(after, limit)
        if self.meanwhile:
            self.meanwhile()
        return replace(page, entries=[entry for entry in page.entries if entry.key not in self.hidden])

    def head(self, key: str) -> Entry | None:
        """As `Store.head`."""
        self.heads.append(key)
        if key in self.forbidden:
            raise ObjectFailed("permission", "no")
        return self.inner.head(key)


class Unordered(Wrapped):
    """Lists backwards."""

    ordered = False

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        entries = sorted(self.inner.list(None, 1000).entries, reverse=True)
        left = [entry for entry in entries if after is None or entry.key < after]
        return Page(left[:limit], len(left) <= limit)


class Empty(Wrapped):
    """Never gives anything."""

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        return Page([], complete=False)


def test_the_pass_is_shown_while_it_runs(house: House) -> None:
    """Progress can be read from the runner at any moment."""
    house.put("a")
    runner = house.passes()
    state: Pass = runner.run(house.stop)

    assert runner.state == state
