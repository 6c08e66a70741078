"""Leases are kept alive while they are worked under, and given up when they must be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline.consumers import renewer as renewing
from pipeline.consumers.renewer import Renewer
from pipeline.errors import UnavailableError
from tests.consumers.house import House


def eventually(true: Any, seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def expire(house: House) -> int:
    """End the leases that are over."""
    return house.ledger.tick(lambda tick: tick.expire(100)) or 0


def test_a_held_lease_outlives_its_length(house: House) -> None:
    """A lease of 0.6 s that is held does not end, and ends soon after nobody holds it any more."""
    house.put("a.json", "{}")
    house.note("a.json")
    renewer = Renewer(house.ledger, "w", 0.6)
    renewer.start(1)
    (claim,) = house.claim()
    house.ledger.start(claim.lease, "w", 0.6)
    with renewer.hold(claim.lease) as held:
        started = time.monotonic()
        eventually(lambda: expire(house) or time.monotonic() > started + 1)
        assert house.states() == {"a.json": "running"}
        assert not held.lost
    eventually(lambda: expire(house))
    renewer.stop()


def test_an_ended_lease_is_noticed(house: House) -> None:
    """Whoever holds a lease that has ended is told."""
    renewer = Renewer(house.ledger, "w", 60)
    with renewer.hold(12345) as held:
        renewer.renew(held)
        assert held.lost


def test_two_failures_in_a_row_cancel() -> None:
    """One renewal without an answer is forgiven, two in a row are not."""

    class Silent:
        answers = iter([UnavailableError("no"), None, UnavailableError("no"), UnavailableError("no")])

        def renew(self, lease: int, seconds: float) -> bool:
            answer = next(self.answers)
            if answer is not None:
                raise answer
            return True

    renewer = Renewer(Silent(), "w", 60)  # type: ignore[arg-type]
    with renewer.hold(1) as held:
        seen = []
        for _ in range(4):
            renewer.renew(held)
            seen.append(held.lost)
    assert seen == [False, False, False, True]


class Breaking:
    """A ledger that breaks the first time that it is asked for something, and works after that."""

    def __init__(self) -> None:
        self.beats = self.renewals = 0

    def beat(self, _worker: str, _threads: int, _seconds: float, commits: tuple[int, float] | None = None) -> None:
        """As `Ledger.beat`; the first one with `commits` breaks, which is the thread's own."""
        if commits is not None:
            self.beats += 1
            if self.beats == 1:
                raise RuntimeError("nobody foresaw this")

    def renew(self, _lease: int, _seconds: float) -> bool:
        """As `Ledger.renew`."""
        self.renewals += 1
        if self.renewals == 1:
            raise RuntimeError("nor this")
        return True


def test_an_error_that_nobody_foresaw_ends_no_renewing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks a beat or a renewal is told by the process, which goes on with both."""
    monkeypatch.setattr(renewing, "BEAT_SECONDS", 0.2)
    ledger = Breaking()
    renewer = Renewer(ledger, "w", 1.2)  # type: ignore[arg-type]
    renewer.start(1)
    with renewer.hold(1) as held, renewer.hold(2) as other:
        eventually(lambda: renewer.problem)
        assert "RuntimeError" in (renewer.problem or "")
        eventually(lambda: renewer.problem is None and ledger.beats > 1)
        eventually(lambda: ledger.renewals > 3)
        assert not held.lost
        assert not other.lost
    renewer.stop()


def test_threads_are_counted_while_they_live(house: House) -> None:
    """The scheduler sees a process's worker threads from its start to its stop."""

    def threads() -> int:
        return house.ledger.tick(lambda tick: tick.load().threads)

    renewer = Renewer(house.ledger, "w", 60)
    renewer.start(3)
    assert threads() == 3
    renewer.stop()
    assert threads() == 0


@pytest.mark.parametrize("times", [1, 2])
def test_stop_is_idempotent(house: House, times: int) -> None:
    """Stopping what never ran, or twice, does nothing."""
    renewer = Renewer(house.ledger, "w", 60)
    for _ in range(times):
        renewer.stop()
