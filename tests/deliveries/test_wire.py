"""What goes over the wire to a real Label Studio, and what comes of bad answers."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.services.model import Service
from tests.deliveries.studio import CHOICES, Studio
from tests.deliveries.wire import Answer, Spoil, Wire, wire
from tests.e2e.house import House, until
from tests.faults.network import Proxy

MINUTES = float(os.environ.get("LABELFEED_WIRE_MINUTES", "0.5"))
"""So long two dispatchers and two workers are under load; with `make soak` for several minutes ..."""
EVERY, MOST, SIZE = (30.0, 300, 20_000) if MINUTES > 1 else (3.0, 40, 4_000)
"""... and then with the guide's 30 seconds between two imports."""


@pytest.fixture
def line(studio: Studio) -> Iterator[Wire]:
    """A proxy before the Label Studio."""
    with wire(studio.url) as recorded:
        yield recorded


def configure(house: House, studio: Studio, line: Wire, delivery: dict[str, Any] | None = None, **how: Any) -> None:
    """A source whose tasks go on by way of the proxy."""
    options = {"url": line.url, "timeout": "2s", "settle": "500ms", **(delivery or {})}
    throttle = {"imports_every": "0s", **how.pop("throttle", {})}
    projects = {"p": {"throttle": throttle, "deliveries": [studio.delivery(**options)]}}
    house.configure(how.pop("source", None), projects=projects, **how)


def put(house: House, files: int, rows: int, prefix: str = "f") -> list[str]:
    """Files of several tasks each; gives their texts."""
    texts = []
    for number in range(files):
        tasks = [{"text": f"{prefix} {number:04} {row:02}"} for row in range(rows)]
        house.put(f"{prefix}{number:04}.json", json.dumps(tasks))
        texts += [task["text"] for task in tasks]
    return texts


def delivered(house: House) -> int:
    """How many tasks the ledger knows to be there."""
    rows = house.rows("SELECT delivered FROM deliveries")
    return int(rows[0][0]) if rows else 0


def test_no_two_imports_are_closer_than_the_interval(house: House, studio: Studio, line: Wire) -> None:
    """Over two processes that schedule and send, one of which is stopped in the middle of sending and continued
    later: no two imports are closer than `imports_every`, none is above the limits, and each task arrives once."""
    most, size = 30, 2_500
    throttle = {"imports_every": "1500ms", "tasks_per_import": most, "bytes_per_import": size}
    configure(house, studio, line, throttle=throttle)
    texts = put(house, 4, 25)
    stopped = house.start("run", "--log-format=json", fault="deliverer.sending:1:STOP")
    until(stopped.suspended, what="the stop")
    other = house.start("run", "--log-format=json")
    until(lambda: delivered(house) >= most, what="the other one's import")
    stopped.signal(signal.SIGCONT)
    until(lambda: delivered(house) == len(texts), what="the end")
    for process in (stopped, other):
        process.signal(signal.SIGTERM)
        assert process.end().code == 0

    assert studio.texts() == sorted(texts)
    assert line.closest() >= 1.5, sorted(line.imports)
    assert max(each.tasks for each in line.imports) <= most
    assert max(each.bytes for each in line.imports) <= size
    assert sum(each.tasks for each in line.imports) == len(texts)


def _after(answer: Answer) -> Spoil:
    """The import goes on behind an answer that says nothing of it."""
    return lambda through: (through(), answer)[1]


def _instead(answer: Answer) -> Spoil:
    """The import is not let through."""
    return lambda through: answer


HTML = Answer(504, {"Content-Type": "text/html"}, b"<html>504 Gateway Time-out</html>")

BAD: dict[str, tuple[Spoil, int]] = {
    "a proxy's time-out, while the import goes on": (_after(HTML), 1),
    "a proxy's time-out, and nothing behind it": (_instead(HTML), 2),
    "an answer that is no JSON": (_after(Answer(201, {}, b"<html>welcome</html>")), 1),
    "an answer without ids": (_after(Answer.of(201, {"task_count": 3})), 1),
    "too many requests": (_instead(Answer.of(429, {"detail": "slow down"}, Retry_After="1")), 2),
    "a connection that breaks after the import": (_after(Answer(0, {}, b"")), 1),
    "a connection that breaks before the import": (_instead(Answer(0, {}, b"")), 2),
    "an error after the import": (_after(Answer.of(500, {"detail": "webhooks failed"})), 1),
    "an import that goes on behind its answer": (_after(Answer.of(201, {"import": 7})), 1),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_answers_double_and_lose_nothing(house: House, studio: Studio, line: Wire, name: str) -> None:
    """Whatever one answer says, each task arrives once, by no more imports than it takes."""
    spoil, imports = BAD[name]
    configure(house, studio, line)
    texts = put(house, 1, 3)
    line.spoils.append(spoil)
    state = {"id": 7, "status": "completed", "task_ids": None}
    line.others["/imports/7/"] = Answer.of(200, state)
    with house.continuously():
        until(lambda: delivered(house) == len(texts), what="the delivery")
    assert studio.texts() == texts
    assert len(line.imports) == imports
    if name == "too many requests":
        assert line.closest() >= 1.0


def test_an_import_that_goes_on_behind_a_time_out(house: House, studio: Studio, line: Wire) -> None:
    """An import that ends long after a proxy's time-out, when it was looked for in vain already, is waited for."""
    configure(house, studio, line, delivery={"settle": "60s"})
    texts = put(house, 1, 3)

    def late(through: Callable[[], Answer]) -> Answer:
        threading.Thread(target=lambda: line.looked.wait(60) and through(), daemon=True).start()
        return HTML

    line.spoils.append(late)
    with house.continuously():
        until(lambda: delivered(house) == len(texts), what="the delivery")
    assert line.looked.is_set()
    assert studio.texts() == texts
    assert len(line.imports) == 1


def test_an_import_that_fails_behind_its_answer(house: House, studio: Studio, line: Wire) -> None:
    """An import that was answered 201 and fails later is refused: halved until the bad task is alone."""
    configure(house, studio, line)
    texts = put(house, 1, 2)
    line.spoils += [_instead(Answer.of(201, {"import": 7})), _instead(Answer.of(201, {"import": 7}))]
    line.others["/imports/7/"] = Answer.of(200, {"id": 7, "status": "failed", "error": "the second half is bad"})
    with house.continuously():
        until(lambda: house.rows("SELECT delivered, refused FROM deliveries") == [(1, 1)], what="the rest")
    assert len(studio.texts()) == 1
    assert set(studio.texts()) < set(texts)
    assert house.rows("SELECT reason FROM delivered WHERE state = 'refused'") == [("the second half is bad",)]


def test_a_wrong_token_holds_only_its_delivery(house: House, studio: Studio, line: Wire) -> None:
    """With a wrong token nothing is delivered and all is imported; the reason is told without the token; with the
    right one it goes on by itself."""
    configure(house, studio, line, delivery={"token": "0" * 40})
    texts = put(house, 1, 3)
    house.once()
    assert len(house.tasks()) == 1
    found = house.look("deliveries", "--json")
    assert found.code == 1
    (row,) = found.json()["deliveries"]
    assert row["code"] == "unauthorized"
    assert "0" * 40 not in found.out
    checked = {row["component"]: row for row in house.look("check", "--json").json()}
    assert not checked["delivery p/label_studio"]["ok"]
    configure(house, studio, line)
    with house.continuously():
        until(lambda: delivered(house) == 3, what="the delivery")
    assert studio.texts() == texts


def test_a_remote_that_is_away_holds_only_its_delivery(house: House, studio: Studio, toxiproxy: Service) -> None:
    """While Label Studio cannot be reached all is imported and the reason is told; when it is back, it goes on by
    itself."""
    proxy = Proxy.to(toxiproxy, uuid.uuid4().hex, urlsplit(studio.url).port or 0)
    delivery = studio.delivery(url=f"http://127.0.0.1:{proxy.port}", timeout="2s", settle="500ms")
    house.configure(projects={"p": {"throttle": {"imports_every": "0s"}, "deliveries": [delivery]}})
    texts = put(house, 2, 3)
    proxy.cut()
    house.once()
    (row,) = house.look("deliveries", "--json").json()["deliveries"]
    assert (row["code"], row["waiting_tasks"]) == ("unavailable", len(texts))
    assert set(house.states().values()) == {"done"}
    proxy.mend()
    with house.continuously():
        until(lambda: delivered(house) == len(texts), what="the delivery")
    assert studio.texts() == texts
    proxy.remove()


def test_a_configuration_that_refuses_all_costs_a_few(house: House, label_studio: Service) -> None:
    """Where the labelling configuration there refuses every task, a few are set aside, in its own words, and the
    others wait; once it is mended, `retry` brings all of them."""
    studio = Studio.make(label_studio, CHOICES.replace("$text", "$other"))
    throttle = {"imports_every": "0s", "tasks_per_import": 25}
    project = {"label_config": CHOICES, "throttle": throttle, "deliveries": [studio.delivery(timeout="10s")]}
    house.configure(projects={"p": project})
    texts = put(house, 4, 25)
    house.once()
    found = house.look("deliveries", "--json").json()
    (row,) = found["deliveries"]
    assert row["code"] == "refused"
    assert 20 <= row["refused"] <= 30
    assert row["refused"] + row["waiting_tasks"] == len(texts)
    assert '"other" key is expected' in found["refused"][0]["reason"]
    assert studio.texts() == []

    path = f"/api/projects/{studio.project}/"
    studio.client.patch(path, json={"label_config": CHOICES}).raise_for_status()
    assert house.run("deliveries", "retry", "p/label_studio").code == 0
    with house.continuously():
        until(lambda: delivered(house) == len(texts), what="the rest")
    assert studio.texts() == sorted(texts)
    studio.close()


def test_check_compares_configurations(house: House, studio: Studio) -> None:
    """`check` names the keys that the labelling configuration there asks for and ours does not; of two that ask for the
    same it says nothing."""
    found = []
    for ours in (CHOICES, CHOICES.replace("$text", "$other")):
        house.configure(projects={"p": {"label_config": ours, "deliveries": [studio.delivery()]}})
        checked = {row["component"]: row for row in house.look("check", "--json").json()}
        found.append(checked["delivery p/label_studio"])
    assert [row["ok"] for row in found] == [True, True]
    assert "asks for" not in found[0]["found"]
    assert found[1]["found"].endswith("; its labelling configuration also asks for text")


def test_the_last_configuration_counts_while_it_is_away(house: House, studio: Studio, toxiproxy: Service) -> None:
    """While Label Studio cannot be asked for its labelling configuration, rows are held against the one that it gave
    last."""
    proxy = Proxy.to(toxiproxy, uuid.uuid4().hex, urlsplit(studio.url).port or 0)
    delivery = studio.delivery(url=f"http://127.0.0.1:{proxy.port}", timeout="2s", settle="500ms")
    house.configure(projects={"p": {"throttle": {"imports_every": "0s"}, "deliveries": [delivery]}})
    house.put("a.csv", "text,n\nx,1\n")
    house.once()
    proxy.cut()
    house.put("b.csv", "other,n\nx,1\n")
    house.put("c.csv", "text,n\ny,1\n")
    house.once(code=1)
    assert house.states() == {"a.csv": "done", "b.csv": "failed: missing_key", "c.csv": "done"}
    proxy.remove()


def test_a_deleted_project_holds_only_its_delivery(house: House, studio: Studio, line: Wire) -> None:
    """A project that was deleted there is told by name, and imports go on."""
    configure(house, studio, line)
    put(house, 1, 3)
    studio.client.delete(f"/api/projects/{studio.project}/").raise_for_status()
    house.once()
    (row,) = house.look("deliveries", "--json").json()["deliveries"]
    assert (row["code"], row["waiting_tasks"]) == ("no_project", 3)
    assert house.states() == {"f0000.json": "done"}


@pytest.mark.timeout(MINUTES * 60 + 600)
def test_minutes_of_load(
    request: pytest.FixtureRequest, house: House, studio: Studio, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over minutes of load on two dispatchers and two workers, one worker stopped and continued again and again, no
    two imports are closer than `imports_every`, none is above the limits, and each task arrives once."""
    database, queue, events = (request.getfixturevalue(name) for name in ("database_url", "redis_url", "kafka_url"))
    throttle = {"imports_every": f"{EVERY}s", "tasks_per_import": MOST, "bytes_per_import": SIZE}
    delivery = {"timeout": "10s", "settle": "3s"}
    configure(house, studio, line, delivery, throttle=throttle, database=database, queue=queue, events=events)
    roles = {name: house.start(*name.split()[:1], "--log-format=json", "--listen=127.0.0.1:0") for name in (
        "watch", "dispatch 1", "dispatch 2", "work 1", "work 2"
    )}  # fmt: skip
    texts: list[str] = []
    deadline = time.monotonic() + MINUTES * 60
    for number in range(10_000):
        if time.monotonic() > deadline:
            break
        texts += put(house, 5, 10, f"n{number:04}")
        worker = roles[random.choice(("work 1", "work 2"))]
        worker.signal(signal.SIGSTOP)
        time.sleep(random.uniform(EVERY / 30, EVERY / 2))
        worker.signal(signal.SIGCONT)
        time.sleep(EVERY / 6)
    until(lambda: studio.count() >= len(texts), seconds=500, what="the end")
    for process in roles.values():
        process.signal(signal.SIGTERM)
        process.end()
    told = f"{len(line.imports)} imports, closest {line.closest():.2f} s, {line.halves} broken off"
    sys.stderr.write(told + "\n")
    assert studio.texts() == sorted(texts)
    assert len(line.imports) >= 3
    assert line.closest() >= EVERY
    assert max(each.tasks for each in line.imports) <= MOST
    assert max(each.bytes for each in line.imports) <= SIZE
