"""What the answers of a Label Studio prove of a batch, and what they don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from pipeline.errors import BatchRefused, BatchUnsure, LabelfeedError, LeaseLost, UnavailableError
from pipeline.sinks import Encoded
from pipeline.sinks.label_studio import LabelStudioDelivery
from pipeline.sinks.label_studio.client import Client
from pipeline.sinks.label_studio.delivery import FIND_PAGE
from tests.deliveries.contract_delivery import BATCH, item, send
from tests.deliveries.desk import Desk
from tests.deliveries.little import TOKEN, Little, after, instead, little
from tests.deliveries.wire import Answer, Spoil
from tests.ledger.bench import Bench

PERSONAL = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"
NO = {"detail": "no"}


@pytest.fixture
def studio() -> Iterator[Little]:
    """A stand-in for a Label Studio."""
    with little() as made:
        yield made


@pytest.fixture
def desk(sqlite_bench: Bench, studio: Little) -> Iterator[Desk]:
    """A delivery into it, of which what nobody answered for settles late."""
    made = Desk(sqlite_bench, settle=1000)
    with closing(studio.delivery()) as delivery:
        made.outlet = made.outlet._replace(delivery=delivery)
        made.sender = made.another()
        yield made


def settled(desk: Desk) -> None:
    """Go on until a batch that was looked for is taken for absent, or is there."""
    for what in ("due", "look_due", "settled_at"):
        desk.overdue(what)
    desk.steps()


@pytest.mark.parametrize("status", [400, 405, 408, 409, 413, 422, 425, 431])
def test_a_refused_question_proves_nothing(desk: Desk, studio: Little, status: int) -> None:
    """Whatever a question for a batch that arrived is answered with, the batch is not sent again, nor set aside."""
    desk.bench.imported("a", texts=tuple("ab"))
    studio.spoils += [
        ("POST", "/import?", after(Answer.of(504, NO))),
        ("GET", "/api/tasks?", instead(Answer.of(status, NO))),
    ]
    desk.steps()
    settled(desk)
    assert studio.count("GET", "/api/tasks?") == 1
    settled(desk)
    settled(desk)
    assert studio.texts() == ["a", "b"]
    assert studio.count("POST", "/import?") == 1
    assert (desk.report()["delivered"], desk.report()["refused"]) == (2, 0)


@pytest.mark.parametrize("status", [400, 405, 409, 425])
def test_a_refused_question_for_an_import_proves_nothing(desk: Desk, studio: Little, status: int) -> None:
    """Whatever a question for an import that goes on behind its answer is answered with, right away and later, its
    tasks are there once."""
    desk.bench.imported("a", texts=tuple("ab"))
    studio.spoils += [
        ("POST", "/import?", after(Answer.of(201, {"import": 7}))),
        ("GET", "/imports/7/", instead(Answer.of(status, NO))),
        ("GET", "/imports/7/", instead(Answer.of(status, NO))),
    ]
    for _ in range(3):
        desk.steps()
        settled(desk)
    assert studio.texts() == ["a", "b"]
    assert studio.count("POST", "/import?") == 1
    assert (desk.report()["delivered"], desk.report()["refused"]) == (2, 0)


ANSWERED: dict[type[LabelfeedError], list[int]] = {
    BatchRefused: [400, 413, 422],
    UnavailableError: [401, 403, 404, 405, 407, 410, 411, 414, 415, 417, 421, 425, 426, 428, 429, 431, 451],
    BatchUnsure: [302, 402, 406, 408, 409, 412, 423, 424, 444, 460, 499, 500, 502, 503, 504],
}


@pytest.mark.parametrize("meant", ANSWERED)
def test_what_an_import_is_answered_with(studio: Little, meant: type[LabelfeedError]) -> None:
    """Of an import's answers three refuse the batch, others say that it was not looked into, and all that a proxy may
    say of what it has let through leave its arrival open."""
    found = {}
    with closing(studio.delivery()) as delivery:
        for status in ANSWERED[meant]:
            studio.spoils.append(("POST", "/import?", instead(Answer.of(status, NO))))
            with pytest.raises(LabelfeedError) as caught:
                send(delivery, [item(1)])
            found[status] = type(caught.value)
    assert found == dict.fromkeys(ANSWERED[meant], meant)


def test_an_answer_that_is_no_refusal_sets_nothing_aside(desk: Desk, studio: Little) -> None:
    """What is not about the tasks makes the delivery wait, with the reason, and then all of them arrive."""
    desk.bench.imported("a", texts=tuple("ab"))
    studio.spoils.append(
        ("POST", "/import?", instead(Answer.of(405, {"detail": "the proxy allows no POST"}, Retry_After="100")))
    )
    desk.steps()
    report = desk.report()
    assert (report["refused"], report["code"], report["waiting_tasks"]) == (0, "refused", 2)
    assert "the proxy allows no POST" in report["reason"]
    assert report["due"] > desk.bench.ledger.now() + 50
    desk.overdue("due")
    desk.steps()
    assert studio.texts() == ["a", "b"]


def test_a_token_that_is_refused_refuses_no_batch(studio: Little) -> None:
    """Whatever is answered when a token is exchanged, nothing is known of the tasks, and none goes out."""
    studio.spoils.append(("POST", "/api/token/refresh/", instead(Answer.of(400, {"refresh": [PERSONAL]}))))
    with closing(studio.delivery(PERSONAL)) as delivery, pytest.raises(UnavailableError) as caught:
        send(delivery, [item(1)])
    assert caught.value.code == "unauthorized"
    assert PERSONAL not in str(caught.value)
    assert studio.count("POST", "/import?") == 0


def failing(studio: Little, made: int) -> Spoil:
    """An import that is answered, and then fails after so many tasks."""

    def import_(through: Callable[[], Answer]) -> Answer:
        through()
        for number in sorted(studio.tasks)[made:]:
            del studio.tasks[number]
        studio.imports["7"] = {"id": 7, "status": "failed", "error": "the worker ran out of memory"}
        return Answer.of(201, {"import": 7})

    return import_


@pytest.mark.parametrize("made", [1, 2, 3])
def test_an_import_that_fails_half_way_is_completed(desk: Desk, studio: Little, made: int) -> None:
    """Of an import that fails behind its answer when some of its tasks are there, the others alone are sent again."""
    desk.bench.imported("a", texts=tuple("abc"))
    studio.spoils.append(("POST", "/import?", failing(studio, made)))
    desk.steps()
    assert desk.report()["refused"] == 0
    settled(desk)
    settled(desk)
    assert studio.texts() == ["a", "b", "c"]
    assert studio.count("POST", "/import?") == (1 if made == 3 else 2)
    assert (desk.report()["delivered"], desk.report()["refused"]) == (3, 0)


def test_an_import_that_fails_half_way_unobserved_is_completed(desk: Desk, studio: Little) -> None:
    """The same holds where it went on for longer than its sender waits, and has failed when it is looked for."""
    desk.bench.imported("a", texts=tuple("abc"))
    studio.spoils += [
        ("POST", "/import?", failing(studio, 2)),
        ("GET", "/imports/7/", instead(Answer.of(503, NO))),
    ]
    desk.steps()
    settled(desk)
    settled(desk)
    assert studio.texts() == ["a", "b", "c"]
    assert studio.count("POST", "/import?") == 2
    assert (desk.report()["delivered"], desk.report()["refused"]) == (3, 0)


def test_an_import_that_fails_with_nothing_there_is_refused(desk: Desk, studio: Little) -> None:
    """An import that fails behind its answer, also when its sender has left, is refused where nothing of it is there;
    where nobody can say what is there, it is asked for."""
    desk.bench.imported("a", texts=("a",))
    studio.spoils += [
        ("POST", "/import?", failing(studio, 0)),
        ("GET", "/api/tasks?", instead(Answer.of(503, NO))),
    ]
    desk.step()
    assert (desk.report()["batch"], desk.report()["refused"]) == ("unsure", 0)
    desk.overdue("look_due")
    desk.steps()
    assert studio.texts() == []
    assert studio.count("POST", "/import?") == 1
    (refused,) = desk.ledger.refused(desk.row.id, 0, 10)
    assert refused["reason"] == "the worker ran out of memory"


@pytest.mark.parametrize("made", [0, 2])
def test_an_import_that_goes_on_is_waited_for(sqlite_bench: Bench, studio: Little, made: int) -> None:
    """However much of an import is there, and whatever time has passed: while the Label Studio says that it goes on,
    nothing is sent again, and that is told; when it has ended, all of its tasks are there once."""
    desk = Desk(sqlite_bench, settle=0)
    desk.bench.imported("a", texts=tuple("abc"))
    rest: list[dict[str, Any]] = []

    def going(through: Callable[[], Answer]) -> Answer:
        through()
        rest.extend(studio.tasks.pop(number) for number in sorted(studio.tasks)[made:])
        studio.imports["7"] = {"id": 7, "status": "in_progress"}
        return Answer.of(201, {"import": 7})

    studio.spoils.append(("POST", "/import?", going))
    with closing(studio.delivery(timeout=1.0)) as delivery:
        desk.outlet = desk.outlet._replace(delivery=delivery)
        desk.sender = desk.another()
        for _ in range(3):
            desk.steps()
            desk.settled(1000)
            desk.overdue("look_due")
            desk.overdue("due")
        report = desk.report()
        assert (report["batch"], report["code"]) == ("unsure", "goes_on")
        assert report["reason"] == "import 7 goes on: in_progress"
        assert studio.count("POST", "/import?") == 1
        studio.make(rest)
        studio.imports["7"]["status"] = "completed"
        desk.steps()
    assert studio.texts() == ["a", "b", "c"]
    assert studio.count("POST", "/import?") == 1
    assert desk.report()["delivered"] == 3


def test_an_import_is_named_before_it_is_waited_for(studio: Little) -> None:
    """The name of an import that goes on behind its answer is told before the first question for it."""
    studio.imports["7"] = {"id": 7, "status": "completed", "task_ids": [1]}
    studio.spoils.append(("POST", "/import?", after(Answer.of(201, {"import": 7}))))
    named: list[tuple[str, int]] = []
    with closing(studio.delivery()) as delivery:
        tasks = [Encoded(1, delivery.encode(BATCH, item(1)))]
        made = delivery.send(BATCH, tasks, lambda: None, lambda name: named.append((name, len(studio.asked))))
    assert made == {1: "1"}
    assert named == [("7", 1)]
    assert studio.count("GET", "/imports/7/") == 1


def test_half_of_a_large_task_is_none(studio: Little) -> None:
    """A sender whose time is over while it sends one large task does not send the rest, and nothing is imported."""
    left = iter(range(4))

    def ready() -> None:
        if next(left, None) is None:
            raise LeaseLost("too late")

    with closing(studio.delivery()) as delivery:
        with pytest.raises(LeaseLost):
            delivery.send(BATCH, [Encoded(1, delivery.encode(BATCH, item(1, "x" * 1_000_000)))], ready)
        send(delivery, [item(2)])
    assert studio.texts() == ["text 2"]


def test_a_large_batch_is_looked_for_page_by_page(studio: Little) -> None:
    """Before each page of a batch's tasks whoever asks is told, and may break it off."""
    pages: list[int] = []

    def going() -> None:
        pages.append(studio.count("GET", "/api/tasks?"))
        if len(pages) > 3:
            raise LeaseLost("too late")

    with closing(studio.delivery()) as delivery:
        made = send(delivery, [item(n) for n in range(1, 2 * FIND_PAGE + 2)])
        assert delivery.find(BATCH, None, going) == made
        assert pages == [0, 1, 2]
        with pytest.raises(LeaseLost):
            delivery.find(BATCH, None, going)


def test_a_mark_that_somebody_has_changed_is_none_of_ours(studio: Little) -> None:
    """A task there whose mark is no number of ours, though it looks like one, is passed over."""
    with closing(studio.delivery()) as delivery:
        made = send(delivery, [item(1), item(2)])
        studio.tasks[int(made[2])]["meta"]["labelfeed"]["key"] = "\u00b2"
        assert delivery.find(BATCH, None) == {1: made[1]}


WAITS = {
    "120": 120.0, "0": 0.0, "9" * 400: 3600.0, "86400": 3600.0, "-5": None, "1_0": None, "inf": None,
    "nan": None, "": None, "Mon, 01 Jan 2001 00:00:00 GMT": 0.0, "Fri, 31 Dec 9999 23:59:59 GMT": 3600.0,
    "Fri, 31 Dec 99999999999999999999 23:59:59 GMT": None,
    "\u00b2": None, "\u0663": None,
}  # fmt: skip


@pytest.mark.parametrize("text", WAITS)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_how_long_an_answer_asks_to_wait(status: int, text: str) -> None:
    """Whatever an answer that asks for time says, it is a number of seconds, of an hour at most, or none."""
    raw = [(b"Retry-After", text.encode("latin-1" if text == "\u00b2" else "utf-8"))]
    transport = httpx.MockTransport(lambda request: httpx.Response(status, headers=raw))
    client = Client("http://studio", TOKEN, 5.0, transport=transport)
    with closing(client), pytest.raises(UnavailableError) as caught:
        client.ask("/")
    wait = caught.value.retry_after
    assert wait == (None if WAITS[text] is None else pytest.approx(WAITS[text], abs=1))


def test_a_refused_token_with_a_time_waits_for_it(desk: Desk, studio: Little) -> None:
    """A time that is named beside 403 is obeyed."""
    desk.bench.imported("a", texts=("a",))
    studio.spoils.append(("POST", "/import?", instead(Answer.of(403, NO, Retry_After="9999999"))))
    desk.steps()
    report = desk.report()
    assert report["code"] == "forbidden"
    assert 3000 < report["due"] - desk.bench.ledger.now() <= 3600
    desk.overdue("due")
    desk.steps()
    assert studio.texts() == ["a"]


def personal(desk: Desk, studio: Little) -> LabelStudioDelivery:
    """Its delivery with a personal access token, whose access has been asked for."""
    delivery = studio.delivery(PERSONAL)
    delivery.find(BATCH, None)
    desk.outlet = desk.outlet._replace(delivery=delivery)
    desk.sender = desk.another()
    return delivery


def test_an_import_with_a_token_that_has_ended_goes_out_with_another(desk: Desk, studio: Little) -> None:
    """An import whose access token is refused goes out again with a fresh one, and counts as one, without a failure."""
    desk.bench.imported("a", texts=("a",))
    with closing(personal(desk, studio)):
        studio.spoils.append(("POST", "/import?", instead(Answer.of(401, NO))))
        assert desk.step()
    report = desk.report()
    assert (report["delivered"], report["imports"], report["failing"]) == (1, 1, 0)
    assert studio.texts() == ["a"]
    assert [studio.count("POST", path) for path in ("/api/token/refresh/", "/import?")] == [2, 2]


def test_an_import_whose_tokens_are_refused_waits(desk: Desk, studio: Little) -> None:
    """Where a fresh token is refused, too, the delivery waits, and nothing goes out a third time."""
    desk.bench.imported("a", texts=("a",))
    with closing(personal(desk, studio)):
        studio.spoils += [("POST", "/import?", instead(Answer.of(401, NO)))] * 2
        desk.steps()
        assert (desk.report()["code"], desk.report()["batch"]) == ("unauthorized", "ready")
        assert studio.count("POST", "/import?") == 2
        desk.overdue("due")
        desk.steps()
    assert studio.texts() == ["a"]


def test_an_import_whose_token_is_exchanged_for_too_long_is_not_sent(studio: Little) -> None:
    """The import that goes out with a fresh token is held to the same time as the first one."""
    left = iter(range(3))

    def ready() -> None:
        if next(left, None) is None:
            raise LeaseLost("too late")

    with closing(studio.delivery(PERSONAL)) as delivery:
        studio.spoils.append(("POST", "/import?", instead(Answer.of(401, NO))))
        with pytest.raises(LeaseLost):
            delivery.send(BATCH, [Encoded(1, delivery.encode(BATCH, item(1)))], ready)
    assert studio.texts() == []
