"""Sources that routes make of one: each has its own pass, and the pages are asked for once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Source, siblings
from pipeline.config.models import Route
from pipeline.config.routing import routed
from pipeline.errors import UnavailableError
from pipeline.events import fold
from pipeline.ledger import Pass, SourceIdentity
from pipeline.producers import listing, together
from pipeline.producers.listing import PassRunner
from pipeline.producers.together import Listed, Together
from pipeline.stores import Page, Store
from pipeline.stores.scope import Scope
from tests.producers.conftest import House, until

NAMES = ("inbox", "inbox.cats", "inbox.dogs")
ROUTES = (Route(match=("c*",), project="cats"), Route(match=("d*",), project="dogs"))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three keys; and all that begin together are waited for, however slow the machine is."""
    monkeypatch.setattr(listing, "PAGE_KEYS", 3)
    monkeypatch.setattr(together, "GATHER_SECONDS", 30.0)


class Bucket:
    """A store that counts what it is asked, and can be held up."""

    def __init__(self, store: Store, *, ordered: bool = True) -> None:
        self._store = store
        self.ordered = ordered
        self.starts: list[str | None] = []
        self.before: Callable[[str | None], None] = lambda _start: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, after: str | None, limit: int) -> Page:
        """As the store, with the order turned round where there is to be none."""
        self.starts.append(after)
        self.before(after)
        if self.ordered:
            return self._store.list(after, limit)
        keys = self._store.list(None, 1000).entries[::-1]
        at = next((n + 1 for n, entry in enumerate(keys) if entry.key == after), 0)
        return Page(keys[at : at + limit], at + limit >= len(keys))


class Family:
    """The sources that routes make of the house's, over one bucket."""

    def __init__(self, house: House, *, ordered: bool = True, shared: bool = True) -> None:
        self.house = house
        self.bucket = Bucket(house.store, ordered=ordered)
        self.sources = list(routed([house.source.model_copy(update={"routes": ROUTES})]))
        identities = [SourceIdentity(s.name, s.project, "bucket", s.url, "shape") for s in self.sources]
        self.ids = {row.name: row.id for row in house.ledger.register(identities, accept=frozenset(NAMES))}
        self.together = Together(self.bucket, len(NAMES)) if shared else None

    def runner(self, source: Source) -> PassRunner:
        """What lists one of them."""
        house = self.house
        return PassRunner(
            source, self.ids[source.name], self.bucket, Scope.of(source), house.ledger, house.log, house.metrics,
            together=self.together,
        )  # fmt: skip

    def list(self, names: Sequence[str] = NAMES) -> dict[str, Pass]:
        """A pass of each, at once; what they were asked begins anew."""
        self.bucket.starts.clear()
        with ThreadPoolExecutor() as pool:
            runs = {s.name: pool.submit(self.runner(s).run, self.house.stop) for s in self.sources if s.name in names}
        return {name: run.result() for name, run in runs.items()}

    def record(self) -> list[tuple[str, str, str]]:
        """Record what was published, and call it imported; gives source, kind and key of each event, sorted."""
        events = self.house.published()
        self.house.ledger.record("embedded", fold(events), self.house.log.end(), dict.fromkeys(NAMES, "replace"))
        return sorted((event.source, event.kind, event.key) for event in events)


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def family(house: House, request: pytest.FixtureRequest) -> Family:
    """Three sources over one bucket, which lists in order or not."""
    return Family(house, ordered=request.param)


def fill(house: House, names: Sequence[str]) -> None:
    """Files of these names."""
    for name in names:
        house.put(name)


MANY = [f"{kind}{number}" for kind in "abcde" for number in range(4)]


def owner(key: str) -> str:
    """The source that takes a key."""
    return {"c": "inbox.cats", "d": "inbox.dogs"}.get(key[0], "inbox")


def test_one_listing_serves_all_routes(house: House, family: Family) -> None:
    """Each page is asked for once, and every key is published by the source that takes it."""
    fill(house, MANY)
    passes = family.list()

    assert len(family.bucket.starts) == len(set(family.bucket.starts)) == 7
    assert family.record() == sorted((owner(key), "created", key) for key in MANY)
    assert {name: state.listed for name, state in passes.items()} == {"inbox": 12, "inbox.cats": 4, "inbox.dogs": 4}
    assert all(state.finished for state in passes.values())


def test_the_next_pass_asks_anew(house: House, family: Family) -> None:
    """A page that was asked for before a pass began is no news for it."""
    fill(house, MANY)
    family.list()
    family.record()
    for key in ("a0", "c0", "c1", "e3"):
        (house.root / key).unlink()
    fill(house, ["a9", "d9"])
    family.list()

    expected = [(owner(key), "deleted", key) for key in ("a0", "c0", "c1", "e3")]
    expected += [("inbox", "created", "a9"), ("inbox.dogs", "created", "d9")]
    assert family.record() == sorted(expected)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_what_is_published_is_the_same_as_of_listings_apart(house: House, data: st.DataObject) -> None:
    """Whatever comes, goes and changes, and wherever an earlier pass was broken off, listings told apart and together
    conclude the same."""
    keys = st.sampled_from(MANY)
    fill(house, sorted(data.draw(st.sets(keys))))
    apart = Family(house, ordered=data.draw(st.booleans()), shared=False)
    apart.list()
    apart.record()
    for key in data.draw(st.sets(keys)):
        (house.root / key).unlink(missing_ok=True)
    for key in data.draw(st.sets(keys)):
        house.put(key, data.draw(st.binary(min_size=3, max_size=3)))
    for name in data.draw(st.sets(st.sampled_from(NAMES))):
        # A pass of before, that has come to some key and was broken off there.
        place = data.draw(keys)
        state = house.ledger.begin_pass(apart.ids[name])
        house.ledger.save_pass(_at(state, place), (), ())
    shared = Family(house, ordered=apart.bucket.ordered)
    shared.list()
    house.published()
    shared.list()
    first = sorted((event.source, event.kind, event.key) for event in house.published())
    apart.list()
    again = sorted((event.source, event.kind, event.key) for event in house.published())

    assert first == again
    assert all(owner(key) == source for source, _, key in first)
    apart.list()
    apart.record()


def _at(state: Pass, place: str) -> Pass:
    return replace(state, after=place, listed=1)


def test_passes_that_were_broken_off_go_on_where_each_was(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They meet where the foremost one is: from there pages are asked for once."""
    monkeypatch.setattr(together, "PAGES_KEPT", 50)  # however late one of them comes
    family = Family(house)
    fill(house, MANY)
    for name, place in (("inbox", "a2"), ("inbox.cats", "b1"), ("inbox.dogs", "d0")):
        house.ledger.save_pass(_at(house.ledger.begin_pass(family.ids[name]), place), (), ())
    passes = family.list()

    assert all(state.finished for state in passes.values())
    # Pages of three: a2 → b1 → c0 → c3 → d2 → e1, where the second one is met; d0 → d3 → e2 is a way of its own.
    assert len(family.bucket.starts) <= 9
    events = {(source, key) for source, _, key in family.record()}
    beyond = {"inbox": "a2", "inbox.cats": "b1", "inbox.dogs": "d0"}
    assert events == {(owner(key), key) for key in MANY if key > beyond[owner(key)]}


def test_a_pass_alone_waits_for_nobody_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the others do not begin, one lists by itself; and they do later."""
    monkeypatch.setattr(together, "GATHER_SECONDS", 0.05)
    family = Family(house)
    fill(house, MANY)
    assert family.list(["inbox.cats"])["inbox.cats"].listed == 4
    assert family.list(["inbox", "inbox.dogs"])["inbox"].listed == 12
    assert family.record() == sorted((owner(key), "created", key) for key in MANY)


def test_a_failing_request_fails_all_that_wait_for_it(house: House, family: Family) -> None:
    """It is not made once for each of them, and the next pass goes on."""
    fill(house, MANY)

    def fail(start: str | None) -> None:
        if start is not None:
            raise UnavailableError("away")

    family.bucket.before = fail
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(family.runner(source).run, house.stop) for source in family.sources]
    assert [type(run.exception()) for run in runs] == [UnavailableError] * 3
    assert len(family.bucket.starts) <= 4

    family.bucket.before = lambda _: None
    family.list()
    published = {(source, key) for source, _, key in family.record()}
    assert published == {(owner(key), key) for key in MANY}


def test_one_that_stands_still_does_not_hold_up_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a while, with no more pages kept than a few, and lists by itself then."""
    monkeypatch.setattr(together, "LAG_SECONDS", 0.2)
    monkeypatch.setattr(together, "PAGES_AHEAD", 2)
    monkeypatch.setattr(together, "PAGES_KEPT", 2)
    family = Family(house)
    fill(house, MANY)
    go_on = threading.Event()
    publish = house.log.publish

    def held(events: Any) -> Any:
        if events and events[0].source == "inbox.cats":
            assert go_on.wait(60)
        return publish(events)

    monkeypatch.setattr(house.log, "publish", held)
    with ThreadPoolExecutor() as pool:
        runs = {s.name: pool.submit(family.runner(s).run, house.stop) for s in family.sources}
        for name in ("inbox", "inbox.dogs"):
            assert runs[name].result(60).finished
        assert not runs["inbox.cats"].done()
        go_on.set()
        assert runs["inbox.cats"].result(60).listed == 4
    assert family.record() == sorted((owner(key), "created", key) for key in MANY)


def test_a_stop_ends_who_waits_for_another_s_request(house: House) -> None:
    """A store that hangs holds up only the pass that asks it."""
    family = Family(house)
    fill(house, MANY)
    hang, stop = threading.Event(), threading.Event()
    family.bucket.before = lambda _start: until(hang.is_set, 60)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(family.runner(source).run, stop) for source in family.sources]
        until(lambda: family.bucket.starts)
        stop.set()
        until(lambda: sum(run.done() for run in runs) == 2)
        hang.set()
    assert all(run.result().finished is None for run in runs)


def test_a_page_of_an_unordered_store_follows_the_one_before_it(house: House) -> None:
    """What follows a key in one listing need not follow it in another one."""
    pages = Together(Bucket(house.store, ordered=False), 1)
    asked: list[str] = []

    def ask(name: str) -> Callable[[Store], Listed]:
        def request(_: Store) -> Listed:
            asked.append(name)
            return Listed(0.0, Page([], complete=False))

        return request

    with pages.joined(house.stop) as one, pages.joined(house.stop) as other:
        one.page(None, ask("one"))
        one.page("k", ask("one after k"))
        other.page("k", ask("other after k"))
        other.page("l", ask("other after l"))
        one.page("l", ask("one after l"))
    assert asked == ["one", "one after k", "other after k", "other after l", "one after l"]


@pytest.fixture
def sources() -> list[Source]:
    """Two sources with routes, and one without."""
    common: dict[str, Any] = {"project": "p", "routes": ROUTES}
    plain = Source(name="plain", project="p", url="./c")
    made = [Source(name="a", url="./a", **common), plain, Source(name="b", url="./b", poll=5, **common)]
    return list(routed(made))


def test_only_the_routes_of_one_source_are_listed_together(sources: list[Source]) -> None:
    """Other sources have their own times, rules and credentials."""
    assert siblings(sources) == [["a", "a.cats", "a.dogs"], ["b", "b.cats", "b.dogs"]]
    assert siblings(sources[3:]) == [["b", "b.cats", "b.dogs"]]
