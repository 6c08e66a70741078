"""Leading a source: one process works, whatever the ledger answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import waiting
from pipeline.app import leading
from pipeline.app.leading import Leading
from pipeline.errors import UnavailableError
from pipeline.producers.runner import SourceRunner
from tests.producers.conftest import EPOCH, House, until
from tests.producers.conftest import house as house  # noqa: PLC0414 - a fixture of theirs

HOLDER = f"{EPOCH}:leader"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits."""
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(leading, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(leading, "TRY_SECONDS", 0.05)


class Ledger:
    """A ledger that cannot say who leads while there is an `error`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def lead(self, source_id: int, holder: str, seconds: float) -> bool:
        """As `Ledger.lead`."""
        if self.error is not None:
            raise self.error
        return bool(self.inner.lead(source_id, holder, seconds))


@contextmanager
def leads(house: House, ledger: Ledger, **options: Any) -> Iterator[Leading]:
    """A process that leads the source as soon as it may."""
    runner = SourceRunner(house.passes(**options), None)
    made = Leading(runner, "inbox", 1, ledger, house.metrics)  # type: ignore[arg-type]
    thread = threading.Thread(target=made.run, args=(HOLDER, house.stop))
    thread.start()
    try:
        yield made
    finally:
        house.stop.set()
        thread.join(20)
        assert not thread.is_alive()


def leader(house: House) -> float:
    """Whether the process leads, as the metric says."""
    return house.metric("leader", source="inbox")


def test_an_error_of_ours_ends_no_lead(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw is in the log, the source goes on being led, and stops when it is to stop."""
    ledger = Ledger(house.ledger)
    house.put("a")
    with leads(house, ledger):
        until(lambda: leader(house) and house.record())
        ledger.error = KeyError("of ours")
        until(lambda: "our_error" in caplog.messages)
        house.put("b")
        until(lambda: ("created", "b") in house.record())
        assert leader(house)
        assert house.metric("leads_taken_total", source="inbox") == 1
    assert not leader(house)


def test_an_error_of_ours_ends_no_standing_by(house: House) -> None:
    """Who could not learn who leads asks again, and says why it waits."""
    ledger = Ledger(house.ledger)
    ledger.error = KeyError("of ours")
    with leads(house, ledger) as made:
        until(lambda: (made.problem() or "").startswith("internal: "))
        assert not leader(house)
        ledger.error = None
        until(lambda: leader(house) and made.problem() is None)


def test_a_leader_whose_database_is_away_waits_and_says_so_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """However long it is until the next pass, it is unready while the lead cannot be renewed, and leads on after."""
    caplog.set_level("INFO", "pipeline")
    ledger = Ledger(house.ledger)
    with leads(house, ledger, poll=3600.0) as made:
        until(lambda: house.metric("passes_total", source="inbox", outcome="complete") == 1)
        until(lambda: made.problem() is None)

        ledger.error = UnavailableError("no database")
        until(lambda: made.problem() == "unavailable: no database")
        until(lambda: house.metric("errors_total", stage="lead", code="unavailable") >= 3)
        assert leader(house)
        ledger.error = None
        until(lambda: made.problem() is None)

    told = [message for message in caplog.messages if message in ("waiting", "recovered")]
    assert told == ["waiting", "recovered"]
    assert house.metric("leads_taken_total", source="inbox") == 1
