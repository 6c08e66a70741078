"""What every ledger promises of tasks that carry annotations while their files change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.ledger import STAGE_ROWS, Outcome, RevisionFilter
from pipeline.tasks import Task
from tests.ledger.bench import Bench, done, task

LABELS = '[{"result": []}]'


def kept(text: str, row: int = 1) -> Task:
    """A task that somebody has labelled."""
    return task(text, row, annotations=LABELS)


class RevisionContract:
    @pytest.fixture(autouse=True)
    def replacing(self, bench: Bench) -> None:
        """The source replaces changed objects."""
        bench.policy["inbox"] = "replace"

    def change(self, bench: Bench, *tasks: str | Task, version: str = "v2", **columns: Any) -> None:
        """A new version of the file."""
        bench.again("a", lambda work: done(work, tasks, mode="replace", **columns), version=version)
        bench.check()

    def waiting(self, bench: Bench) -> list[dict[str, Any]]:
        """The revisions that wait to be decided on."""
        return bench.ledger.reports().revisions(RevisionFilter(), 0, 100)

    def proposed(self, bench: Bench) -> list[tuple[str, str]]:
        """What waits: the task's text now, and what it would be."""
        return [(json.loads(row["task_data"])["text"], json.loads(row["data"])["text"]) for row in self.waiting(bench)]

    def states(self, bench: Bench) -> list[str]:
        """The states of all revisions there ever were."""
        return [row["state"] for row in bench.ledger.reports().revisions(RevisionFilter(decided=True), 0, 100)]

    def numbers(self, bench: Bench) -> dict[str, int]:
        """The numbers of the live tasks, by their text."""
        found = bench.ledger.reports().object_tasks(bench.row("a")["id"], 100)
        return {json.loads(row["data"])["text"]: row["id"] for row in found}

    def test_an_annotated_task_is_never_overwritten(self, bench: Bench) -> None:
        """Its change is proposed; its neighbour's is written."""
        bench.imported("a", texts=(kept("x"), "y"))  # type: ignore[arg-type]
        before = bench.execute("SELECT id, data, annotations, revision FROM tasks WHERE annotations IS NOT NULL")
        self.change(bench, "X", "Y")

        assert bench.execute("SELECT id, data, annotations, revision FROM tasks WHERE id = 1") == before
        assert sorted(bench.texts("a")) == ["Y", "x"]
        (row,) = self.waiting(bench)
        assert (row["source"], row["key"], row["task_id"], row["version"]) == ("inbox", "a", before[0][0], "v2")
        assert (row["state"], row["decided_at"], row["annotations"]) == ("proposed", None, None)
        assert (self.proposed(bench), json.loads(row["task_annotations"])) == ([("x", "X")], json.loads(LABELS))
        shown = {row["name"]: row["revisions"] for row in bench.ledger.reports().sources()}
        assert shown == {"inbox": 1, "bucket": 0}

    def test_an_empty_list_is_no_annotation(self, bench: Bench) -> None:
        """A task whose list of annotations is empty is updated as any other."""
        bench.imported("a", texts=(task("x", annotations="[ ]"),))  # type: ignore[arg-type]
        self.change(bench, "X")
        assert (bench.texts("a"), self.proposed(bench)) == (["X"], [])

    def test_accepting(self, bench: Bench) -> None:
        """The task becomes exactly what was proposed, keeps its number, and what it was is kept with the revision."""
        bench.imported("a", texts=(kept("x"),))  # type: ignore[arg-type]
        number = self.numbers(bench)["x"]
        self.change(bench, Task(1, '{"text":"X"}', meta='{"m":1}', external_id="7"))
        (row,) = self.waiting(bench)

        assert bench.ledger.decide([row["id"]], accept=True) == {}
        assert bench.execute("SELECT id, external_id, annotations, revision FROM tasks") == [(number, "7", None, 2)]
        assert bench.texts("a") == ["X"]
        assert (self.proposed(bench), self.states(bench)) == ([], ["accepted"])
        ((was,),) = bench.execute("SELECT replaced FROM revisions")
        assert '"x"' in str(was).replace("'", '"')
        assert bench.ledger.reports().history(row["object_id"])[-1]["decision"] == "accepted"

        self.change(bench, Task(1, '{"text":"X"}', meta='{"m":1}', external_id="7"), version="v3")
        assert self.states(bench) == ["accepted"]

    def test_what_was_accepted_long_ago_is_proposed_again(self, bench: Bench) -> None:
        """An accepted content says nothing of a later change back to it."""
        bench.imported("a", texts=(kept("x"),))  # type: ignore[arg-type]
        self.change(bench, "X")
        assert bench.ledger.decide([self.waiting(bench)[0]["id"]], accept=True) == {}
        self.change(bench, kept("z"), version="v3")
        self.change(bench, "X", version="v4")
        assert (bench.texts("a"), self.proposed(bench)) == (["z"], [("z", "X")])

    def test_rejecting(self, bench: Bench) -> None:
        """The task stays, and what was rejected is not proposed again; another change is."""
        bench.imported("a", texts=(kept("x"), "y"))  # type: ignore[arg-type]
        self.change(bench, "X", "y")
        (row,) = self.waiting(bench)
        assert bench.ledger.decide([row["id"]], accept=False) == {}
        assert sorted(bench.texts("a")) == ["x", "y"]

        self.change(bench, "X", "Y", version="v3")
        assert (self.proposed(bench), sorted(bench.texts("a"))) == ([], ["Y", "x"])
        self.change(bench, "XX", "Y", version="v4")
        assert (self.proposed(bench), self.states(bench)) == ([("x", "XX")], ["rejected", "proposed"])

    def test_deciding_twice(self, bench: Bench) -> None:
        """What was decided on, what is not there and what is archived is refused with its reason."""
        bench.imported("a", texts=(kept("x"), kept("y")))  # type: ignore[arg-type]
        self.change(bench, "X", "Y")
        first, second = (row["id"] for row in self.waiting(bench))
        assert bench.ledger.decide([first], accept=False) == {}
        bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), kind="deleted", version=None)

        refused = bench.ledger.decide([first, second, 999], accept=True)
        assert set(refused) == {first, second, 999}
        assert ("rejected" in refused[first], "archived" in refused[second]) == (True, True)
        assert self.waiting(bench) == []

    def test_the_newest_change_is_what_is_proposed(self, bench: Bench) -> None:
        """A further version takes the proposal's place; the first content again withdraws it."""
        bench.imported("a", texts=(kept("x"),))  # type: ignore[arg-type]
        self.change(bench, "X")
        self.change(bench, "XX", version="v3")
        assert (self.proposed(bench), self.states(bench)) == ([("x", "XX")], ["withdrawn", "proposed"])
        self.change(bench, kept("x"), version="v4")
        assert (self.proposed(bench), self.states(bench)) == ([], ["withdrawn", "withdrawn"])

    def test_it_is_known_again_by_what_was_proposed(self, bench: Bench) -> None:
        """A row put in above an undecided one changes nothing: it is the same task with the same proposal."""
        bench.imported("a", texts=(kept("x"), "y"))  # type: ignore[arg-type]
        self.change(bench, "X", "y")
        before = self.numbers(bench)
        self.change(bench, "top", "X", "y", version="v3")

        after = self.numbers(bench)
        assert {text: after[text] for text in before} == before
        assert (self.proposed(bench), self.states(bench)) == ([("x", "X")], ["proposed"])
        self.change(bench, "top", "Z", "y", version="v4")
        assert self.numbers(bench) == after
        assert self.proposed(bench) == [("x", "Z")]

    def test_rows_are_matched_where_they_stand_now(self, bench: Bench) -> None:
        """After a row was put in at the top, a change below is still the same task's."""
        bench.imported("a", texts=("x", "y", "z"))
        before = self.numbers(bench)
        self.change(bench, "top", "x", "y", "z")
        self.change(bench, "top", "x", "Y", "z", version="v3")

        after = self.numbers(bench)
        assert (after["x"], after["Y"], after["z"]) == (before["x"], before["y"], before["z"])

    def test_a_row_that_vanished_is_archived_with_its_proposal(self, bench: Bench) -> None:
        """An annotated task whose row is no more is archived, not deleted; nothing of it is left to decide on."""
        bench.imported("a", texts=(kept("x"), "y"))  # type: ignore[arg-type]
        self.change(bench, "X", "y")
        self.change(bench, "y", version="v3")
        assert (bench.texts("a"), self.proposed(bench), bench.count("task_rows")) == (["y"], [], 2)
        assert bench.execute("SELECT count(*) FROM task_rows WHERE annotations IS NOT NULL") == [(1,)]

    def test_known_by_their_key(self, bench: Bench) -> None:
        """With `row_key` the proposal is that of the row with the same key, wherever it stands."""

        def row(number: int, text: str, **parts: str) -> Task:
            return Task(number, f'{{"id":{number},"text":"{text}"}}', **parts)

        bench.imported("a", texts=(row(1, "x", annotations=LABELS), row(2, "y")), row_key="id")  # type: ignore[arg-type]
        self.change(bench, row(3, "n"), row(2, "Y"), row(1, "X"), row_key="id")
        assert sorted(bench.execute("SELECT position FROM tasks")) == [(0,), (1,), (2,)]
        assert self.proposed(bench) == [("x", "X")]

    @pytest.mark.parametrize("keyed", [True, False])
    @pytest.mark.parametrize("staged", [True, False])
    def test_a_large_file_keeps_its_annotated_tasks(self, bench: Bench, staged: bool, keyed: bool) -> None:
        """Where all rows are replaced as a whole, annotated tasks stay themselves, with their numbers."""
        count = 6 if staged else STAGE_ROWS + 1
        row_key = "text" if keyed else None
        old: Sequence[Task] = [kept(f"r{n}", n) if n in (1, 3, 5) else task(f"r{n}", n) for n in range(1, count + 1)]
        bench.imported("a", texts=old, row_key=row_key)  # type: ignore[arg-type]
        before = dict(bench.execute("SELECT row, id FROM tasks"))
        # The first is changed, the third the same but one further down, the fifth no more.
        changed = Task(1, '{"text":"r1","more":1}') if keyed else task("changed", 1)
        new = [changed, task("top", 2), task("r2", 3), kept("r3", 4), task("r4", 5)]

        def replace(work: Any) -> Outcome:
            if not staged:
                return done(work, new, mode="replace", row_key=row_key)
            ((lease,),) = bench.execute("SELECT max(id) FROM leases")
            bench.ledger.stage(lease, work.id, 0, new[:2], [])()
            bench.ledger.stage(lease, work.id, 2, new[2:], [])()
            return Outcome(
                work.id, "done", work.wanted, mode="replace", task_count=5, staged=True, shape="h", row_key=row_key
            )

        bench.again("a", replace, version="v2")
        bench.check()
        shown = [(row["position"], json.loads(row["data"])["text"]) for row in
                 bench.ledger.reports().object_tasks(bench.row("a")["id"], 100)]  # fmt: skip
        assert shown == [(0, "r1"), (1, "top"), (2, "r2"), (3, "r3"), (4, "r4")]
        after = dict(bench.execute("SELECT position, id FROM tasks"))
        assert (after[0], after[3]) == (before[1], before[3])
        ((data,),) = [(row["data"],) for row in self.waiting(bench)]
        assert json.loads(data) == json.loads(changed.data)
        assert bench.execute("SELECT count(*) FROM task_rows WHERE row = 5 AND annotations IS NOT NULL") == [(1,)]
