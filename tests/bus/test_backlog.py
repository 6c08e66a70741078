"""Kafka holds the backlog while the ledger cannot record: nothing is read on, and nobody is put out of the group."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.bus.kafka import member, open_log
from pipeline.consumers.dispatcher import Dispatcher, Scope
from pipeline.errors import UnavailableError
from pipeline.events import ObjectEvent
from tests.consumers.house import House, build, inbox

INTERVAL_SECONDS = 3.0
EVENTS = 3000
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Gate:
    """A ledger that does not answer while it is shut."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.open = threading.Event()
        self.asked = 0

    def positions(self, log: str) -> dict[int, int]:
        """What the ledger has."""
        return self._house.ledger.positions(log)

    def record(self, *args: Any) -> Any:
        """Fail, or record."""
        self.asked += 1
        if not self.open.is_set():
            raise UnavailableError("the database does not answer")
        return self._house.ledger.record(*args)


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_partitions_stay_while_the_ledger_is_away(
    kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than Kafka lets a member be silent the ledger is away: one batch is in hand, Kafka has all others, the
    group is the same after that, and everything is recorded once."""
    monkeypatch.setattr(member, "POLL_INTERVAL_MS", int(INTERVAL_SECONDS * 1000))
    house = build(tmp_path, [inbox()])
    gate = Gate(house)
    url = f"{kafka_url}?partitions=2&session=3&group={kafka_url.rpartition('/')[2]}"
    with closing(open_log(url, lambda _bucket, _key: ())) as log:
        log.publish([ObjectEvent("inbox", f"{number:05}", version="v") for number in range(EVENTS)])
        joined: list[Any] = []
        monkeypatch.setattr(member._Assignment, "on_partitions_revoked", lambda _, revoked: joined.append(revoked))
        scope = Scope(lambda _key: True, "ignore")
        made = Dispatcher(log, gate, {"inbox": scope}, house.metrics)  # type: ignore[arg-type]
        thread = threading.Thread(target=made.run)
        thread.start()
        until(lambda: gate.asked)
        del joined[:]
        begun = time.monotonic()
        until(lambda: time.monotonic() > begun + 2.5 * INTERVAL_SECONDS)
        assert house.ledger.positions(log.name) == {}
        assert sum(log.end().values()) == EVENTS
        assert gate.asked < 20
        gate.open.set()
        until(lambda: sum(house.ledger.positions(log.name).values()) == EVENTS)
        assert joined == []
        made.stop()
        thread.join(30)
    assert len(house.rows()) == EVENTS
    assert house.metric("received_events_total") == EVENTS
    house.ledger.close()
