"""What the scheduler claims of a source that is paused, and how it says so."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pipeline.consumers.pausing import claimable
from pipeline.ledger import PAUSE_AFTER, Claim, Outcome, Reason, SourceLoad, Standing
from tests.consumers.house import House, inbox
from tests.consumers.test_scheduler import Sent, fill, scheduler


def end(house: House, claims: list[Claim], code: str | None) -> None:
    """Let claims end, as failures with a code or as imports."""
    reason = Reason(code, "it is broken") if code else None
    for claim in claims:
        house.ledger.start(claim.lease, "w", 60)
        state: Any = "failed" if code else "done"
        house.ledger.commit(claim.lease, [Outcome(each, state, version="v", reason=reason) for each in claim.ids])


@pytest.mark.parametrize(
    ("standing", "claimed", "now", "eager", "ready"),
    [
        (Standing(), 3, 0, False, 7),
        (Standing(paused="hand"), 0, 99, True, 0),
        (Standing(20, "x", "failures", 1, 50), 0, 49, False, 0),
        (Standing(20, "x", "failures", 1, 50), 0, 49, True, 1),
        (Standing(20, "x", "failures", 1, 50), 0, 50, False, 1),
        (Standing(20, "x", "failures", 1, 50), 1, 50, True, 0),
    ],
)
def test_claimable(standing: Standing, claimed: int, now: float, eager: bool, ready: int) -> None:
    """All of a healthy source, nothing of one paused by hand, one object when it is due of one paused by failures."""
    source = SourceLoad(1, "inbox", 1, 7, claimed, (0.0, 0), 0.0, standing)
    assert claimable(source, now, eager=eager) == ready


def test_probes(make_house: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After so many equal failures one object is tried, when it is due; when it passes, all the others go on."""
    house, sent = make_house(batch_objects=PAUSE_AFTER), Sent()
    fill(house, 500)
    made = scheduler(house, sent, threads=1)
    with caplog.at_level(logging.WARNING):
        made.step()
        end(house, sent.claims, "syntax")
        sent.claims.clear()
        made._gauged = 0.0
        made.step()
        assert sent.claims == []
        house.file.write(lambda connection: connection.execute("UPDATE standings SET probe_due = 0"))
        made.step()
        assert sent.sizes() == [1]
        made.step()
        assert sent.sizes() == [1]
        end(house, sent.claims, None)
        sent.claims.clear()
        made._gauged = 0.0
        made.step()
    assert sum(sent.sizes()) > 1
    told = [record.message for record in caplog.records if record.message.startswith("source_")]
    assert told == ["source_paused", "source_resumed"]
    assert house.metric("source_paused", source="inbox") == 0


def test_others_go_on(make_house: Any) -> None:
    """A paused source holds up no other one."""
    house, sent = make_house(inbox(), inbox(name="other", url="other")), Sent()
    fill(house, 5)
    fill(house, 5, source="other")
    made = scheduler(house, sent)
    house.ledger.pause(next(row["id"] for row in house.ledger.reports().sources() if row["name"] == "inbox"))
    made.step()
    assert {claim.source for claim in sent.claims} == {"other"}
