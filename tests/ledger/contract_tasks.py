"""What every ledger promises of tasks that exist, and of the questions that people ask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.ledger import Filter, Mode, Outcome, Reason, Work
from pipeline.tasks import Task
from tests.ledger.bench import Bench, done, rejected, task


def with_mode(mode: Mode, texts: Sequence[str | Task] = (), **columns: Any) -> Any:
    """An outcome of this mode for whatever object it is."""
    return lambda work: done(work, texts, mode=mode, **columns)


class ReplaceContract:
    @pytest.fixture(autouse=True)
    def replacing(self, bench: Bench) -> None:
        """The source replaces changed objects."""
        bench.policy["inbox"] = "replace"

    def ids(self, bench: Bench, key: str = "a") -> dict[str, int]:
        """The numbers of an object's live tasks, by their text."""
        found = bench.ledger.reports().object_tasks(bench.row(key)["id"], 100)
        return {each["data"].split('"')[3]: each["id"] for each in found}

    def revisions(self, bench: Bench) -> dict[int, int]:
        """How often each task was rewritten."""
        return dict(bench.execute("SELECT id, revision FROM tasks"))

    def test_equal_rows_are_not_touched(self, bench: Bench) -> None:
        """A line put in at the top adds one task; the others keep number and revision."""
        bench.imported("a", texts=("x", "y"))
        before = self.ids(bench)
        bench.again("a", with_mode("replace", ["top", "x", "y"]), version="v2")

        after = self.ids(bench)
        assert {text: after[text] for text in before} == before
        assert set(after) == {"top", "x", "y"}
        assert set(self.revisions(bench).values()) == {1}
        assert bench.row("a")["imported_version"] == "v2"

    def test_changed_rows_keep_their_number(self, bench: Bench) -> None:
        """A row whose content changed in its place keeps its number, has a higher revision and the new version."""
        bench.imported("a", texts=("x", "y", "z"))
        before = self.ids(bench)
        bench.again("a", with_mode("replace", ["x", "Y", "z"]), version="v2")

        after = self.ids(bench)
        assert (after["Y"], after["x"], after["z"]) == (before["y"], before["x"], before["z"])
        assert self.revisions(bench) == {before["x"]: 1, before["y"]: 2, before["z"]: 1}
        versions = dict(bench.execute("SELECT id, version FROM tasks"))
        assert versions == {before["x"]: "v1", before["y"]: "v2", before["z"]: "v1"}

    def test_rows_are_known_by_their_key(self, bench: Bench) -> None:
        """With `row_key` a row is the same task wherever it stands and whatever else changed."""

        def row(number: int, text: str) -> Task:
            return Task(number, f'{{"id": {number}, "text":"{text}"}}')

        def numbers() -> dict[int, tuple[int, str]]:
            found = bench.ledger.reports().object_tasks(bench.row("a")["id"], 10)
            parsed = [(each["id"], json.loads(each["data"])) for each in found]
            return {data["id"]: (number, data["text"]) for number, data in parsed}

        bench.imported("a", texts=(row(1, "x"), row(2, "y"), row(3, "z")), row_key="id")  # type: ignore[arg-type]
        before = numbers()
        bench.again("a", with_mode("replace", [row(3, "Z"), row(1, "x"), row(4, "n")], row_key="id"), version="v2")

        after = numbers()
        assert after[1] == before[1]
        assert after[3] == (before[3][0], "Z")
        assert set(after) == {1, 3, 4}
        assert after[4][0] not in {number for number, _ in before.values()}

    def test_rows_that_went_are_archived(self, bench: Bench) -> None:
        """A task whose row is no more is not live, but its row stays in the database."""
        bench.imported("a", texts=("x", "y", "z"))
        bench.again("a", with_mode("replace", ["z"]), version="v2")
        assert bench.texts("a") == ["z"]
        assert bench.count("task_rows") == 3
        assert bench.row("a")["tasks"] == 1

    def test_many_versions(self, bench: Bench) -> None:
        """However often a file changes, its tasks are exactly its newest rows."""
        bench.imported("a", texts=("1", "2", "3", "4"))
        versions = [["2", "1"], ["5", "2", "1", "1"], [], ["1", "1", "2", "9"], ["9", "8", "7", "1", "2"]]
        for number, texts in enumerate(versions):
            mode: Mode = "replace" if bench.row("a")["tasks"] else "new"
            bench.again("a", with_mode(mode, texts), version=f"w{number}")
            assert sorted(bench.texts("a")) == sorted(texts)

    def test_rejected_rows_are_the_new_ones(self, bench: Bench) -> None:
        """Rejected rows of the replaced version go, also when there are as many."""
        bench.imported("a", texts=("x",), rejected=(rejected(2),))
        bench.again("a", with_mode("replace", ["x"], rejected=(rejected(5),)), version="v2")
        assert bench.execute("SELECT row FROM rejected") == [(5,)]

    def test_a_failed_new_version_leaves_the_old_tasks(self, bench: Bench) -> None:
        """The tasks of the imported version stay live, and the object shows both."""
        bench.imported("a")
        reason = Reason("syntax", "x")
        bench.again("a", lambda work: Outcome(work.id, "failed", "v2", reason=reason), version="v2")
        row = bench.row("a")
        assert (row["state"], row["version"], row["imported_version"], row["tasks"]) == ("failed", "v2", "v1", 1)
        assert bench.texts("a") == ["a"]

    def test_content_that_came_back(self, bench: Bench) -> None:
        """When the store holds the imported version again nothing is written."""
        bench.imported("a")
        bench.note("a", version="v2")
        bench.again("a", with_mode("unchanged"), version="v1")
        assert bench.texts("a") == ["a"]
        assert len(bench.ledger.reports().imports(1)) == 1

    def test_deleting_a_failed_object_with_tasks(self, bench: Bench) -> None:
        """The store is asked, so that tasks of the older version are archived if it is really gone."""
        bench.imported("a")
        bench.again("a", lambda work: Outcome(work.id, "failed", "v2", reason=Reason("syntax", "x")), version="v2")
        bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), kind="deleted", version=None)
        assert (bench.state("a"), bench.texts("a")) == ("gone", [])


class KeepContract:
    def gone(self, bench: Bench, key: str = "a", *, archive: bool = True) -> Work:
        """Delete an object."""
        return bench.again(key, lambda work: Outcome(work.id, "gone", archive=archive), kind="deleted", version=None)

    def test_append(self, bench: Bench) -> None:
        """Appending keeps the tasks that are there, with the version that each came from."""
        bench.policy["inbox"] = "append"
        bench.imported("a", texts=("x",), rejected=(rejected(1),))
        bench.again("a", with_mode("append", ["y"], rejected=(rejected(1),)), version="v2")
        assert bench.texts("a") == ["x", "y"]
        assert bench.execute("SELECT version FROM tasks ORDER BY id") == [("v1",), ("v2",)]
        assert (bench.row("a")["tasks"], bench.row("a")["rejected"], bench.count("rejected")) == (2, 2, 2)

    def test_a_version_that_was_never_appended(self, bench: Bench) -> None:
        """With `append` a version that was overwritten before it was read is counted, and makes no tasks."""
        bench.policy["inbox"] = "append"
        bench.imported("a", texts=("x",))
        assert bench.note("a", version="v2") == {"changed": 1}
        assert bench.note("a", version="v3") == {"superseded": 1}
        assert bench.note("a", version="v1") == {"superseded": 1}
        lease, (work,) = bench.begin("a", version="v4")
        bench.commit(lease, done(work, ["y"], mode="append"))
        assert (bench.texts("a"), bench.row("a")["version"]) == (["x", "y"], "v4")

    def test_archive_and_restore(self, bench: Bench) -> None:
        """What is deleted is archived; the same content again brings the very same tasks back."""
        bench.imported("a", texts=("x", "y"))
        before = bench.execute("SELECT id FROM tasks ORDER BY id")
        self.gone(bench)
        assert (bench.state("a"), bench.texts("a"), bench.row("a")["tasks"]) == ("gone", [], 0)

        work = bench.again("a", with_mode("unchanged"), version="v1")
        assert (work.imported, work.live) == ("v1", False)
        assert bench.execute("SELECT id FROM tasks ORDER BY id") == before
        assert bench.state("a") == "done"

    def test_keep(self, bench: Bench) -> None:
        """Without archiving, tasks of a deleted object stay live."""
        bench.imported("a")
        self.gone(bench, archive=False)
        assert (bench.state("a"), bench.texts("a")) == ("gone", ["a"])
        work = bench.again("a", with_mode("unchanged"), version="v1")
        assert work.live
        assert bench.texts("a") == ["a"]

    def test_replaced_while_archived(self, bench: Bench) -> None:
        """Tasks archived before another version came don't come back with that one."""
        bench.imported("a", texts=("old",))
        self.gone(bench)
        bench.again("a", with_mode("new", ["new"]), version="v2")
        assert bench.texts("a") == ["new"]
        self.gone(bench)
        bench.again("a", with_mode("unchanged"), version="v2")
        assert bench.texts("a") == ["new"]

    def test_ignored(self, bench: Bench) -> None:
        """A version that the policy leaves alone is noted once and changes no task."""
        bench.imported("a")
        bench.again("a", with_mode("ignored", version="v2"), version=None)
        row = bench.row("a")
        assert (row["version"], row["imported_version"], row["changes"], row["state"]) == ("v2", "v1", 1, "done")
        assert bench.texts("a") == ["a"]
        assert bench.note("a", version="v2") == {"duplicate": 1}

    def test_without_tasks(self, bench: Bench) -> None:
        """A file that holds no task is imported all the same."""
        bench.imported("a", texts=())
        assert (bench.state("a"), bench.row("a")["imported_version"]) == ("done", "v1")
        self.gone(bench)
        bench.again("a", with_mode("unchanged"), version="v1")
        assert bench.texts("a") == []


class ReportContract:
    def test_retry(self, bench: Bench) -> None:
        """Failed and skipped objects go back; done ones with force; others are refused with a reason."""
        lease, work = bench.begin("done", "failed", "gone", "running", "skipped")
        outcomes = [
            done(work[0]),
            Outcome(work[1].id, "failed", "v1", reason=Reason("syntax", "x")),
            Outcome(work[2].id, "gone"),
            Outcome(work[4].id, "skipped", "v1", reason=Reason("no_tasks", "x")),
        ]
        bench.commit(lease, *outcomes)
        bench.note("ready")
        ids = {key: bench.row(key)["id"] for key in ("done", "failed", "gone", "running", "skipped", "ready")}

        refused = bench.ledger.reports().retry([*ids.values(), 999], force=False)
        assert set(refused) == {ids["done"], ids["gone"], ids["running"], ids["ready"], 999}
        assert "--force" in refused[ids["done"]]
        assert "running" in refused[ids["running"]]
        assert (bench.state("failed"), bench.row("failed")["attempts"]) == ("ready", 0)
        assert bench.ledger.reports().retry([ids["done"]], force=True) == {}
        assert bench.ledger.reports().history(ids["done"])[-1]["kind"] == "retry"

    def test_redo(self, bench: Bench) -> None:
        """What is put back with force is imported again in its tasks' place, once."""
        bench.imported("a", texts=("x", "y"))
        bench.ledger.reports().retry([bench.row("a")["id"]], force=True)
        lease, (work,) = bench.begin()
        assert (work.redo, work.imported, work.live) == (True, "v1", True)
        bench.commit(lease, done(work, ["x", "z"], mode="replace"))
        assert sorted(bench.texts("a")) == ["x", "z"]
        bench.note("a", version=None)
        _, (work,) = bench.begin()
        assert not work.redo

    def test_objects_by_filter(self, bench: Bench) -> None:
        """Objects are found by source, by state as it is shown, and by reason, in pages by number."""
        lease, work = bench.begin("a", "b", "c", "d")
        bench.note("e", source="bucket")
        bench.commit(lease, Outcome(work[0].id, "failed", reason=Reason("syntax", "x")), done(work[1]))

        def keys(after: int = 0, limit: int = 10, **which: str) -> list[str]:
            return [row["key"] for row in bench.ledger.reports().objects(Filter(**which), after, limit)]

        assert keys() == ["a", "b", "c", "d", "e"]
        assert keys(after=work[0].id, limit=2) == ["b", "c"]
        assert keys(source="bucket") == ["e"]
        assert keys(state="failed") == keys(code="syntax") == ["a"]
        assert keys(state="running") == ["c", "d"]
        assert keys(state="claimed") == keys(state="retired") == keys(state="nonsense") == []
        bench.claims()
        assert keys(state="claimed", source="bucket") == ["e"]
        assert keys(code="unavailable") == []

    def test_find(self, bench: Bench) -> None:
        """An object is found by its key, in one source or in all."""
        bench.note("a")
        bench.note("a", source="bucket")
        reports = bench.ledger.reports()
        assert [row["source"] for row in reports.find(None, "a")] == ["inbox", "bucket"]
        assert [row["source"] for row in reports.find("bucket", "a")] == ["bucket"]
        assert reports.find("bucket", "b") == []

    def test_tasks_in_pages(self, bench: Bench) -> None:
        """Live tasks come by number, of one project or of all, their parts as JSON text."""
        full = task(
            "a", annotations='[{"id":1}]', predictions='[{"id":2}]', meta='{"m":1}', extra='{"x":1}', external_id="7"
        )
        bench.imported("a", texts=(full, "b", "c"))  # type: ignore[arg-type]
        lease, (work,) = bench.begin("z", source="bucket")
        bench.commit(lease, done(work, ["dog"]))
        reports = bench.ledger.reports()

        first = reports.tasks(None, 0, 2)
        second = reports.tasks(None, first[-1]["id"], 10)
        assert [json.loads(row["data"])["text"] for row in (*first, *second)] == ["a", "b", "c", "dog"]
        assert [row["source"] for row in reports.tasks("dogs", 0, 10)] == ["bucket"]
        assert reports.tasks("none", 0, 10) == []
        whole = {name: value for name, value in first[0].items() if name not in ("id", "data")}
        for name in ("annotations", "predictions", "meta", "extra"):
            whole[name] = json.loads(whole[name])
        assert whole == {
            "project": "cats", "source": "inbox", "key": "a", "version": "v1", "position": 0, "row": 1,
            "external_id": "7", "annotations": [{"id": 1}], "predictions": [{"id": 2}],
            "meta": {"m": 1}, "extra": {"x": 1},
        }  # fmt: skip
        assert first[1]["annotations"] is None

    def test_rejected_in_pages(self, bench: Bench) -> None:
        """Rejected rows come in order, a page at a time, by source and by reason."""
        bench.imported("a", rejected=(rejected(1), rejected(2, "nul")))
        bench.imported("b", rejected=(rejected(3),))
        reports = bench.ledger.reports()
        first = reports.rejected(Filter(), (0, 0, 0), 2)
        last = first[-1]
        second = reports.rejected(Filter(), (last["object_id"], last["lease"], last["n"]), 2)
        assert [row["row"] for row in (*first, *second)] == [1, 2, 3]
        assert (first[0]["source"], first[0]["key"], first[0]["line"], first[0]["column"]) == ("inbox", "a", 1, 2)
        assert (first[0]["code"], first[0]["message"], first[0]["excerpt"]) == ("syntax", "it is broken", "{")
        assert [row["row"] for row in reports.rejected(Filter(code="nul"), (0, 0, 0), 9)] == [2]
        assert reports.rejected(Filter(source="bucket"), (0, 0, 0), 9) == []

    def test_audit(self, bench: Bench) -> None:
        """Objects in key order, each with the tasks that are really there, whatever its row says."""
        bench.imported("b", texts=("x", "y"))
        bench.note("a")
        bench.execute("UPDATE objects SET tasks = 5 WHERE key = 'b'")
        reports = bench.ledger.reports()
        found = list(reports.audit(1, None, 10))
        assert [(each.key, each.state, each.imported, each.live, each.counted, each.imports) for each in found] == [
            ("a", "ready", None, 0, 0, 0),
            ("b", "done", "v1", 2, 5, 1),
        ]
        assert [each.key for each in reports.audit(1, "a", 10)] == ["b"]
        bench.execute("UPDATE objects SET tasks = 2 WHERE key = 'b'")

    def test_sources(self, bench: Bench) -> None:
        """Per source: objects by state, what was written, what waits longest, and when something ended."""
        lease, (first, *_) = bench.begin("a", "b")
        bench.commit(lease, done(first, ["x", "y"], rejected=(rejected(3),)))
        bench.note("c", "d")
        (inbox, bucket) = bench.ledger.reports().sources()

        counts = {name: inbox[name] for name in ("ready", "claimed", "running", "done", "failed", "tasks", "rejected")}
        assert counts == {"ready": 2, "claimed": 0, "running": 1, "done": 1, "failed": 0, "tasks": 2, "rejected": 1}
        assert (inbox["name"], inbox["project"], inbox["uri"], inbox["retired"]) == (
            "inbox", "cats", "file:///inbox", False,
        )  # fmt: skip
        assert (inbox["finished"], inbox["last_pass"]) == (1, None)
        assert abs(inbox["finished_at"] - bench.ledger.now()) < 60
        assert abs(inbox["oldest_ready"] - bench.ledger.now()) < 60
        assert (bucket["oldest_ready"], bucket["finished_at"], bucket["finished"]) == (None, None, 0)

    def test_history(self, bench: Bench) -> None:
        """Events that did something and attempts, oldest first, with what is known of each."""
        bench.policy["inbox"] = "replace"
        lease, (work,) = bench.begin("a")
        bench.commit(lease, Outcome(work.id, "ready", reason=Reason("unavailable", "x"), retry_after=0.0))
        bench.note("a", version="v2", id="e1", traceparent="00-1")
        (attempt, event) = bench.ledger.reports().history(work.id)
        assert (attempt["kind"], attempt["state"], attempt["reason"]["code"]) == ("attempt", "ready", "unavailable")
        assert attempt["lease"] == lease
        assert (event["kind"], event["effect"], event["event_id"], event["traceparent"]) == (
            "event",
            "changed",
            "e1",
            "00-1",
        )
        assert attempt["at"] <= event["at"]

    def test_views(self, bench: Bench) -> None:
        """Annotations and predictions can be queried one by one."""
        full = task("a", annotations='[{"id":1},{"id":2}]', predictions='[{"id":3}]')
        bench.imported("a", texts=(full, "b"))  # type: ignore[arg-type]
        found = bench.execute("SELECT project, source, key, n, annotation FROM annotations ORDER BY n")
        assert [row[:4] for row in found] == [("cats", "inbox", "a", 0), ("cats", "inbox", "a", 1)]
        assert bench.execute("SELECT project, n FROM predictions") == [("cats", 0)]

    def test_trace(self, bench: Bench) -> None:
        """An object and its work carry the trace of the event that made it ready last, where that has a valid one."""
        first, second = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"
        bench.note("a", traceparent=f"00-{first}-b7ad6b7169203331-01")
        lease, (work,) = bench.begin()
        bench.commit(lease, Outcome(work.id, "failed", "v1", reason=Reason("syntax", "x")))
        (row,) = bench.ledger.reports().find("inbox", "a")
        bench.note("a", version="v2", traceparent=f"00-{second}-b7ad6b7169203331-01")
        (changed,) = bench.ledger.reports().find("inbox", "a")
        bench.note("b", traceparent="00-no-trace-01")
        (other,) = bench.ledger.reports().find("inbox", "b")

        assert (work.trace, row["trace"], changed["trace"], other["trace"]) == (first, first, second, None)

    def test_miscounted(self, bench: Bench) -> None:
        """Counters agree with a count of the rows, and those that another hand moved are told, and put right."""
        bench.imported("a", texts=("x", "y"))
        bench.note("b", "c")
        right = bench.ledger.reports().miscounted()
        bench.execute("UPDATE objects SET state = 'skipped' WHERE key = 'b'")
        bench.execute("UPDATE objects SET tasks = 5 WHERE key = 'a'")

        wrong = bench.ledger.reports().miscounted()
        bench.execute("UPDATE objects SET tasks = 2 WHERE key = 'a'")
        recounted = bench.ledger.reports().recount()

        assert right == {}
        assert wrong == {"inbox": {"ready": (2, 1), "skipped": (0, 1), "tasks": (2, 5)}}
        assert recounted == {"inbox": {"ready": (2, 1), "skipped": (0, 1)}}
        assert bench.ledger.reports().miscounted() == {}
