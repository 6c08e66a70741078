"""What deliveries promise of tasks that come back while the remote is told to delete them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pipeline.errors import UnavailableError
from pipeline.ledger import Outcome
from pipeline.ledger.deliveries import Change, ChangeOutcome
from tests.deliveries.desk import Desk
from tests.ledger.bench import Bench, done

TASKS = 150
"""More than one grant's changes."""
TEXTS = tuple(f"t{number:03}" for number in range(TASKS))
Making = Callable[[], Mapping[int, tuple[ChangeOutcome, str]]]


class Died(BaseException):
    """As SIGKILL: nothing of ours catches it."""


def archived(bench: Bench) -> None:
    """The file is gone."""
    bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), kind="deleted", version=None)


def restored(bench: Bench) -> None:
    """The file is there again, as it was."""
    bench.again("a", lambda work: done(work, (), version="v1", mode="unchanged"), version="v1")


def replaced(bench: Bench) -> None:
    """The file has a new version, of which each task is another."""
    bench.policy["inbox"] = "replace"
    bench.again("a", lambda work: done(work, [text.upper() for text in TEXTS], mode="replace"), version="v2")


def deleting(bench: Bench) -> Desk:
    """A delivery that has delivered the tasks of one file, which is gone since; their deletion is due."""
    desk = Desk(bench, delete_remote=True)
    bench.imported("a", texts=TEXTS)
    desk.steps()
    archived(bench)
    desk.step()
    assert (desk.report()["changes"], len(desk.remote.tasks)) == (True, TASKS)
    return desk


def around(desk: Desk, act: Callable[[Making], Mapping[int, tuple[ChangeOutcome, str]]]) -> None:
    """Let the next changes be made by `act`, which gets what makes them."""
    change = desk.remote.change

    def once(
        changes: Sequence[Change], name: str, ready: Callable[[], None], most: int
    ) -> Mapping[int, tuple[ChangeOutcome, str]]:
        desk.remote.change = change  # type: ignore[method-assign]
        return act(lambda: change(changes, name, ready, most))

    desk.remote.change = once  # type: ignore[method-assign]


def switched(desk: Desk, *, delete: bool) -> None:
    """Started again with another `delete_remote`."""
    desk.outlet = desk.outlet._replace(delete_remote=delete)
    desk.sender = desk.another()


class ReturnsContract:
    """Whatever comes first, what is live here is there in the end, once, and nothing is left to do."""

    def ended(self, desk: Desk, texts: Sequence[str] = TEXTS) -> None:
        """Go on to the end: the remote has these."""
        for _ in range(2):
            desk.overdue("due")
            desk.steps()
        report = desk.report()
        assert (report["waiting_tasks"], report["changes"], report["failing"]) == (0, False, 0)
        assert desk.remote.texts() == sorted(texts)
        assert desk.bench.execute("SELECT count(*), count(DISTINCT remote_id) FROM delivered WHERE state = 'done'") == [
            (len(texts), len(texts))
        ]

    @pytest.mark.parametrize("grants", [0, 1, 2])
    def test_what_comes_back_is_not_deleted(self, bench: Bench, grants: int) -> None:
        """Tasks that come back before all of them were deleted there are all there: those that were deleted anew, the
        others as they were."""
        desk = deleting(bench)
        for _ in range(grants):
            desk.step()
        there = dict(desk.remote.tasks)
        assert len(there) == max(TASKS - 100 * grants, 0)
        restored(bench)
        self.ended(desk)
        assert there.items() <= desk.remote.tasks.items()

    def test_what_comes_back_while_it_is_deleted(self, bench: Bench) -> None:
        """Tasks that come back after a sender was given their deletion are sent anew."""
        desk = deleting(bench)

        def meanwhile(make: Making) -> Mapping[int, tuple[ChangeOutcome, str]]:
            restored(bench)
            return make()

        around(desk, meanwhile)
        self.ended(desk)
        assert desk.report()["delivered"] == TASKS + 100

    @pytest.mark.parametrize("error", [UnavailableError("down"), Died()])
    @pytest.mark.parametrize("new", [False, True])
    def test_what_was_deleted_though_nobody_said_so(self, bench: Bench, error: BaseException, new: bool) -> None:
        """Tasks that come back after deletions of which nobody heard the end are there in their newest version."""
        desk = deleting(bench)

        def lost(make: Making) -> Mapping[int, tuple[ChangeOutcome, str]]:
            make()
            raise error

        around(desk, lost)
        if isinstance(error, Died):
            with pytest.raises(Died):
                desk.step()
            desk.overdue("until")
        else:
            desk.step()
        assert len(desk.remote.tasks) == TASKS - 100
        restored(bench)
        if new:
            replaced(bench)
        self.ended(desk, [text.upper() for text in TEXTS] if new else TEXTS)

    def test_what_goes_again_is_deleted(self, bench: Bench) -> None:
        """Tasks that come back and are archived once more are deleted."""
        desk = deleting(bench)
        desk.step()
        restored(bench)
        desk.step()
        archived(bench)
        self.ended(desk, ())

    def test_what_somebody_deleted_there_stays_deleted(self, bench: Bench) -> None:
        """A task that was deleted there by somebody, and has changed here since, is not sent again."""
        desk = Desk(bench, delete_remote=True)
        bench.imported("a", texts=TEXTS)
        desk.steps()
        desk.remote.tasks.popitem()
        replaced(bench)
        self.ended(desk, [text.upper() for text in TEXTS[:-1]])

    def test_what_may_not_be_deleted_any_more_stays(self, bench: Bench) -> None:
        """Deletions that are due when `delete_remote` is turned off are not made, but told as kept, with the reason,
        also once it is on again; what goes from then on is deleted."""
        desk = deleting(bench)
        desk.step()
        switched(desk, delete=False)
        desk.steps()
        report = desk.report()
        assert (report["changes"], report["deleted"], report["kept"]) == (False, 100, TASKS - 100)
        reasons = bench.execute("SELECT reason, count(*) FROM deliveries_of_tasks WHERE state = 'done' GROUP BY reason")
        assert reasons == [("not deleted: delete_remote is off", TASKS - 100)]
        switched(desk, delete=True)
        desk.steps()
        assert len(desk.remote.tasks) == TASKS - 100
        restored(bench)
        desk.steps()
        assert desk.remote.texts() == list(TEXTS)
        archived(bench)
        self.ended(desk, ())

    def test_updates_go_on_beside_deletions_that_are_not_made(self, bench: Bench) -> None:
        """Deletions that may not be made hold up no update, and are not tried while the remote is away."""
        desk = deleting(bench)
        bench.imported("b", texts=("one",))
        desk.steps()
        bench.policy["inbox"] = "replace"
        bench.again("b", lambda work: done(work, ("two",), mode="replace"), version="v2")
        restored(bench)
        desk.steps()
        archived(bench)
        bench.again("b", lambda work: done(work, ("three",), mode="replace"), version="v3")
        desk.step()
        switched(desk, delete=False)
        there = len(desk.remote.tasks)

        def away(make: Making) -> Mapping[int, tuple[ChangeOutcome, str]]:
            raise UnavailableError("down")

        around(desk, away)
        desk.steps()
        assert (desk.report()["failing"], desk.report()["code"]) == (1, "unavailable")
        desk.overdue("due")
        desk.steps()
        assert (desk.report()["changes"], len(desk.remote.tasks)) == (False, there)
        assert "three" in desk.remote.texts()

    @pytest.mark.parametrize("new", [False, True])
    def test_what_was_deleted_unheard_before_it_was_forbidden(self, bench: Bench, new: bool) -> None:
        """Tasks whose deletion was made unheard, before `delete_remote` was turned off, are there once they come
        back, and those that were changed as they are now."""
        desk = deleting(bench)

        def lost(make: Making) -> Mapping[int, tuple[ChangeOutcome, str]]:
            make()
            raise UnavailableError("down")

        around(desk, lost)
        desk.step()
        switched(desk, delete=False)
        desk.overdue("due")
        desk.steps()
        assert (len(desk.remote.tasks), desk.report()["kept"]) == (TASKS - 100, TASKS)
        restored(bench)
        if new:
            replaced(bench)
        self.ended(desk, [text.upper() for text in TEXTS] if new else TEXTS)
