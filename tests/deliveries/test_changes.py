"""Changes of single tasks: what a sender brings that is held up, and how much at once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config.projects import JsonLines
from pipeline.errors import ChangesFailed, LeaseLost, UnavailableError
from pipeline.ledger.deliveries import Change
from pipeline.sinks import CHANGE_SECONDS, Delivery, Encoded
from pipeline.sinks.jsonl import JsonLinesDelivery
from pipeline.sinks.label_studio import LabelStudioDelivery
from pipeline.sinks.label_studio.delivery import MOST_FAILURES
from tests.deliveries.contract_delivery import MOST, FileRoom, item, send
from tests.deliveries.contract_returns import archived, restored
from tests.deliveries.desk import Desk
from tests.deliveries.little import Little, first, instead, little
from tests.deliveries.studio import choice
from tests.deliveries.wire import Answer
from tests.ledger.bench import Bench, done

PERSONAL = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"
CHANGED = "0a1b2c3d-2"


@pytest.fixture
def studio() -> Iterator[Little]:
    """A stand-in for a Label Studio."""
    with little() as made:
        yield made


@pytest.fixture(params=["sqlite_bench", "postgres_bench"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A ledger, in either database."""
    found: Bench = request.getfixturevalue(request.param)
    return found


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
    "after a new prediction": ("POST", "/api/predictions/", ["POST"]),
    "after the task": ("PATCH", "/api/tasks/1/", ["POST", "POST", "PATCH"]),
    "after an old prediction": ("DELETE", "/api/predictions/", ["POST", "POST", "PATCH", "DELETE"]),
}


@pytest.mark.parametrize("when", HELD)
def test_a_sender_that_is_held_up_changes_nothing_more(
    studio: Little, delivery: LabelStudioDelivery, when: str
) -> None:
    """A sender that is held up between two requests until its time is over makes none that changes something."""
    method, part, before = HELD[when]
    made = send(delivery, [item(1, predictions=[choice("a")])])
    studio.tasks[1]["predictions"] = [{"id": number, **choice("a")} for number in (50, 60, 70)]
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


@pytest.mark.parametrize("timeout", [1.0, 60.0, 900.0])
def test_a_grant_covers_each_import(sqlite_bench: Bench, clock: Clock, timeout: float) -> None:
    """Whatever a delivery's time-out is: an import may begin, and no part of it may go out that the grant might not
    outlast, where that part takes the time-out to be taken in, and as long again to be answered."""
    desk = Desk(sqlite_bench)
    desk.outlet = desk.outlet._replace(timeout=timeout)
    desk.sender = desk.another()
    sqlite_bench.imported("a", texts=("one",))
    send_, seen = desk.remote.send, []

    def watched(batch: str, tasks: Sequence[Encoded], ready: Callable[[], None], named: object) -> object:
        left = desk.left() - 2 * timeout
        ready()
        clock.ahead += left
        with pytest.raises(LeaseLost):
            ready()
        clock.ahead = 0.0
        seen.append(left)
        return send_(batch, tasks, ready)

    desk.remote.send = watched  # type: ignore[assignment, method-assign]
    desk.steps()
    assert len(seen) == 1
    assert seen[0] > timeout / 2
    assert desk.remote.texts() == ["one"]


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


def revised(bench: Bench, delivery: LabelStudioDelivery, tasks: int) -> Desk:
    """A delivery of a file with so many tasks, all of which have changed since they were delivered."""
    desk = Desk(bench)
    desk.outlet = desk.outlet._replace(delivery=delivery)
    desk.sender = desk.another()
    bench.policy["inbox"] = "replace"
    bench.imported("a", texts=tuple(f"old {n}" for n in range(tasks)))
    desk.steps()
    new = tuple(f"new {n}" for n in range(tasks))
    bench.again("a", lambda work: done(work, new, mode="replace"), version="v2")
    return desk


def always(studio: Little, status: int, tasks: Sequence[int], **headers: str) -> None:
    """The Label Studio answers every change of these tasks so."""
    answer = instead(Answer.of(status, {"detail": "what a pity"}, **headers))
    studio.spoils += [("PATCH", f"/api/tasks/{number}/", answer) for number in tasks for _ in range(20)]


def patched(studio: Little) -> Counter[str]:
    """How often each task was changed, or was to be."""
    return Counter(path for method, path in studio.asked if method == "PATCH")


@pytest.mark.parametrize(("status", "code"), [(500, "server_error"), (302, "refused"), (404, "no_project")])
def test_a_task_that_always_fails_holds_up_no_other(
    sqlite_bench: Bench, studio: Little, delivery: LabelStudioDelivery, status: int, code: str
) -> None:
    """Where the change of one task always fails, each other is made, once, and then the failure is told; it is made
    as soon as it can be."""
    desk = revised(sqlite_bench, delivery, 150)
    always(studio, status, [3])
    desk.steps()
    assert studio.tasks[3]["data"]["text"].startswith("old")
    assert sum(text.startswith("new") for text in studio.texts()) == 149
    assert {count for path, count in patched(studio).items() if path != "/api/tasks/3/"} == {1}
    report = desk.report()
    assert (report["updated"], report["changes"], report["failing"], report["code"]) == (149, True, 1, code)
    assert str(status) in report["reason"]
    studio.spoils.clear()
    desk.overdue("due")
    desk.steps()
    assert (desk.report()["updated"], desk.report()["failing"]) == (150, 0)


def test_many_tasks_that_always_fail_hold_up_no_other(
    sqlite_bench: Bench, studio: Little, delivery: LabelStudioDelivery
) -> None:
    """However many tasks fail each time that they are changed, those behind them have their turn."""
    bad = range(1, 3 * MOST_FAILURES + 1)
    desk = revised(sqlite_bench, delivery, len(bad) + 20)
    always(studio, 500, bad)
    for _ in range(5):
        desk.overdue("due")
        desk.steps()
    assert sum(text.startswith("new") for text in studio.texts()) == 20
    assert {count for path, count in patched(studio).items() if int(path.split("/")[3]) not in bad} == {1}
    assert desk.report()["code"] == "server_error"


@pytest.mark.parametrize("status", [0, 401, 403, 429])
def test_what_is_about_no_task_ends_the_round(studio: Little, delivery: LabelStudioDelivery, status: int) -> None:
    """Where there is no answer, or one about the token or about too much, no other task is asked for; what was made
    before is told."""
    made = send(delivery, [item(1), item(2), item(3)])
    always(studio, status, [2])
    changes = [Change(item(n, f"new {n}", 2), made[n], delete=False) for n in (1, 2, 3)]
    with pytest.raises(ChangesFailed) as caught:
        delivery.change(changes, CHANGED, Patience(), MOST)
    assert (caught.value.made, caught.value.last) == ({1: ("done", "")}, 2)
    assert studio.count("GET", "/api/tasks/3/") == 0


@pytest.mark.parametrize(
    ("status", "told", "waits"),
    [(429, {"Retry_After": "100"}, 50.0), (503, {"Retry_After": "100"}, 50.0), (429, {}, 0.0), (403, {}, 0.0)],
)
def test_what_was_made_before_the_remote_asks_for_time(
    bench: Bench, studio: Little, delivery: LabelStudioDelivery, status: int, told: dict[str, str], waits: float
) -> None:
    """Where the remote names a time after some changes, or takes no more, those are written; nothing is asked before
    that time, or the back-off, is over."""
    desk = revised(bench, delivery, 5)
    always(studio, status, [3], **told)
    desk.steps()
    asked = len(studio.asked)
    desk.steps()
    report = desk.report()
    assert (report["updated"], report["failing"], len(studio.asked)) == (2, 1, asked)
    assert report["due"] > desk.bench.ledger.now() + waits
    studio.spoils.clear()
    desk.overdue("due")
    desk.steps()
    assert patched(studio) == {f"/api/tasks/{n}/": 1 + (n == 3) for n in range(1, 6)}


REFUSED: dict[str, tuple[str, bool]] = {
    "PATCH": ("/api/tasks/1/", False), "DELETE": ("/api/tasks/1/", True), "POST": ("/api/predictions/", False),
}  # fmt: skip


@pytest.mark.parametrize("method", REFUSED)
@pytest.mark.parametrize("status", [400, 406, 409, 410, 413, 415, 422, 423, 451])
def test_a_change_that_is_refused_is_kept(
    studio: Little, delivery: LabelStudioDelivery, method: str, status: int
) -> None:
    """What is answered of one task alone sets its change aside, with the reason."""
    made = send(delivery, [item(1)])
    path, delete = REFUSED[method]
    studio.spoils.append((method, path, instead(Answer.of(status, {"detail": "what a pity"}))))
    change = Change(item(1, "new", 2, predictions=[choice("b")]), made[1], delete=delete)
    assert delivery.change([change], CHANGED, Patience(), MOST) == {1: ("kept", "what a pity")}
    assert (studio.texts(), studio.tasks[1]["predictions"]) == (["text 1"], [])


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/predictions/"), ("PATCH", "/api/tasks/1/")])
def test_a_change_that_is_refused_keeps_the_predictions(
    studio: Little, delivery: LabelStudioDelivery, method: str, path: str
) -> None:
    """Where a part of an update is refused, the task has the data and the predictions that it had, and no others; once
    it is taken, the new ones alone."""
    made = send(delivery, [item(1)])
    old = [{"id": 50, **choice("a", score=0.5)}]
    studio.tasks[1]["predictions"] = list(old)
    change = Change(item(1, "new", 2, predictions=[choice("b"), choice("a")]), made[1], delete=False)
    first_taken = [(method, path, lambda through: through())] * (method == "POST")
    studio.spoils += [*first_taken, (method, path, instead(Answer.of(400, {"detail": "what a pity"})))]
    assert delivery.change([change], CHANGED, Patience(), MOST) == {1: ("kept", "what a pity")}
    assert studio.spoils == []
    assert (studio.texts(), studio.tasks[1]["predictions"]) == (["text 1"], old)
    assert delivery.change([change], CHANGED, Patience(), MOST) == {1: ("done", "")}
    found = [one["result"] for one in studio.tasks[1]["predictions"]]
    assert (studio.texts(), found) == (["new"], [choice("b")["result"], choice("a")["result"]])


def test_files_tell_what_has_come_back(bench: Bench, tmp_path: Path) -> None:
    """Whoever reads the files by `order` has the tasks that are live here after each of several archivals and returns,
    also after a deletion of which nobody heard the end; no two files have one number."""
    desk = Desk(bench, delete_remote=True)
    delivery = JsonLinesDelivery(JsonLines(url="out"), tmp_path)
    desk.outlet = desk.outlet._replace(delivery=delivery)
    desk.sender = desk.another()
    root = tmp_path / "out"
    room = FileRoom(
        delivery, lambda: {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.json*")}
    )
    bench.imported("a", texts=("one", "two"))
    desk.steps()
    for _ in range(4):
        archived(bench)
        desk.steps()
        assert room.held() == {}
        restored(bench)
        desk.steps()
        assert [data["text"] for data in room.held().values()] == ["one", "two"]
    archived(bench)
    desk.step()
    changes = desk.ledger.changes(desk.row.id, 10)
    lost = desk.granted()
    assert lost is not None
    grant = desk.ledger.start(lost.delivery, lost.lease, "lost", 60.0)
    assert grant is not None
    delivery.change(changes, f"{grant.stamp}-{grant.number}", Patience(), MOST)
    assert room.held() == {}
    desk.overdue("until")
    restored(bench)
    desk.steps()
    assert [data["text"] for data in room.held().values()] == ["one", "two"]
    lines = [json.loads(line) for path in root.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {line["revision"] for line in lines} == {1}
    assert len(lines) == len({(line["id"], line["order"]) for line in lines})


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
    files = [path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl") if b'"revision":2' in path.read_bytes()]
    assert len(files) > 1
    assert max(map(len, files)) <= 2048
    told = [json.loads(line)["data"]["text"] for file in files for line in file.splitlines()]
    assert sorted(told) == sorted(new)
    assert desk.report()["updated"] == 20
