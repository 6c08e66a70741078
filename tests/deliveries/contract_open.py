"""What every ledger promises of tasks that are labelled in the remote of a delivery: how many are open at most."""

from __future__ import annotations

import pytest

from pipeline.errors import BatchUnsure, UnavailableError
from pipeline.ledger import Outcome
from pipeline.ledger.labelling import COUNT_SECONDS, LABELLED, OpenThere
from tests.deliveries.desk import CATS, Desk, raising
from tests.ledger.bench import Bench


class OpenContract:
    """Counts of a remote, and what is taken for open between them."""

    @pytest.fixture
    def desk(self, bench: Bench) -> Desk:
        """A delivery whose remote is counted. It has a task that somebody else has put there."""
        made = Desk(bench)
        bench.execute(f"UPDATE deliveries SET kind = '{LABELLED}'")
        made.counted = frozenset({made.row.name})
        made.remote.tasks["of others"] = ("", 0, b'{"text":"other"}')
        return made

    @staticmethod
    def found(desk: Desk, project: str = "cats") -> OpenThere:
        """What the ledger has."""
        return desk.bench.ledger.reports().open_there(project)._replace(live=0)

    def test_labelled_tasks_are_open_no_more(self, desk: Desk) -> None:
        """What is open is what the remote said, and all that was delivered since or waits for its delivery; once it is
        counted again, what was labelled there is not."""
        desk.steps()
        assert self.found(desk) == OpenThere(1, 0, settled=True)
        desk.bench.imported("a", texts=("x", "y", "z"))
        assert self.found(desk) == OpenThere(4, 3, settled=True)
        desk.steps()
        assert len(desk.remote.tasks) == 4
        desk.remote.annotated |= set(list(desk.remote.tasks)[:2])
        assert self.found(desk).open == 4
        desk.overdue("count_due")
        assert self.found(desk) == OpenThere(4, 3, settled=False)
        assert desk.step()
        assert self.found(desk) == OpenThere(2, 3, settled=True)
        assert not desk.step()
        assert desk.report()["open_there"] == 2

    def test_nothing_is_known_before_the_first_count(self, desk: Desk) -> None:
        """Before its first count nobody knows what is open in a remote; and of nothing where nobody labels."""
        assert self.found(desk) == OpenThere(None, 0, settled=False)
        assert self.found(desk, "dogs").open is None
        assert self.found(desk, "nobody").open is None

    def test_what_was_there_before_a_delivery_is_not_overlooked(self, bench: Bench) -> None:
        """As long as not all that was imported before is known to wait for a new delivery, it is not known how much is
        open, even if the remote was counted."""
        bench.imported("a", texts=("x", "y"))
        desk = Desk(bench)
        bench.execute(f"UPDATE deliveries SET kind = '{LABELLED}', open_there = 5, open_delivered = 0")
        assert self.found(desk).open is None
        assert desk.granted() is not None
        assert self.found(desk).open == 7

    def test_a_count_that_fails_holds_up_no_import(self, desk: Desk) -> None:
        """A remote that does not tell is asked again later, with its reason for people; what it said before goes on to
        count, and deliveries go on."""
        desk.steps()
        desk.overdue("count_due")
        desk.remote.counting = [UnavailableError("it is away", code="server_error", retry_after=1000.0)]
        assert desk.step()
        assert self.found(desk) == OpenThere(1, 0, settled=True)
        report = desk.report()
        assert (report["uncounted"], report["failing"]) == ("it is away", 0)
        desk.bench.imported("a", texts=("x",))
        desk.steps()
        assert "x" in desk.remote.texts()
        assert self.found(desk).open == 2
        assert desk.load().count_due - self.now(desk) == pytest.approx(1000.0, abs=100.0)
        desk.overdue("count_due")
        assert desk.step()
        assert desk.report()["uncounted"] is None
        assert desk.load().count_due - self.now(desk) == pytest.approx(COUNT_SECONDS, abs=5.0)

    @staticmethod
    def now(desk: Desk) -> float:
        """The clock that deliveries go by."""
        return float(desk.bench.tick(lambda tick: tick.deliveries().now()))

    def test_a_count_under_a_grant_that_has_ended_is_not_kept(self, desk: Desk) -> None:
        """A sender that was stopped between the answer and writing it down writes nothing: more may have arrived."""
        granted = desk.granted()
        assert granted is not None
        desk.ledger.start(granted.delivery, granted.lease, "sender", 60.0)
        desk.overdue("until")
        desk.granted()
        assert not desk.ledger.counted(granted.delivery, granted.lease, 0)
        assert self.found(desk).open is None

    def test_a_count_that_nobody_ends_leaves_others_their_turn(self, desk: Desk) -> None:
        """While a remote is about to be counted nobody goes by what it said before; and where nobody does it, as a
        process of an older version, it is tried again only after what else is due."""
        desk.steps()
        desk.overdue("count_due")
        assert desk.granted() is not None
        assert not self.found(desk).settled
        desk.overdue("until")
        assert desk.granted() is None
        assert not self.found(desk).settled
        desk.bench.imported("a", texts=("x",))
        assert desk.steps() == 1
        assert "x" in desk.remote.texts()

    def test_what_is_deleted_there_is_counted_anew(self, desk: Desk) -> None:
        """Once tasks were deleted in a remote, what it said before holds no more."""
        desk.outlet = desk.outlet._replace(delete_remote=True)
        desk.sender = desk.another()
        desk.bench.imported("a", texts=("x",))
        desk.steps()
        assert self.found(desk).open == 2
        desk.bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), version=None)
        desk.steps()
        assert self.found(desk) == OpenThere(1, 1, settled=True)

    def test_nothing_is_counted_beside_a_batch_that_may_arrive(self, desk: Desk) -> None:
        """While nobody knows whether a batch has arrived the remote is not counted: it would count twice, or not at
        all. Its tasks are taken for open."""
        desk.steps()
        desk.remote.after.append(raising(BatchUnsure("no answer", code="no_answer")))
        desk.bench.imported("a", texts=("x", "y"))
        assert desk.step()
        desk.overdue("count_due")
        assert self.found(desk) == OpenThere(3, 2, settled=True)
        assert not desk.step()
        desk.overdue("look_due")
        desk.steps()
        assert self.found(desk) == OpenThere(3, 2, settled=True)
        assert desk.load().batch is None

    def test_the_remote_with_most_counts(self, desk: Desk) -> None:
        """Of several remotes of a project the one with most open tasks counts, and none may be unknown; files and what
        is in no configuration any more do not count."""
        desk.steps()
        rows = [CATS._replace(name=name, target=name) for name in ("two", "files", "old")]
        desk.ledger.register([CATS._replace(kind=LABELLED), *rows])
        desk.ledger.register([CATS._replace(kind=LABELLED), *rows[:2]])
        desk.bench.execute(f"UPDATE deliveries SET kind = '{LABELLED}', backfill = NULL WHERE name IN ('two', 'old')")
        assert self.found(desk).open is None
        desk.bench.execute("UPDATE deliveries SET open_there = 9, open_delivered = 0 WHERE name = 'two'")
        assert self.found(desk).open == 9

    @pytest.mark.parametrize("how", ["delivery", "project"])
    def test_what_is_paused_is_not_counted(self, desk: Desk, how: str) -> None:
        """Nothing is asked for a delivery that is paused, and nobody has to wait for an answer."""
        desk.ledger.pause(desk.row.id) if how == "delivery" else desk.bench.ledger.pause_project("cats", paused=True)
        assert not desk.step()
        assert self.found(desk) == OpenThere(None, 0, settled=True)
