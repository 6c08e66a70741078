"""What deliveries promise on every database: each task once, within the limits, whatever a remote answers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pipeline.consumers import deliverer
from pipeline.consumers.deliverer import ASK_SECONDS
from pipeline.errors import BatchRefused, BatchUnsure, UnavailableError, UsageError
from pipeline.ledger import Outcome
from pipeline.ledger.deliveries import FOLLOWED_SECONDS, PAGE_TASKS, Item
from pipeline.sinks import CHANGE_SECONDS, Encoded
from tests.deliveries.desk import CATS, Desk, raising
from tests.ledger.bench import EPOCH, Bench, done, task


class Unwritable:
    """What breaks off the transaction that is to write it, on either database."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    def __conform__(self, protocol: object) -> str:
        raise ZeroDivisionError


class OutboxContract:
    """What gets into the outbox, and out of it."""

    def test_each_task_arrives_once(self, bench: Bench) -> None:
        """All tasks of the project's sources arrive, those of other projects don't, and a second look sends nothing."""
        desk = Desk(bench)
        bench.imported("a", "b", texts=("x", "y"))
        bench.note("z", source="bucket")
        lease, (work,) = bench.begin()
        bench.commit(lease, done(work, ("not ours",)))

        desk.steps()

        assert desk.remote.texts() == ["x", "x", "y", "y"]
        assert not desk.step()
        assert desk.report()["delivered"] == 4
        assert bench.execute("SELECT count(DISTINCT remote_id) FROM delivered") == [(4,)]

    def test_no_outbox_without_a_delivery(self, bench: Bench) -> None:
        """A project without deliveries has no outbox."""
        bench.imported("a", texts=("x",))
        assert bench.count("outbox") == 0

    def test_a_late_delivery_gets_what_was_there(self, bench: Bench) -> None:
        """A delivery that is new to its project gets what was imported before."""
        bench.imported("a", "b", texts=("x",))
        desk = Desk(bench)
        bench.imported("c", texts=("y",))
        desk.steps()
        assert desk.remote.texts() == ["x", "x", "y"]

    def test_a_delivery_that_comes_back_gets_what_it_missed(self, bench: Bench) -> None:
        """What is committed while a delivery is in no configuration is delivered when it is back; nothing twice."""
        desk = Desk(bench)
        bench.imported("a", texts=("x",))
        desk.steps()
        desk.ledger.register([])
        bench.imported("b", texts=("y",))
        assert desk.ledger.register([CATS]) == [desk.row]
        desk.steps()
        assert desk.remote.texts() == ["x", "y"]

    def test_another_remote_needs_another_name(self, bench: Bench) -> None:
        """A known name that stands for another remote is refused."""
        desk = Desk(bench)
        with pytest.raises(UsageError, match="another name"):
            desk.ledger.register([CATS._replace(target="memory:2")])

    def test_a_large_file_is_split(self, bench: Bench) -> None:
        """No import holds more tasks than `tasks_per_import`, and files are split for it."""
        desk = Desk(bench, tasks_per_import=3)
        bench.imported("a", texts=tuple("abcdefgh"))
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [3, 3, 2]
        assert desk.remote.texts() == list("abcdefgh")

    def test_bytes_bound_an_import(self, bench: Bench) -> None:
        """No import is larger than `bytes_per_import`; a task that is larger by itself is set aside with the reason."""
        desk = Desk(bench, bytes_per_import=1024)
        bench.imported("a", texts=("x" * 400, "y" * 400, "z" * 400, "w" * 2000, "v" * 400))
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [2, 2]
        assert all(desk.remote.size(sum(map(len, each)), len(each)) <= 1024 for _, each in desk.remote.batches)
        (refused,) = desk.ledger.refused(desk.row.id, 0, 10)
        assert refused["reason"].startswith("too_large")
        assert (refused["key"], refused["row"]) == ("a", 4)

    def test_changes_go_in_order_where_nobody_has_annotated(self, bench: Bench) -> None:
        """A new version is brought as an update of the same remote task, unless it was annotated there."""
        desk = Desk(bench)
        bench.policy["inbox"] = "replace"
        bench.imported("a", texts=("one", "two"))
        desk.steps()
        desk.remote.annotated = {next(r for r, (_, _, body) in desk.remote.tasks.items() if b"two" in body)}
        bench.again("a", lambda work: done(work, ("ONE", "TWO"), mode="replace"), version="v2")
        desk.steps()
        bench.again("a", lambda work: done(work, ("One", "TWO"), mode="replace"), version="v3")
        desk.steps()

        assert desk.remote.texts() == ["One", "two"]
        by_task: dict[int, list[int]] = {}
        for number, revision, _ in desk.remote.changes:
            by_task.setdefault(number, []).append(revision)
        assert all(revisions == sorted(revisions) for revisions in by_task.values())
        report = desk.report()
        assert (report["updated"], report["kept"], report["delivered"]) == (2, 1, 2)

    @pytest.mark.parametrize("delete", [False, True])
    def test_archived_tasks_are_deleted_only_if_asked(self, bench: Bench, delete: bool) -> None:
        """The remote loses archived tasks with `delete_remote` alone, and gets them again when they come back."""
        desk = Desk(bench, delete_remote=delete)
        bench.imported("a", texts=("x",))
        desk.steps()
        bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), kind="deleted", version=None)
        desk.steps()
        assert desk.remote.texts() == ([] if delete else ["x"])
        bench.again("a", lambda work: done(work, (), version="v1", mode="unchanged"), version="v1")
        desk.steps()
        assert desk.remote.texts() == ["x"]

    def test_published_rows_appear_with_their_import(self, bench: Bench) -> None:
        """Tasks that are staged are in no outbox until the import is published; then all of them are, in pieces."""
        desk = Desk(bench)
        lease, (work,) = bench.begin("big")
        for first in range(0, 25_000, 5_000):
            tasks = [task(str(n), n + 1) for n in range(first, first + 5_000)]
            bench.ledger.stage(lease, work.id, first, tasks, ())()
        desk.steps()
        assert desk.remote.batches == []
        assert bench.count("outbox") == 0
        bench.commit(lease, Outcome(work.id, "done", version="v1", staged=True, task_count=25_000, shape="h1"))
        assert [row[0] for row in bench.execute("SELECT tasks FROM outbox ORDER BY id")] == [10_000, 10_000, 5_000]
        desk.steps()
        assert len(desk.remote.tasks) == len(set(desk.remote.texts())) == 25_000

    def test_the_outbox_is_kept_for_a_week(self, bench: Bench) -> None:
        """What was delivered is remembered for seven days, then forgotten; the remote ids stay."""
        desk = Desk(bench)
        desk.steps()
        bench.imported("a", texts=("x",))
        desk.steps()
        assert desk.ledger.sweep(100) == 0
        old = "1" if isinstance(bench.execute("SELECT at FROM outbox")[0][0], float) else "now() - interval '8 days'"
        bench.execute(f"UPDATE outbox SET done_at = {old}")
        bench.execute(f"UPDATE batches SET ended_at = {old}")
        assert desk.ledger.sweep(100) == 2
        assert (bench.count("outbox"), bench.count("batches"), bench.count("delivered")) == (0, 0, 1)


class MishapContract:
    """What a remote may do, and what comes of it."""

    def test_a_bad_task_is_found_by_halving(self, bench: Bench) -> None:
        """A batch that is refused without a name is halved until the bad task is alone, and the rest arrives once."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("abcdexfgh"))

        def picky(batch: str, tasks: Sequence[Encoded]) -> None:
            desk.remote.mishaps.append(picky)
            if any(b'"x"' in one.body for one in tasks):
                raise BatchRefused("x is no letter")

        desk.remote.mishaps.append(picky)
        desk.steps()
        assert desk.remote.texts() == list("abcdefgh")
        (refused,) = desk.ledger.refused(desk.row.id, 0, 10)
        assert refused["reason"] == "x is no letter"
        assert desk.report()["imports"] == len(desk.remote.batches)

    def test_named_tasks_are_set_aside_at_once(self, bench: Bench) -> None:
        """Where the remote names the bad tasks, one import more brings the others."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("abcd"))
        desk.remote.mishaps.append(raising(BatchRefused("some", {1: "bad b", 3: "bad d"})))
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [4, 2]
        assert [row["reason"] for row in desk.ledger.refused(desk.row.id, 0, 10)] == ["bad b", "bad d"]
        assert desk.remote.texts() == ["a", "c"]

    def test_refused_tasks_can_be_put_back(self, bench: Bench) -> None:
        """`retry` sends what was refused again, and only that."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.mishaps.append(raising(BatchRefused("some", {0: "bad a"})))
        desk.steps()
        assert desk.ledger.retry(desk.row.id) == 1
        desk.steps()
        assert desk.remote.texts() == ["a", "b"]
        assert desk.report()["refused"] == 0

    def test_a_remote_that_refuses_all_is_asked_one_by_one(self, bench: Bench) -> None:
        """After twenty refusals in a row one task at a time is tried, at growing intervals; it heals by itself."""
        desk = Desk(bench, tasks_per_import=10)
        bench.imported("a", texts=tuple(f"t{n}" for n in range(100)))
        desk.remote.mishaps += [raising(BatchRefused("no", dict.fromkeys(range(10), "no"))) for _ in range(2)]
        desk.remote.mishaps.append(raising(BatchRefused("no")))
        desk.steps()
        report = desk.report()
        assert (report["refused"], report["code"], report["failing"]) == (20, "refused", 1)
        desk.overdue("due")
        desk.steps()
        assert desk.report()["refused"] == 21
        desk.overdue("due")
        desk.steps()
        assert len(desk.remote.tasks) == 79
        assert desk.report()["failing"] == 0

    def test_what_was_not_taken_is_sent_again(self, bench: Bench) -> None:
        """A remote that is away gets the very same batch when it is back, after a back-off."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.mishaps.append(raising(UnavailableError("down", retry_after=40)))
        desk.steps()
        report = desk.report()
        assert report["code"] == "unavailable"
        assert report["due"] - bench.ledger.now() > 30
        bench.imported("b", texts=("c",))
        desk.overdue("due")
        desk.steps()
        assert desk.remote.batches[0] == desk.remote.batches[1]
        assert desk.remote.texts() == ["a", "b", "c"]

    def test_a_lost_answer_is_asked_for(self, bench: Bench) -> None:
        """A batch that arrived though nobody said so is found, and not sent again."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.after.append(raising(BatchUnsure("504")))
        desk.steps()
        assert desk.report()["batch"] == "unsure"
        for _ in desk.until():
            if desk.report()["delivered"] == 2:
                break
        assert len(desk.remote.batches) == 1
        assert desk.remote.texts() == ["a", "b"]

    def test_a_refusal_to_say_proves_nothing(self, bench: Bench) -> None:
        """A remote that refuses to be asked for a batch of which it has given no handle leaves it as it was."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.after.append(raising(BatchUnsure("504")))
        desk.remote.finding.append(BatchRefused("no such page"))
        desk.steps()
        desk.overdue("look_due")
        desk.steps()
        assert desk.remote.finding == []
        assert (desk.report()["batch"], desk.report()["reason"]) == ("unsure", "no such page")
        desk.overdue("due")
        desk.overdue("look_due")
        desk.steps()
        assert desk.remote.texts() == ["a", "b"]
        assert len(desk.remote.batches) == 1

    def test_a_remote_that_says_that_its_import_failed_refuses(self, bench: Bench) -> None:
        """A remote that says of an import with a handle that it has failed has refused it: the bad task is found."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ax"))
        failures = [raising(BatchUnsure("goes on", handle=str(n))) for n in (7, 8)]
        desk.remote.mishaps += [failures[0], lambda batch, tasks: None, failures[1]]
        desk.remote.finding += [BatchRefused("x is no letter")] * 2
        for _ in range(3):
            desk.steps()
            desk.overdue("look_due")
        desk.steps()
        assert desk.remote.texts() == ["a"]
        assert [row["reason"] for row in desk.ledger.refused(desk.row.id, 0, 10)] == ["x is no letter"]

    def test_an_import_that_never_ends_is_followed_for_a_day(self, bench: Bench) -> None:
        """A remote is asked for an import by its handle for a day after the batch has settled, and then no more: what
        is absent from then on is sent again."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.mishaps.append(raising(BatchUnsure("goes on", handle="7")))
        desk.steps()
        for ago in (1000.0, FOLLOWED_SECONDS - 1000, FOLLOWED_SECONDS + 1000):
            desk.remote.finding += [UnavailableError("goes on", code="goes_on")] * (ago < FOLLOWED_SECONDS)
            desk.settled(ago)
            desk.overdue("look_due")
            desk.overdue("due")
            desk.steps()
            assert len(desk.remote.batches) == 1 + (ago > FOLLOWED_SECONDS)
        assert desk.remote.handles == ["7", "7", None]
        assert desk.remote.texts() == ["a", "b"]

    def test_a_grant_lasts_while_a_large_batch_is_looked_for(self, bench: Bench) -> None:
        """However many questions it takes to look for a batch, the grant lasts from each to the next one."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.after.append(raising(BatchUnsure("504")))
        left = []

        def page() -> None:
            bench.tick(_expired)
            left.append(desk.left())
            desk.overdue("until")

        desk.remote.pages += [page] * 3
        desk.steps()
        desk.overdue("look_due")
        desk.steps()
        assert len(left) == 3
        assert min(left) > ASK_SECONDS / 2
        assert desk.report()["delivered"] == 2

    def test_a_batch_is_not_looked_for_without_end(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A remote that takes too long to say what it has of a batch is told, and asked again later."""
        monkeypatch.setattr(deliverer, "LONGEST_ASK_SECONDS", -1.0)
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.after.append(raising(BatchUnsure("504")))
        desk.remote.pages.append(lambda: None)
        desk.steps()
        desk.overdue("look_due")
        desk.steps()
        report = desk.report()
        assert (report["batch"], report["code"], report["granted"]) == ("unsure", "unavailable", False)
        assert "it has not said all" in report["reason"]

    def test_nothing_is_repeated_before_it_has_settled(self, bench: Bench) -> None:
        """An absent batch is sent again only after an answer that was asked for after the settling time."""
        desk = Desk(bench, settle=1000)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.mishaps.append(raising(BatchUnsure("504")))
        desk.steps()
        for _ in range(3):
            desk.overdue("look_due")
            desk.steps()
        assert len(desk.remote.batches) == 1
        desk.overdue("settled_at")
        desk.overdue("look_due")
        desk.steps()
        assert desk.remote.batches[0] == desk.remote.batches[1]
        assert desk.remote.texts() == ["a", "b"]
        assert desk.report()["imports"] == 2

    def test_what_arrived_in_part_is_completed(self, bench: Bench) -> None:
        """Where only a part of a batch is there when all has settled, the others go in a batch of their own."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("abcd"))

        def half(batch: str, tasks: Sequence[Encoded]) -> None:
            for one in tasks[:2]:
                desk.remote._made(batch, one)
            raise BatchUnsure("reset")

        desk.remote.mishaps.append(half)
        desk.steps()
        desk.overdue("settled_at")
        desk.overdue("look_due")
        desk.steps()
        assert desk.remote.texts() == list("abcd")

    def test_a_killed_sender_leaves_a_batch_to_be_looked_for(self, bench: Bench) -> None:
        """A sender that dies after the import was taken leaves it unsure; the next one finds it; nothing is twice."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("ab"))

        class Died(BaseException):
            """As SIGKILL: nothing of ours catches it."""

        def die(batch: str, tasks: Sequence[Encoded]) -> None:
            raise Died

        desk.remote.after.append(die)
        with pytest.raises(Died):
            desk.step()
        assert not desk.step()
        desk.overdue("until")
        desk.steps()
        assert len(desk.remote.batches) == 1
        assert desk.report()["delivered"] == 2

    def test_a_killed_sender_leaves_the_name_of_its_import(self, bench: Bench) -> None:
        """A sender that dies, or fails, while it waits for an import that goes on behind its answer leaves the remote's
        name of it, by which the next one asks; a batch that is sent again has none."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("ab"))

        class Died(BaseException):
            """As SIGKILL: nothing of ours catches it."""

        def die(batch: str, tasks: Sequence[Encoded]) -> None:
            desk.remote.named("7")
            raise Died

        def fail(batch: str, tasks: Sequence[Encoded]) -> None:
            desk.remote.named("8")
            raise BatchUnsure("no ids")

        desk.remote.mishaps += [die, fail, raising(BatchUnsure("504"))]
        with pytest.raises(Died):
            desk.step()
        desk.overdue("until")
        for _ in desk.until():
            desk.overdue("look_due")
            if desk.report()["delivered"] == 2:
                break
        assert desk.remote.handles == ["7", "8", None]
        assert desk.remote.texts() == ["a", "b"]

    def test_a_grant_lasts_while_an_import_is_followed(self, bench: Bench) -> None:
        """A sender that learns that an import goes on behind its answer has the time to wait, and to ask what came of
        it; one that has lost its grant writes nothing."""
        desk = Desk(bench)
        bench.imported("a", texts=("a",))
        left = []

        def goes_on(batch: str, tasks: Sequence[Encoded]) -> None:
            desk.remote.named("7")
            left.append(desk.left())
            desk.overdue("until")
            bench.tick(_expired)
            desk.remote.named("8")

        desk.remote.mishaps.append(goes_on)
        desk.step()
        assert left[0] > desk.outlet.timeout + 2 * CHANGE_SECONDS
        assert bench.execute("SELECT state, handle FROM batches") == [("unsure", "7")]

    def test_a_zombie_writes_nothing(self, bench: Bench) -> None:
        """A sender whose grant has ended in the middle writes nothing of what it sent; it is found later."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("ab"))
        desk.remote.after.append(lambda batch, tasks: (desk.overdue("until"), desk.bench.tick(_expired))[0])
        desk.step()
        assert desk.report()["delivered"] == 0
        desk.steps()
        assert len(desk.remote.batches) == 1
        assert desk.report()["delivered"] == 2

    def test_the_interval_runs_from_the_end_of_a_lost_grant(self, bench: Bench) -> None:
        """Where a sender dies while it sends, no import begins before `imports_every` has passed since its grant
        ended: a server may take in what it had sent until then."""
        desk = Desk(bench, imports_every=1000)
        bench.imported("a", texts=("a",))

        class Died(BaseException):
            """As SIGKILL: nothing of ours catches it."""

        def die(batch: str, tasks: Sequence[Encoded]) -> None:
            raise Died

        desk.remote.mishaps.append(die)
        with pytest.raises(Died):
            desk.step()
        desk.overdue("ended_at")
        assert desk.granted() is None
        desk.overdue("until")
        before = bench.ledger.now()
        desk.steps()
        assert (desk.report()["batch"], len(desk.remote.batches)) == ("ready", 1)
        assert desk.report()["ended_at"] >= before
        desk.overdue("ended_at")
        desk.steps()
        assert desk.remote.batches[0] == desk.remote.batches[1]
        assert desk.remote.texts() == ["a"]

    def test_the_interval_runs_from_the_end_of_an_import(self, bench: Bench) -> None:
        """No import begins before `imports_every` has passed since the last one ended, whatever came of it."""
        desk = Desk(bench, imports_every=1000)
        bench.imported("a", texts=("a",))
        desk.steps()
        bench.imported("b", texts=("b",))
        assert not desk.step()
        desk.overdue("ended_at")
        desk.remote.mishaps.append(raising(UnavailableError("429", code="too_many")))
        assert desk.step()
        desk.overdue("due")
        assert not desk.step()
        desk.overdue("ended_at")
        assert desk.step()
        assert desk.remote.texts() == ["a", "b"]

    def test_one_grant_at_a_time(self, bench: Bench) -> None:
        """While a sender has a grant there is no other, and a message that comes twice is worked on once."""
        desk = Desk(bench)
        bench.imported("a", texts=("a",))
        granted = desk.granted()
        assert granted is not None
        assert desk.granted() is None
        assert desk.ledger.start(granted.delivery, granted.lease, "one", 60) is not None
        assert desk.ledger.start(granted.delivery, granted.lease, "two", 60) is None

    def test_a_flushed_queue_gives_its_grants_back(self, bench: Bench) -> None:
        """A grant whose message was lost with its queue is given anew at once."""
        desk = Desk(bench)
        bench.imported("a", texts=("a",))
        assert desk.granted() is not None
        assert desk.granted(epoch=EPOCH) is None
        assert desk.granted(epoch="redis-2") is not None

    def test_a_paused_delivery_rests(self, bench: Bench) -> None:
        """Nothing is begun while it is paused, and all goes on where it was."""
        desk = Desk(bench)
        bench.imported("a", texts=("a",))
        desk.ledger.pause(desk.row.id)
        assert not desk.step()
        assert desk.report()["paused_at"] is not None
        desk.ledger.resume(desk.row.id)
        desk.steps()
        assert desk.remote.texts() == ["a"]

    def test_an_error_of_ours_is_told_and_looked_for(self, bench: Bench) -> None:
        """A fault of the program after a batch was sent makes it unsure: it is looked for, and not sent again."""
        desk = Desk(bench)
        bench.imported("a", texts=("a",))

        def bug(batch: str, tasks: Sequence[Encoded]) -> None:
            raise ZeroDivisionError

        desk.remote.after.append(bug)
        with pytest.raises(ZeroDivisionError):
            desk.step()
        assert desk.report()["code"] == "internal"
        desk.overdue("due")
        desk.steps()
        assert len(desk.remote.batches) == 1
        assert desk.report()["delivered"] == 1

    def test_the_interval_runs_from_an_error_of_ours(self, bench: Bench) -> None:
        """Where a fault of the program comes after a batch was sent, no import begins before `imports_every` has
        passed since."""
        desk = Desk(bench, imports_every=1000)
        bench.imported("a", texts=("a",))

        def bug(batch: str, tasks: Sequence[Encoded]) -> None:
            raise ZeroDivisionError

        desk.remote.mishaps.append(bug)
        before = bench.ledger.now()
        with pytest.raises(ZeroDivisionError):
            desk.step()
        assert desk.report()["ended_at"] >= before
        desk.overdue("due")
        desk.steps()
        assert (desk.report()["batch"], len(desk.remote.batches)) == ("ready", 1)

    @pytest.mark.parametrize("pages", [0, 1, 2])
    def test_each_task_is_counted_once(self, bench: Bench, pages: int) -> None:
        """Wherever a sender breaks off while it writes what has arrived, a page at a time: all is counted in the end,
        nothing twice."""
        desk = Desk(bench)
        tasks = 2 * PAGE_TASKS + 1000
        bench.imported("a", texts=tuple(str(number) for number in range(tasks)))
        send = desk.remote.send

        def spoilt(
            batch: str, encoded: Sequence[Encoded], ready: Callable[[], None], named: Callable[[str], None]
        ) -> Mapping[int, Any]:
            made = send(batch, encoded, ready, named)
            return made | {sorted(made)[pages * PAGE_TASKS]: Unwritable()}

        desk.remote.send = spoilt  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            desk.step()
        assert desk.report()["delivered"] == pages * PAGE_TASKS
        desk.overdue("due")
        desk.steps()
        assert desk.report()["delivered"] == len(desk.remote.tasks) == tasks
        assert bench.execute("SELECT count(*) FROM delivered WHERE state = 'done'") == [(tasks,)]

    def test_explained_by_object(self, bench: Bench) -> None:
        """What became of an object's tasks can be asked for."""
        desk = Desk(bench)
        bench.imported("a", texts=tuple("abc"))
        desk.remote.mishaps.append(raising(BatchRefused("some", {0: "bad a"})))
        desk.step()
        found = desk.ledger.of_object(bench.row("a")["id"])
        assert Counter({row["state"]: row["tasks"] for row in found}) == {"batched": 2, "refused": 1}
        assert {row["delivery"] for row in found} == {"cats/remote"}
        assert json.dumps(found)


class AheadContract:
    """What is filled while an import is on its way."""

    def test_the_next_batch_is_filled_meanwhile(self, bench: Bench) -> None:
        """While a batch is on its way the next one takes in what waits, and afterwards what has come since."""
        desk = Desk(bench, tasks_per_import=3)
        bench.imported("a", texts=tuple("abcde"))
        desk.remote.after.append(lambda batch, tasks: _until_given(bench, 5))
        desk.step()
        bench.imported("b", texts=tuple("fg"))
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [3, 3, 1]
        assert desk.remote.texts() == list("abcdefg")

    def test_a_lasting_thread_fills_ahead(self, bench: Bench) -> None:
        """However many imports there are, the same thread fills ahead: a ledger keeps a connection for each."""
        desk = Desk(bench, tasks_per_import=2)
        threads: set[int] = set()
        encode = desk.remote.encode

        def watched(batch: str, item: Item) -> bytes:
            threads.add(threading.get_ident())
            return encode(batch, item)

        desk.remote.encode = watched  # type: ignore[method-assign]
        bench.imported("a", texts=tuple(str(n) for n in range(40)))
        desk.remote.after += [lambda batch, tasks: time.sleep(0.02)] * 20
        desk.steps()
        assert len(desk.remote.batches) == 20
        assert len(threads) == 2

    def test_another_sender_takes_it_over(self, bench: Bench) -> None:
        """What one process had filled ahead is sent by another as it is, and each task arrives once."""
        desk = Desk(bench, tasks_per_import=3)
        bench.imported("a", texts=tuple("abcde"))
        desk.remote.after.append(lambda batch, tasks: _until_given(bench, 5))
        desk.step()
        bench.imported("b", texts=("f",))
        first, desk.sender = desk.sender, desk.another()
        desk.step()
        desk.sender = first
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [3, 2, 1]
        assert desk.remote.texts() == list("abcdef")

    def test_what_is_refused_is_settled_first(self, bench: Bench) -> None:
        """While a batch is refused and halved, the one that was filled meanwhile takes its turn, and no other is begun
        until all of these are settled."""
        desk = Desk(bench, tasks_per_import=4)
        bench.imported("a", texts=tuple("abcxefghij"))
        most: list[int] = []

        def picky(batch: str, tasks: Sequence[Encoded]) -> None:
            if not most:
                _until_given(bench, 8)
            most.append(bench.execute("SELECT count(*) FROM batches WHERE ended_at IS NULL AND state <> 'ready'")[0][0])
            desk.remote.mishaps.append(picky)
            if any(b'"x"' in one.body for one in tasks):
                raise BatchRefused("x is no letter")

        desk.remote.mishaps.append(picky)
        desk.steps()
        sent = ["".join(sorted(body.decode().split('"')[3] for body in bodies)) for _, bodies in desk.remote.batches]
        assert sent == ["abcx", "ab", "efgh", "cx", "c", "x", "ij"]
        assert max(most) <= 2
        assert desk.remote.texts() == list("abcefghij")

    def test_a_lost_answer_holds_what_was_filled_meanwhile(self, bench: Bench) -> None:
        """While nobody knows whether a batch has arrived, the one that was filled meanwhile stays."""
        desk = Desk(bench, tasks_per_import=3, settle=1000)
        bench.imported("a", texts=tuple("abcdef"))

        def lost(batch: str, tasks: Sequence[Encoded]) -> None:
            _until_given(bench, 6)
            raise BatchUnsure("504")

        desk.remote.mishaps.append(lost)
        desk.steps()
        assert len(desk.remote.batches) == 1
        desk.overdue("settled_at")
        desk.overdue("look_due")
        desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [3, 3, 3]
        assert desk.remote.texts() == list("abcdef")

    def test_a_version_that_comes_meanwhile_is_brought_as_an_update(self, bench: Bench) -> None:
        """A task that changes after it was taken ahead arrives once, as it is at the end."""
        desk = Desk(bench, tasks_per_import=2)
        bench.policy["inbox"] = "replace"
        bench.imported("a", texts=tuple("abc"))
        desk.remote.after.append(lambda batch, tasks: _until_given(bench, 3))
        desk.step()
        bench.again("a", lambda work: done(work, ("a", "b", "C"), mode="replace"), version="v2")
        desk.steps()
        assert desk.remote.texts() == ["C", "a", "b"]
        assert desk.report()["delivered"] == 3

    def test_a_version_that_comes_before_the_refusal_of_the_old_one_is_sent(self, bench: Bench) -> None:
        """A task that is refused, and was corrected while it was on its way, is sent as it is now."""
        desk = Desk(bench)
        bench.policy["inbox"] = "replace"
        bench.imported("a", texts=("bad", "b"))

        encode = desk.remote.encode

        def correct(batch: str, item: Item) -> bytes:
            desk.remote.encode = encode  # type: ignore[method-assign]
            bench.again("a", lambda work: done(work, ("good", "b"), mode="replace"), version="v2")
            return encode(batch, item)

        desk.remote.encode = correct  # type: ignore[method-assign]
        desk.remote.mishaps.append(raising(BatchRefused("some", {0: "it is bad"})))
        desk.steps()
        assert desk.remote.texts() == ["b", "good"]
        assert desk.ledger.refused(desk.row.id, 0, 10) == []

    def test_with_an_interval_nothing_is_taken_ahead(self, bench: Bench) -> None:
        """Between two imports of an interval the outbox is left alone, so that the next one has what came meanwhile."""
        desk = Desk(bench, tasks_per_import=2, imports_every=1000)
        bench.imported("a", texts=tuple("abcd"))
        desk.step()
        assert bench.execute("SELECT count(*) FROM batches") == [(1,)]
        bench.imported("b", texts=("e",))
        for _ in range(2):
            desk.overdue("ended_at")
            desk.steps()
        assert [len(bodies) for _, bodies in desk.remote.batches] == [2, 2, 1]


def _until_given(bench: Bench, tasks: int) -> None:
    """Wait until so many tasks were given to batches."""
    deadline = time.monotonic() + 10
    while bench.execute("SELECT count(*) FROM delivered")[0][0] < tasks:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _expired(tick: object) -> None:
    tick.deliveries().expire(EPOCH)  # type: ignore[attr-defined]
