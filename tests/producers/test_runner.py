"""One source at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import waiting
from pipeline.bus import Offsets
from pipeline.errors import LabelfeedError, UnavailableError, UsageError
from pipeline.events import ObjectEvent
from pipeline.producers import Notices, Producer, runner
from pipeline.producers.local import LocalProducer
from pipeline.producers.runner import SourceRunner
from pipeline.stores import Page, Store
from pipeline.stores.local import LocalStore
from pipeline.stores.scope import Scope
from tests.producers.conftest import House, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits."""
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(runner, "REQUEST_SECONDS", 0.05)


@contextmanager
def running(house: House, producer: Producer | None = None, **options: Any) -> Iterator[SourceRunner]:
    """A source at work."""
    made = SourceRunner(house.passes(**options), producer)
    thread = threading.Thread(target=made.run, args=(house.stop,))
    thread.start()
    try:
        yield made
    finally:
        house.stop.set()
        thread.join(20)
        assert not thread.is_alive()


def keys(house: House) -> list[str]:
    """Keys recorded from the log."""
    return [key for _, key in house.record()]


def test_passes_follow_each_other(house: House) -> None:
    """A file that lands between two passes is published by the next."""
    house.put("a")
    with running(house):
        until(lambda: keys(house) == ["a"])
        house.put("b")
        until(lambda: "b" in keys(house))


def test_the_next_pass_waits_until_the_ledger_has_the_last_ones_events(house: House) -> None:
    """Else each pass would publish again what the dispatcher has not come to yet."""
    house.put("a")
    with running(house) as source:
        until(lambda: source.status().last_pass is not None)
        threading.Event().wait(0.3)
        assert house.metric("passes_total", source="inbox", outcome="complete") == 1

        house.record()
        until(lambda: house.metric("passes_total", source="inbox", outcome="complete") > 1)
    assert house.metric("sent_events_total", source="inbox", discovered_by="listing") == 1


def test_a_pass_waits_no_longer_than_its_timeout(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that is away for good does not stop the listing for good."""
    monkeypatch.setattr(runner, "PASS_TIMEOUT_SECONDS", 0.2)
    house.put("a")
    with running(house):
        until(lambda: house.metric("passes_total", source="inbox", outcome="complete") > 1)


def test_a_root_that_vanishes_is_reported_and_nothing_is_gone(house: House) -> None:
    """The source says why it is not ready, and goes on when the root is back."""
    house.put("a")
    with running(house) as source:
        until(lambda: keys(house) == ["a"])
        away = house.root.rename(house.root.with_name("away"))
        until(lambda: not source.status().ready)
        assert "inbox" in source.status().reason

        away.rename(house.root)
        until(lambda: source.status().ready)
        house.put("b")
        until(lambda: "b" in keys(house))
    assert "gone" not in house.states().values()
    assert house.metric("passes_total", source="inbox", outcome="failed") > 0


def test_a_pass_that_asks_goes_on_when_it_is_accepted(house: House) -> None:
    """The word of a person is looked for in the ledger by each pass that would stop."""
    for number in range(4):
        house.put(str(number))
    house.list()
    house.bring_in()
    for number in range(3):
        (house.root / str(number)).unlink()

    with running(house, on_delete="archive") as source:
        until(lambda: (last := source.status().last_pass) is not None and last.stopped)
        assert house.published() == []
        house.ledger.accept_deletions(1)
        until(lambda: len(house.bring_in()) >= 3)


def test_a_change_is_published_without_waiting_for_the_next_pass(house: House) -> None:
    """The producer's events reach the log as they happen."""
    producer = LocalProducer(house.source, LocalStore(house.root, 0.1), Scope())
    with running(house, producer, poll=3600.0) as source:
        until(lambda: source.status().watching and source.status().last_pass is not None)
        house.put("a")
        until(lambda: "a" in keys(house))
    assert house.metric("sent_events_total", source="inbox", discovered_by="notification") == 1


class Scripted:
    """Gives what a test has written down."""

    def __init__(self, *script: Notices | Exception) -> None:
        self.script = list(script)

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`."""
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step
        stop.wait()


class FailingLog:
    """A log that does not answer at first, or has another `error`."""

    def __init__(self, inner: Any, failures: int, error: LabelfeedError | None = None) -> None:
        self.inner = inner
        self.failures = failures
        self.error = error or UnavailableError("no broker")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """As `EventLog.publish`."""
        if self.failures:
            self.failures -= 1
            raise self.error
        return self.inner.publish(events)  # type: ignore[no-any-return]


def test_notices_are_settled_after_the_log_has_them(house: House) -> None:
    """A log that does not answer is asked again, and nothing is acknowledged before."""
    log = FailingLog(house.log, 3)
    settled: list[int] = []
    event = ObjectEvent("inbox", "a", time=time.time(), id="1")
    producer = Scripted(Notices([event], lambda: settled.append(log.failures)))
    house.log = log  # type: ignore[assignment]

    with running(house, producer):
        until(lambda: settled == [0])
    assert [event.key for event in house.published()] == ["a"]


def test_what_a_person_must_mend_is_waited_for_with_the_notices_kept(house: House) -> None:
    """While the log refuses us, the producer is not started again, which gave back all that it holds; the source says
    why, and goes on when it is mended."""
    log = FailingLog(house.log, 10**9, UsageError("it refuses us"))
    settled: list[str] = []
    house.log = log  # type: ignore[assignment]
    producer = Scripted(
        Notices([ObjectEvent("inbox", "a", time=time.time(), id="1")], lambda: settled.append("first")),
        Notices([ObjectEvent("inbox", "b", time=time.time(), id="2")], lambda: settled.append("second")),
    )
    with running(house, producer, poll=3600.0) as source:
        until(lambda: house.metric("errors_total", stage="publish", code="usage") >= 3)
        assert source.status().reason == "usage: it refuses us"
        assert problems(house) == {"notifications": "usage"}
        assert house.metric("errors_total", stage="notify") == 0

        log.failures = 0
        until(lambda: settled == ["first", "second"])
        until(lambda: source.status().ready and not problems(house))
    assert [event.key for event in house.published()] == ["a", "b"]


def test_dead_letters_are_kept_before_notices_are_settled(house: House) -> None:
    """Where what can't be read cannot be put aside, that is tried again behind the events, which are published once."""
    done: list[str] = []

    def put_aside() -> None:
        done.append("tried")
        if len(done) < 3:
            raise UsageError("it refuses us")

    event = ObjectEvent("inbox", "a", time=time.time(), id="1")
    with running(house, Scripted(Notices([event], lambda: done.append("settled"), put_aside=put_aside))):
        until(lambda: "settled" in done)
    assert done == ["tried", "tried", "tried", "settled"]
    assert [event.key for event in house.published()] == ["a"]


def test_what_the_log_never_got_is_not_settled(house: House) -> None:
    """Stopped before it was published, a notification is left to be sent again."""
    log = FailingLog(house.log, 10**9)
    settled: list[int] = []
    house.log = log  # type: ignore[assignment]

    with running(house, Scripted(Notices([ObjectEvent("inbox", "a")], lambda: settled.append(1)))):
        until(lambda: log.failures < 10**9)
    assert settled == []


def test_a_producer_that_fails_or_loses_changes_makes_a_pass_due(house: House) -> None:
    """The pass starts at once, however long the poll."""
    producer = Scripted(Notices(lost=True), UnavailableError("watch"), Notices(lost=True))
    with running(house, producer, poll=3600.0) as source:
        until(lambda: house.metric("passes_total", source="inbox", outcome="complete") >= 2)
        until(lambda: source.status().watching and source.status().ready)


class BrokenStore:
    """A store that has an error of ours for as long as it is `broken`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`."""
        if self.broken:
            raise KeyError("of ours")
        return self.inner.list(after, limit)


def problems(house: House) -> dict[str, str]:
    """What `status` says is wrong with the source: part and code."""
    return {row["part"]: row["code"] for row in house.ledger.reports().sources()[0]["problems"]}


def test_a_pass_that_meets_an_error_of_ours_is_told_of_and_tried_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw ends no source: it is in the log, the metrics, `status` and readiness until it is over."""
    store = BrokenStore(house.store)
    house.store = store  # type: ignore[assignment]
    house.put("a")
    with running(house) as source:
        until(lambda: not source.status().ready and problems(house))
        assert source.status().reason.startswith("internal: ")
        assert problems(house) == {"listing": "internal"}
        assert house.metric("errors_total", stage="list", code="internal") > 0
        assert "our_error" in caplog.messages

        store.broken = False
        until(lambda: keys(house) == ["a"])
        until(lambda: source.status().ready)
    assert problems(house) == {}


class TellingAll(Scripted):
    """The same, which is asked for its problem before it goes on."""

    def __init__(self, *script: Notices | Exception) -> None:
        super().__init__(*script)
        self.may = threading.Event()

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`."""
        while len(self.script) == 1 and not (self.may.wait(0.01) or stop.is_set()):
            """It is not asked for yet."""
        yield from super().notices(stop)


def test_a_producer_that_meets_an_error_of_ours_is_told_of_and_started_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told that a source is watched while nothing watches it."""
    producer = TellingAll(Notices(lost=True), KeyError("of ours"), Notices(lost=True))
    with running(house, producer, poll=3600.0) as source:
        until(lambda: not source.status().ready and problems(house))
        assert not source.status().watching
        assert source.status().reason.startswith("internal: ")
        assert problems(house) == {"notifications": "internal"}
        assert house.metric("errors_total", stage="notify", code="internal") == 1
        assert "our_error" in caplog.messages

        producer.may.set()
        until(lambda: source.status().watching and source.status().ready)
    assert problems(house) == {}


def test_stopping_is_quick(house: House) -> None:
    """A resting source hears it within a look."""
    with running(house, None, poll=3600.0) as source:
        until(lambda: source.status().last_pass is not None)
        began = time.monotonic()
    assert time.monotonic() - began < 2
