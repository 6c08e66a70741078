"""Servers that refuse us while roles run, as after a password was changed: roles wait, and say why in their words."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.bus.embedded import EmbeddedLog
from pipeline.errors import LabelfeedError, UsageError
from tests.consumers.house import House
from tests.consumers.test_dispatcher import Told, dispatcher, event, polled
from tests.consumers.test_importer import GOOD, Instead, parsed_by, pieces
from tests.consumers.test_renewer import eventually
from tests.consumers.test_scheduler import Sent, fill, scheduler

REFUSED = UsageError("the password is not this one any more")
TOLD = f"usage: {REFUSED}"


def refusing(times: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """A method that refuses so many times, and then does as the real one."""
    left = [REFUSED] * times

    def call(*given: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return real(*given, **named)

    return call


def errors_of_ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged with a traceback."""
    return [record.message for record in caplog.records if record.exc_info]


def test_a_dispatcher_that_the_database_refuses(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It says why it waits, keeps the batch in hand, and records it when it may again."""
    made = dispatcher(house, ledger=Instead(house.ledger, record=refusing(2, house.ledger.record)))
    seen: list[str | None] = []

    class Resting(Told):
        def rest(self, seconds: float) -> None:
            seen.append(made.problem)
            super().rest(seconds)

    told = Resting()
    assert made.take(told, polled(event("a"))) == {"new": 1}
    assert set(seen) == {TOLD}
    assert made.problem is None
    assert told.committed == [{0: 1}]
    assert errors_of_ours(caplog) == []


def test_a_dispatcher_that_the_log_refuses(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It says why it waits, and goes on when it may again."""
    log = EmbeddedLog(house.file)
    log.create()
    log.publish([event("a")])
    arrived = threading.Event()
    refused = Instead(log, consumer=refusing(1, log.consumer))
    made = dispatcher(house, log=refused, recorded=arrived.set)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    eventually(lambda: made.problem)
    assert made.problem == TOLD
    assert arrived.wait(10)
    made.stop()
    thread.join(10)
    assert errors_of_ours(caplog) == []


def test_a_scheduler_that_the_queue_refuses(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It says why it waits, the ledger says that the queue is the reason, and it goes on when it may again."""
    sent = Sent()
    sent.answers, sent.error = False, REFUSED
    fill(house, 1)
    made = scheduler(house, sent)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    eventually(lambda: made.problem)
    assert made.problem == TOLD
    notes = json.loads(house.ledger.tick(lambda tick: tick.load().shared.notes) or "{}")
    assert notes["sources"]["inbox"][0] == "queue"
    sent.answers = True
    eventually(lambda: sent.claims)
    made.stop()
    thread.join(10)
    assert errors_of_ours(caplog) == []


def test_messages_that_the_queue_refuses_undo_their_claims(house: House) -> None:
    """A claim whose message may not be sent goes back at once."""
    sent = Sent()
    sent.fails_after, sent.error = 0, REFUSED
    fill(house, 1)
    with pytest.raises(LabelfeedError):
        scheduler(house, sent).step()
    assert set(house.states().values()) == {"ready"}


@pytest.mark.parametrize("method", ["start", "commit"])
def test_a_worker_that_the_database_refuses(house: House, caplog: pytest.LogCaptureFixture, method: str) -> None:
    """Its claim goes back when the database lets it, uncounted, and the worker says meanwhile why it waits."""
    house.put("a.json", GOOD)
    house.note("a.json")
    told: list[str | None] = []

    def give_back(*given: Any, **named: Any) -> None:
        told.append(importer.problem)
        if len(told) == 1:
            raise REFUSED
        house.ledger.give_back(*given, **named)

    ledger = Instead(house.ledger, give_back=give_back, **{method: refusing(1, getattr(house.ledger, method))})
    importer = house.importer(ledger)
    importer.run(house.claim()[0].lease)
    assert told == [TOLD, TOLD]
    assert importer.problem is None
    assert {key: (row["state"], row["attempts"]) for key, row in house.rows().items()} == {"a.json": ("ready", 0)}
    assert errors_of_ours(caplog) == []


def test_a_large_file_whose_piece_the_database_refuses(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back uncounted: that the database lets nobody in is no fault of the file's."""
    parsed_by(monkeypatch, pieces(25, 1000))
    house.put("large", "x")
    house.note("large")

    def stage(*_: Any) -> Callable[[], None]:
        return refusing(1, lambda: None)

    importer = house.importer(Instead(house.ledger, stage=stage))
    importer.run(house.claim()[0].lease)
    assert {key: (row["state"], row["attempts"]) for key, row in house.rows().items()} == {"large": ("ready", 0)}


def test_a_refused_give_back_ends_no_worker(house: House) -> None:
    """A claim that was cancelled and cannot be given back is left to its lease's end."""
    house.put("a.json", GOOD)
    house.note("a.json")
    importer = house.importer(Instead(house.ledger, give_back=refusing(1, house.ledger.give_back)))
    importer.cancel()
    importer.run(house.claim()[0].lease)
    assert house.states() == {"a.json": "running"}
