"""Changes of single tasks: what a sender brings that is held up, and how much at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config.models import JsonLines
from pipeline.errors import LeaseLost, UnavailableError
from pipeline.ledger.deliveries import Change
from pipeline.sinks import CHANGE_SECONDS, Delivery
from pipeline.sinks.jsonl import JsonLinesDelivery
from pipeline.sinks.label_studio import LabelStudioDelivery
from tests.deliveries.contract_delivery import MOST, item, send
from tests.deliveries.desk import Desk
from tests.deliveries.little import Little, first, instead, little
from tests.deliveries.studio import choice
from tests.deliveries.wire import Answer
from tests.ledger.bench import Bench, done

PERSONAL = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"
CHANGED = "0a1b2c3d-c1"


@pytest.fixture
def studio() -> Iterator[Little]:
    """A stand-in for a Label Studio."""
    with little() as made:
        yield made


@pytest.fixture
def delivery(studio: Little) -> Iterator[LabelStudioDelivery]:
    """A delivery into it, of tasks with a prediction each."""
    with closing(studio.delivery()) as made:
        yield made


class Clock:
    """The machine's uptime, for which hours can pass."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._read = time.clock_gettime
        self.ahead = 0.0
        patch.setattr(time, "clock_gettime", lambda which: self._read(which) + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The machine's clock."""
    return Clock(monkeypatch)


class Patience:
    """A `ready` that is over at some time."""

    def __init__(self) -> None:
        self.over = False

    def end(self) -> None:
        """It is too late from now on."""
        self.over = True

    def __call__(self) -> None:
        """Raise LeaseLost where it is too late."""
        if self.over:
            raise LeaseLost("too late")


HELD: dict[str, tuple[str, str, list[str]]] = {
    "after it has asked": ("GET", "/api/tasks/1/", []),
    "after the task": ("PATCH", "/api/tasks/1/", ["PATCH"]),
    "after the old prediction": ("DELETE", "/api/predictions/", ["PATCH", "DELETE"]),
    "after a new prediction": ("POST", "/api/predictions/", ["PATCH", "DELETE", "POST"]),
}


@pytest.mark.parametrize("when", HELD)
def test_a_sender_that_is_held_up_changes_nothing_more(
    studio: Little, delivery: LabelStudioDelivery, when: str
) -> None:
    """A sender that is held up between two requests until its time is over makes none that changes something."""
    method, part, before = HELD[when]
    made = send(delivery, [item(1, predictions=[choice("a")])])
    studio.tasks[1]["predictions"] = [{"id": 5, **choice("a")}]
    ready = Patience()
    studio.spoils.append((method, part, first(ready.end)))
    new = item(1, "new", 2, predictions=[choice("b"), choice("a")])
    with pytest.raises(LeaseLost):
        delivery.change([Change(new, made[1], delete=False)], CHANGED, ready, MOST)
    assert [method for method, _ in studio.asked if method != "GET"][1:] == before


def test_a_sender_that_is_held_up_deletes_nothing(studio: Little, delivery: LabelStudioDelivery) -> None:
    """A sender that is held up after it has asked for a task that is to be deleted leaves it."""
    made = send(delivery, [item(1)])
    ready = Patience()
    studio.spoils.append(("GET", "/api/tasks/1/", first(ready.end)))
    with pytest.raises(LeaseLost):
        delivery.change([Change(item(1), made[1], delete=True)], CHANGED, ready, MOST)
    assert studio.texts() == ["text 1"]


def test_a_sender_that_is_held_up_over_its_token_changes_nothing(studio: Little) -> None:
    """The time that a token's exchange takes counts before a request, not within it."""
    ready = Patience()
    with closing(studio.delivery(PERSONAL)) as delivery:
        made = send(delivery, [item(1)])
        studio.spoils += [
            ("PATCH", "/api/tasks/1/", instead(Answer.of(401, {"detail": "it has ended"}))),
            ("POST", "/api/token/refresh/", first(ready.end)),
        ]
        with pytest.raises(LeaseLost):
            delivery.change([Change(item(1, "new", 2), made[1], delete=False)], CHANGED, ready, MOST)
    assert studio.count("PATCH", "") == 1
    assert studio.texts() == ["text 1"]


def test_half_of_a_change_is_none(studio: Little, delivery: LabelStudioDelivery) -> None:
    """A sender whose time is over while it sends a large task does not send the rest, and nothing is changed."""
    made = send(delivery, [item(1)])
    left = iter(range(4))

    def ready() -> None:
        if next(left, None) is None:
            raise LeaseLost("too late")

    with pytest.raises(LeaseLost):
        delivery.change([Change(item(1, "x" * 1_000_000, 2), made[1], delete=False)], CHANGED, ready, MOST)
    assert studio.texts() == ["text 1"]
    assert send(delivery, [item(2)], "0a1b2c3d-2")


def test_what_was_changed_in_time_is_told(studio: Little, delivery: LabelStudioDelivery) -> None:
    """Where time is over after some changes, those are told as made; the others are not touched."""
    made = send(delivery, [item(1), item(2), item(3)])
    ready = Patience()
    studio.spoils.append(("PATCH", "/api/tasks/2/", first(ready.end)))
    changes = [Change(item(n, f"new {n}", 2), made[n], delete=False) for n in (1, 2, 3)]
    assert delivery.change(changes, CHANGED, ready, MOST) == {1: ("done", ""), 2: ("done", "")}
    assert studio.texts() == ["new 1", "new 2", "text 3"]


def test_a_continued_sender_undoes_no_later_change(
    sqlite_bench: Bench, studio: Little, delivery: LabelStudioDelivery, clock: Clock
) -> None:
    """A sender that is stopped after it has asked for a task, and continued when another one has brought a later
    revision that somebody then annotated, changes nothing."""
    desk = changing(sqlite_bench, delivery)

    def meanwhile() -> None:
        clock.ahead += 10_000
        version(sqlite_bench, "three")
        with closing(studio.delivery()) as another:
            desk.outlet = desk.outlet._replace(delivery=another)
            desk.sender = desk.another()
            desk.steps()
        studio.tasks[1]["annotations"] = [choice("b")]

    studio.spoils.append(("GET", "/api/tasks/1/", first(meanwhile)))
    desk.steps()
    assert studio.count("PATCH", "/api/tasks/1/") == 1
    assert studio.texts() == ["three"]
    assert desk.report()["updated"] == 1


def changing(bench: Bench, delivery: Delivery | None = None, **outlet: float) -> Desk:
    """A delivery with a task that has changed since it was delivered."""
    desk = Desk(bench)
    desk.outlet = desk.outlet._replace(delivery=delivery or desk.remote, **outlet)  # type: ignore[arg-type]
    desk.sender = desk.another()
    bench.policy["inbox"] = "replace"
    bench.imported("a", texts=("one",))
    desk.steps()
    version(bench, "two")
    return desk


def version(bench: Bench, text: str) -> None:
    """Another version of the file."""
    bench.again("a", lambda work: done(work, (text,), mode="replace"), version=text)


@pytest.mark.parametrize("timeout", [1.0, 60.0, 900.0])
def test_a_grant_covers_each_change(sqlite_bench: Bench, clock: Clock, timeout: float) -> None:
    """Whatever a delivery's time-out is: a change may begin, and none may that the grant might not outlast."""
    desk = changing(sqlite_bench, timeout=timeout)
    change, seen = desk.remote.change, []

    def watched(changes: list[Change], name: str, ready: Callable[[], None], most: int) -> object:
        ((until,),) = sqlite_bench.execute("SELECT until FROM deliveries")
        left = until - time.clock_gettime(time.CLOCK_BOOTTIME) - max(CHANGE_SECONDS, timeout)
        ready()
        clock.ahead += left
        with pytest.raises(LeaseLost):
            ready()
        clock.ahead = 0.0
        seen.append(left)
        return change(changes, name, ready, most)

    desk.remote.change = watched  # type: ignore[assignment, method-assign]
    desk.steps()
    assert len(seen) == 1
    assert seen[0] > 60
    assert desk.remote.texts() == ["two"]


NO_LABEL_STUDIO = {
    "a refusal": Answer.of(400, {"detail": "no"}),
    "a proxy's own page": Answer(404, {"Content-Type": "text/html"}, b"<html>404 page not found</html>"),
    "a redirection": Answer(301, {"Location": "https://elsewhere/"}, b""),
    "nothing": Answer(200, {}, b""),
    "null": Answer(200, {}, b"null"),
}


@pytest.mark.parametrize("name", NO_LABEL_STUDIO)
@pytest.mark.parametrize("delete", [False, True])
def test_an_answer_that_is_none_ends_no_change(
    studio: Little, delivery: LabelStudioDelivery, name: str, delete: bool
) -> None:
    """Whatever else than the task comes for an answer, it is not taken for gone or annotated: the change waits."""
    made = send(delivery, [item(1)])
    studio.spoils.append(("GET", "/api/tasks/1/", instead(NO_LABEL_STUDIO[name])))
    with pytest.raises(UnavailableError):
        delivery.change([Change(item(1, "new", 2), made[1], delete=delete)], CHANGED, Patience(), MOST)
    assert studio.texts() == ["text 1"]


@pytest.mark.parametrize("name", ["a proxy's own page", "a redirection"])
def test_a_change_that_went_elsewhere_is_not_made(studio: Little, delivery: LabelStudioDelivery, name: str) -> None:
    """A change that something before the Label Studio answers by itself is tried again."""
    made = send(delivery, [item(1), item(2)])
    changes = [Change(item(1, "new", 2), made[1], delete=False), Change(item(2, "x", 2), made[2], delete=True)]
    for change, method in zip(changes, ("PATCH", "DELETE"), strict=True):
        studio.spoils.append((method, "/api/tasks/", instead(NO_LABEL_STUDIO[name])))
        with pytest.raises(UnavailableError):
            delivery.change([change], CHANGED, Patience(), MOST)


def test_files_of_changes_are_bounded(sqlite_bench: Bench, tmp_path: Path) -> None:
    """However many tasks have changed, no file is larger than `bytes_per_import`, and all of them are told."""
    desk = Desk(sqlite_bench, bytes_per_import=2048)
    desk.outlet = desk.outlet._replace(delivery=JsonLinesDelivery(JsonLines(url="out"), tmp_path))
    desk.sender = desk.another()
    sqlite_bench.policy["inbox"] = "replace"
    sqlite_bench.imported("a", texts=tuple("x" * 300 + str(n) for n in range(20)))
    desk.steps()
    new = tuple("y" * 300 + str(n) for n in range(20))
    sqlite_bench.again("a", lambda work: done(work, new, mode="replace"), version="v2")
    desk.steps()
    files = [path.read_bytes() for path in (tmp_path / "out").glob("*-c*.jsonl")]
    assert len(files) > 1
    assert max(map(len, files)) <= 2048
    told = [json.loads(line)["data"]["text"] for file in files for line in file.splitlines()]
    assert sorted(told) == sorted(new)
    assert desk.report()["updated"] == 20
