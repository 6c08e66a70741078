"""What every ledger promises of claims, leases, workers and their ends."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import DataRefused, LeaseLost
from pipeline.ledger import Outcome, Reason, Tick
from tests.ledger.bench import EPOCH, Bench, done, rejected, task

BACK_OFF = Reason("unavailable", "the store does not answer")


class ClaimContract:
    def test_claims_come_in_order(self, bench: Bench) -> None:
        """A claim takes due objects in the order in which they became due, from the source's cursor on."""
        for key in ("c", "a", "b"):
            bench.note(key)
        bench.note("other", source="bucket")

        def turn(tick: Tick) -> list[int]:
            (source, _) = tick.load().sources
            first = tick.candidates(source, 2)
            last = first[-1]
            second = tick.candidates(source._replace(cursor=(last.not_before, last.id)), 2)
            return [each.id for each in (*first, *second)]

        assert bench.tick(turn) == [bench.row(key, "inbox")["id"] for key in ("c", "a", "b")]

    def test_ended_processes_are_forgotten(self, bench: Bench) -> None:
        """Sweeping deletes the rows of processes that ended more than a day ago, and no others."""
        for name, seconds in (("long gone", -90_000.0), ("ended", -80_000.0), ("lives", 60.0)):
            bench.ledger.beat(name, 2, seconds)
        assert bench.ledger.sweep(100) == 0
        assert bench.execute("SELECT name FROM workers ORDER BY name") == [("ended",), ("lives",)]

    def test_load(self, bench: Bench) -> None:
        """The picture counts what waits, what is claimed, what runs, who works and what ended."""
        bench.note("a", "b", "c", "d", size=10)
        bench.ledger.beat("w1", 4, 60.0)
        bench.ledger.beat("w1", 8, 60.0)
        bench.ledger.beat("w2", 8, -1.0)
        (first, second) = bench.claims(size=2)
        work = bench.ledger.start(first.lease, "w1", 60.0)
        bench.commit(first.lease, done(work[0], ("a", "b")))
        load = bench.tick(lambda tick: tick.load())

        assert (load.sources[0].ready, load.sources[0].claimed) == (0, 3)
        assert (load.unstarted, load.running, load.threads, load.finished) == (2, 1, 8, 1)
        assert [(project.name, project.tasks) for project in load.projects] == [("cats", 2), ("dogs", 0)]
        assert abs(load.now - bench.ledger.now()) < 60
        assert (len(second.ids), second.source, second.alone) == (2, "inbox", False)

    def test_cursor_deficit_and_bucket_are_kept(self, bench: Bench) -> None:
        """What the scheduler remembers comes back exactly."""
        due = bench.ledger.now()

        def turn(tick: Tick) -> None:
            tick.save(tick.load().sources[0]._replace(cursor=(due, 42), deficit=1.5))
            tick.spend(tick.load().projects[0].id, 12.25)

        bench.tick(turn)
        load = bench.tick(lambda tick: tick.load())
        assert (load.sources[0].cursor, load.sources[0].deficit) == ((due, 42), 1.5)
        assert load.projects[0].tokens == 12.25
        assert abs(load.projects[0].tokens_at - load.now) < 60

    def test_candidates_bring_what_is_known_of_them(self, bench: Bench) -> None:
        """Size, lost workers and the time since when each is due are an object's own, in the order of that time."""
        for key, size in (("c", 30), ("a", 10), ("b", 20)):
            bench.note(key, size=size)
        bench.execute("UPDATE objects SET lost = 2 WHERE key = 'a'")
        found = bench.tick(lambda tick: tick.candidates(tick.load().sources[0], 10))
        rows = [bench.row(key, "inbox") for key in ("c", "a", "b")]
        assert list(found.ids) == [row["id"] for row in rows]
        assert list(found.due) == [row["not_before"] for row in rows]
        assert (list(found.sizes), list(found.lost)) == ([30, 10, 20], [0, 2, 0])
        healthy, suspects = found.parted()
        assert (list(healthy.sizes), list(suspects.sizes)) == ([30, 20], [10])
        assert list(healthy + suspects) == [found[0], found[2], found[1]]

    def test_the_cursor_is_exact(self, bench: Bench) -> None:
        """A cursor at the last object claimed passes over none and gives none twice."""
        bench.note(*(f"k{number:03}" for number in range(50)))
        seen: list[int] = []

        def turn(tick: Tick) -> int:
            source = tick.load().sources[0]
            found = tick.candidates(source, 7)
            if found:
                seen.extend(each.id for each in found)
                tick.save(source._replace(cursor=(found[-1].not_before, found[-1].id)))
            return len(found)

        while bench.tick(turn):
            pass
        assert len(seen) == len(set(seen)) == 50

    @pytest.mark.parametrize("quota", [50, 65, 100, 130, 1000, 1200, 5000])
    def test_candidates_that_became_due_in_groups(self, bench: Bench, quota: int) -> None:
        """However many became due together, a claim's size and the cursor decide: all come, each once, in order."""
        for group in range(12):
            bench.note(*(f"{group:02}-{number:03}" for number in range(100)), size=group)
        bench.execute("UPDATE objects SET lost = 2 WHERE key IN ('03-050', '07-000')")
        rows = bench.execute("SELECT id, coalesce(size, 0), lost FROM objects ORDER BY key")
        seen: list[tuple[int, int, int]] = []
        dues: list[float] = []

        def turn(tick: Tick) -> int:
            source = tick.load().sources[0]
            found = tick.candidates(source, quota)
            if found:
                seen.extend((each.id, each.size, each.lost) for each in found)
                dues.extend(found.due)
                tick.save(source._replace(cursor=(found[-1].not_before, found[-1].id)))
            return len(found)

        lengths = []
        while length := bench.tick(turn):
            lengths.append(length)
        assert seen == rows
        assert dues == sorted(dues)
        assert len(set(dues)) == 12
        assert all(length == quota for length in lengths[:-1])

    def test_a_lease_is_never_used_twice(self, bench: Bench) -> None:
        """Leases are new numbers, also after claims were given back."""
        bench.note("a")
        leases = []
        for _ in range(5):
            (claim,) = bench.claims()
            leases.append(claim.lease)
            bench.ledger.unclaim([claim.lease])
        assert len(set(leases)) == 5
        assert leases == sorted(leases)

    def test_a_failing_turn_claims_nothing(self, bench: Bench) -> None:
        """A turn that raises leaves everything as it was."""
        bench.note("a")

        def turn(tick: Tick) -> None:
            source = tick.load().sources[0]
            tick.claim(source, tick.candidates(source, 1), EPOCH, 60.0, alone=False)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            bench.tick(turn)
        assert (bench.state("a"), bench.load().ready) == ("ready", 1)

    def test_unclaim_is_uncounted(self, bench: Bench) -> None:
        """Claims given back before they were started are ready again, with no attempt; started ones stay."""
        bench.note("a", "b")
        (first, second) = bench.claims(size=1)
        bench.ledger.start(second.lease, "w", 60.0)
        assert bench.ledger.unclaim([first.lease, second.lease, 12345]) == 1
        row = bench.row("a")
        assert (row["state"], row["attempts"], row["lost"], bench.state("b")) == ("ready", 0, 0, "running")

    def test_not_yet_due(self, bench: Bench) -> None:
        """An object that backs off isn't claimed before its time."""
        lease, (work,) = bench.begin("a")
        bench.commit(lease, Outcome(work.id, "ready", retry_after=3600.0, reason=BACK_OFF))
        row = bench.row("a")
        assert (row["state"], row["attempts"], row["reason"]["code"]) == ("ready", 1, "unavailable")
        assert 3000 < row["not_before"] - bench.ledger.now() < 3700
        assert bench.claims() == []
        assert bench.note("a", version="v2") == {"changed": 1}
        assert len(bench.claims()) == 1
        assert bench.row("a")["attempts"] == 0

    def test_one_turn_at_a_time(self, bench: Bench) -> None:
        """Two schedulers never claim the same object, and one that comes during a turn waits or gets None."""
        bench.note(*(f"k{number:03}" for number in range(200)))
        ledgers = [bench.another() for _ in range(3)]
        claimed: list[int] = []

        def turn(tick: Tick) -> list[int]:
            source = tick.load().sources[0]
            found = tick.candidates(source._replace(cursor=(0.0, 0)), 5)
            return list(tick.claim(source, found, EPOCH, 60.0, alone=False).ids) if found else []

        def schedule(index: int) -> None:
            while (ids := ledgers[index].tick(turn)) != []:
                claimed.extend(ids or [])

        threads = [threading.Thread(target=schedule, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(claimed) == len(set(claimed)) == 200


class LeaseContract:
    def test_start_gives_the_work_once(self, bench: Bench) -> None:
        """Only the first start of a claim gets its objects."""
        bench.note("a", size=3)
        (claim,) = bench.claims()
        (work,) = bench.ledger.start(claim.lease, "w", 60.0)
        assert work == (claim.ids[0], "inbox", "a", "v1", None, False, False, 0, 0, None)
        assert bench.ledger.start(claim.lease, "other", 60.0) == []
        assert bench.ledger.start(999, "other", 60.0) == []
        assert bench.state("a") == "running"

    def test_start_leaves_out_what_was_taken_away(self, bench: Bench) -> None:
        """Objects that a newer version took from a claim aren't in its work; with none left the lease ends."""
        bench.note("a", "b")
        (claim,) = bench.claims()
        bench.note("a", version="v2")
        assert [work.key for work in bench.ledger.start(claim.lease, "w", 60.0)] == ["b"]
        bench.note("c")
        (other, _) = bench.claims(size=1)
        bench.note("a", "c", version="v3")
        assert bench.ledger.start(other.lease, "w", 60.0) == []

    def test_renewal(self, bench: Bench) -> None:
        """A renewed lease doesn't end; one that has ended can't be renewed."""
        lease, _ = bench.begin("a")
        bench.end_lease(lease)
        assert bench.ledger.renew(lease, 60.0)
        assert bench.tick(lambda tick: tick.expire(10)) == 0
        bench.end_lease(lease)
        assert bench.tick(lambda tick: tick.expire(10)) == 1
        assert not bench.ledger.renew(lease, 60.0)

    def test_a_started_lease_that_ends_is_a_lost_worker(self, bench: Bench) -> None:
        """Its objects are ready again, counted, and suspects; the zombie writes nothing."""
        lease, (work, _) = bench.begin("a", "b")
        bench.end_lease(lease)
        assert bench.tick(lambda tick: tick.expire(10)) == 2

        row = bench.row("a")
        assert (row["state"], row["attempts"], row["lost"]) == ("ready", 1, 1)
        assert bench.commit(lease, done(work)).kept == frozenset()
        assert bench.count("task_rows") == 0
        assert [entry["kind"] for entry in bench.ledger.reports().history(work.id)] == ["worker_lost"]
        candidates = bench.tick(lambda tick: tick.candidates(tick.load().sources[0], 10))
        assert [candidate.lost for candidate in candidates] == [1, 1]

    def test_a_claim_never_started_ends_uncounted(self, bench: Bench) -> None:
        """When its time is over its objects are ready again as if nothing had been."""
        bench.note("a")
        (claim,) = bench.claims(seconds=-1.0)
        assert bench.tick(lambda tick: tick.expire(10)) == 1
        row = bench.row("a")
        assert (row["state"], row["attempts"], row["lost"]) == ("ready", 0, 0)
        assert bench.ledger.start(claim.lease, "w", 60.0) == []

    def test_expiry_is_bounded(self, bench: Bench) -> None:
        """One turn ends no more leases than it is told."""
        bench.note("a", "b", "c")
        bench.claims(size=1, seconds=-1.0)
        assert [bench.tick(lambda tick: tick.expire(2)) for _ in range(3)] == [2, 1, 0]

    def test_give_back_is_uncounted(self, bench: Bench) -> None:
        """A worker that stops gives the rest of its batch back; what it committed stays."""
        lease, (first, second) = bench.begin("a", "b")
        bench.commit(lease, done(first))
        bench.ledger.give_back(lease)
        bench.ledger.give_back(lease)
        row = bench.row("b")
        assert (row["state"], row["attempts"], bench.state("a")) == ("ready", 0, "done")
        assert bench.commit(lease, done(second)).kept == frozenset()

    def test_three_dead_children_fail_an_object(self, bench: Bench) -> None:
        """Each death of its own child is counted; with the third the object is failed, its neighbours aren't."""
        bench.note("poison", "healthy")
        for died in (1, 2, 3):
            (claim,) = bench.claims(alone=True)
            work = {each.key: each for each in bench.ledger.start(claim.lease, "w", 60.0)}
            bench.ledger.give_back(claim.lease, lost=work["poison"].id)
            assert bench.state("healthy") == "ready"
            assert bench.state("poison") == ("failed" if died == 3 else "ready")
        row = bench.row("poison")
        assert (row["reason"]["code"], row["attempts"]) == ("worker_lost", 3)
        assert bench.row("healthy")["attempts"] == 0
        assert bench.ledger.reports().sources()[0]["finished"] == 1
        kinds = [entry["kind"] for entry in bench.ledger.reports().history(row["id"])]
        assert kinds == ["child_died"] * 3

    def test_the_workers_own_loss_comes_before_the_childs(self, bench: Bench) -> None:
        """A suspect has three children of its own before it is failed, however often its worker was lost."""
        lease, (work,) = bench.begin("a")
        for _ in range(2):
            bench.end_lease(lease)
            bench.tick(lambda tick: tick.expire(10))
            lease, (work,) = bench.begin()
        for _ in range(2):
            bench.ledger.give_back(lease, lost=work.id)
            lease, (work,) = bench.begin()
        assert bench.state("a") == "running"
        bench.ledger.give_back(lease, lost=work.id)
        assert bench.state("a") == "failed"

    def test_deaths_of_others_objects_do_not_count(self, bench: Bench) -> None:
        """A death reported under a lease that was lost changes nothing."""
        lease, (work,) = bench.begin("a")
        bench.note("a", version="v2")
        bench.ledger.give_back(lease, lost=work.id)
        assert (bench.state("a"), bench.row("a")["lost"]) == ("ready", 0)

    def test_a_flushed_queue(self, bench: Bench) -> None:
        """Unstarted claims of another epoch are ready at once; started ones go on."""
        bench.note("a", "b")
        (_, started) = bench.claims(size=1, epoch="before")
        bench.ledger.start(started.lease, "w", 60.0)
        assert bench.tick(lambda tick: tick.release("before")) == 0
        assert bench.tick(lambda tick: tick.release("after")) == 1
        assert (bench.state("a"), bench.state("b")) == ("ready", "running")

    def test_commit_in_halves(self, bench: Bench) -> None:
        """A lease lives as long as one of its objects has no outcome, even if an outcome is told twice."""
        lease, work = bench.begin("a", "b", "c", "d")
        bench.note("c", version="v2")
        bench.commit(lease, *map(done, work[:2]))
        assert bench.commit(lease, *map(done, work[:2])).kept == frozenset()
        assert bench.ledger.renew(lease, 60.0)
        assert bench.commit(lease, *map(done, work[2:])).kept == {work[3].id}
        assert not bench.ledger.renew(lease, 60.0)
        assert bench.count("leases") == 0


class OutcomeContract:
    def test_done(self, bench: Bench) -> None:
        """Tasks, rejected rows, the object's row and the import come with one commit."""
        full = task(
            "a", annotations='[{"result":[]}]', predictions="[]", meta='{"m":1}', extra='{"x":2}', external_id="7"
        )
        lease, (work,) = bench.begin("a.json", size=1)
        outcome = done(work, (full, "b"), rejected=(rejected(3),), size=99, seconds=0.5)
        assert bench.commit(lease, outcome).tasks == 2

        row = bench.row("a.json")
        assert (row["state"], row["imported_version"], row["size"]) == ("done", "v1", 99)
        assert (row["tasks"], row["rejected"], row["attempts"]) == (2, 1, 1)
        assert row["finished_at"] is not None
        (imported,) = bench.ledger.reports().imports(work.id)
        names = ("lease", "version", "state", "mode", "tasks", "rejected", "bytes")
        assert {name: imported[name] for name in names} == {
            "lease": lease, "version": "v1", "state": "live", "mode": "new", "tasks": 2, "rejected": 1, "bytes": 99,
        }  # fmt: skip
        assert imported["seconds"] == 0.5

    def test_committing_twice(self, bench: Bench) -> None:
        """The second commit of the same outcome finds that it isn't the owner any more, and writes nothing."""
        lease, (work,) = bench.begin("a")
        first, second = bench.commit(lease, done(work)), bench.commit(lease, done(work))
        assert (first.kept, first.tasks, second.kept, second.lost, second.tasks) == ({work.id}, 1, set(), {work.id}, 0)
        assert bench.texts("a") == ["a"]

    @pytest.mark.parametrize("state", ["failed", "skipped"])
    def test_ended_badly(self, bench: Bench, state: str) -> None:
        """A failed or skipped object keeps its reason and its rejected rows, and writes no task."""
        reason = Reason("syntax", "not JSON", line=3, column=7, byte=20, excerpt="{]", hint="mend it")
        lease, (work,) = bench.begin("a")
        outcome = Outcome(
            work.id,
            state,
            "v1",
            tasks=[task("never")],
            rejected=[rejected(1)],
            rejected_count=1,
            reason=reason,  # type: ignore[arg-type]
        )
        bench.commit(lease, outcome)
        row = bench.row("a")
        assert (row["state"], row["reason"]["hint"], row["reason"]["line"], row["tasks"]) == (state, "mend it", 3, 0)
        assert bench.count("rejected") == 1
        assert bench.count("task_rows") == 0

    def test_failing_again_keeps_the_last_rejected_rows(self, bench: Bench) -> None:
        """Rejected rows are those of the last attempt, also when it had as many."""
        bench.note("a")
        for row in (1, 2):
            (claim,) = bench.claims()
            (work,) = bench.ledger.start(claim.lease, "w", 60.0)
            reason = Reason("syntax", "x")
            bench.commit(
                claim.lease,
                Outcome(work.id, "failed", "v1", rejected=[rejected(row)], rejected_count=1, reason=reason),
            )
            bench.ledger.reports().retry([work.id], force=False)
        assert bench.execute("SELECT row FROM rejected") == [(2,)]

    def test_refused_tasks_write_nothing(self, bench: Bench) -> None:
        """Data that the database refuses is told, nothing of the batch is written, and the lease lives on."""
        lease, (first, second) = bench.begin("a", "b")
        with pytest.raises(DataRefused):
            bench.commit(lease, done(first), done(second, ["\ud800"]))
        assert bench.count("task_rows") == 0
        assert bench.commit(lease, done(first)).kept == {first.id}
        assert bench.commit(lease, Outcome(second.id, "failed", reason=Reason("surrogate", "x"))).kept == {second.id}

    def test_attempts_that_are_not_counted(self, bench: Bench) -> None:
        """An attempt that was no fault of the object's isn't counted."""
        lease, (work,) = bench.begin("a")
        bench.commit(lease, Outcome(work.id, "ready", reason=BACK_OFF, counted=False))
        assert bench.row("a")["attempts"] == 0

    def test_lost_is_forgotten_after_success(self, bench: Bench) -> None:
        """An object that was a suspect and is imported is none any more."""
        lease, _ = bench.begin("a")
        bench.end_lease(lease)
        bench.tick(lambda tick: tick.expire(10))
        lease, (work,) = bench.begin()
        assert (work.lost, work.attempts) == (1, 1)
        bench.commit(lease, done(work))
        assert bench.row("a")["lost"] == 0

    def test_times_do_not_run_backwards(self, bench: Bench) -> None:
        """First seen, last event and end of an object come in that order by the database's clock."""
        before = bench.ledger.now()
        bench.imported("a")
        row = bench.row("a")
        assert before <= row["first_seen"] <= row["last_event"] <= row["finished_at"] <= bench.ledger.now()


class StageContract:
    def stage(self, bench: Bench, lease: int, object_id: int, first: int = 0, count: int = 3) -> None:
        """Give `count` tasks and a rejected row."""
        tasks = [task(f"s{number}", number + 1) for number in range(first, first + count)]
        bench.ledger.stage(lease, object_id, first, tasks, [rejected(first + 1)])()

    def staged(self, work_id: int, tasks: int, bad: int, **columns: object) -> Outcome:
        """The outcome of a staged file."""
        values = {"state": "done", "version": "v1", **columns}
        return Outcome(work_id, task_count=tasks, rejected_count=bad, staged=True, **values)  # type: ignore[arg-type]

    def test_published_by_the_commit(self, bench: Bench) -> None:
        """Pieces of a large file are invisible until its outcome is committed, then they are all there."""
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id)
        self.stage(bench, lease, work.id, first=3)
        assert (bench.count("tasks"), bench.count("rejected"), bench.texts("a")) == (0, 0, [])
        bench.ledger.sweep(100)

        bench.commit(lease, self.staged(work.id, 6, 2))
        assert bench.texts("a") == [f"s{number}" for number in range(6)]
        assert bench.count("rejected") == 2
        assert bench.ledger.sweep(100) == 0

    def test_a_lost_lease_cannot_stage(self, bench: Bench) -> None:
        """Whoever has lost the lease is told so, and writes nothing."""
        lease, (work,) = bench.begin("a")
        bench.note("a", version="v2")
        with pytest.raises(LeaseLost):
            self.stage(bench, lease, work.id)
        assert bench.count("task_rows") == 0

    def test_never_published_is_swept(self, bench: Bench) -> None:
        """What was staged under a lease that has ended is deleted, a bounded part at a time."""
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id, count=10)
        bench.end_lease(lease)
        assert bench.ledger.sweep(100) == 0
        bench.tick(lambda tick: tick.expire(10))

        turns = 0
        while bench.ledger.sweep(4):
            turns += 1
        assert turns >= 3
        assert (bench.count("task_rows"), bench.count("rejected_rows"), bench.count("imports")) == (0, 0, 0)

    def test_two_attempts_do_not_meet(self, bench: Bench) -> None:
        """A second attempt at a large file is published while the first one's pieces are still there."""
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id)
        bench.end_lease(lease)
        bench.tick(lambda tick: tick.expire(10))
        again, _ = bench.begin()
        self.stage(bench, again, work.id)
        bench.commit(again, self.staged(work.id, 3, 1))
        assert bench.texts("a") == ["s0", "s1", "s2"]
        while bench.ledger.sweep(100):
            pass
        assert (bench.count("task_rows"), bench.count("rejected_rows")) == (3, 1)

    def test_unstage(self, bench: Bench) -> None:
        """A file that is parsed anew from its first row forgets what was staged, and nothing else."""
        bench.imported("kept")
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id, count=25)
        bench.ledger.unstage(lease, work.id)
        bench.ledger.unstage(lease, work.id)
        assert (bench.count("task_rows"), bench.count("rejected_rows")) == (1, 0)
        self.stage(bench, lease, work.id, count=2)
        bench.commit(lease, self.staged(work.id, 2, 1))
        bench.ledger.unstage(lease, work.id)
        assert bench.texts("a") == ["s0", "s1"]

    def test_a_staged_file_that_fails(self, bench: Bench) -> None:
        """Its tasks never show and are swept; its rejected rows stay."""
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id)
        reason = Reason("too_many_bad_rows", "x")
        bench.commit(lease, self.staged(work.id, 3, 1, state="failed", reason=reason))
        assert (bench.count("tasks"), bench.count("rejected"), bench.state("a")) == (0, 1, "failed")
        while bench.ledger.sweep(100):
            pass
        assert (bench.count("task_rows"), bench.count("rejected")) == (0, 1)

    def test_a_staged_file_that_backs_off(self, bench: Bench) -> None:
        """Nothing of it shows, everything is swept."""
        lease, (work,) = bench.begin("a")
        self.stage(bench, lease, work.id)
        bench.commit(lease, self.staged(work.id, 3, 1, state="ready", reason=BACK_OFF, version=None))
        assert (bench.count("tasks"), bench.count("rejected"), bench.row("a")["rejected"]) == (0, 0, 0)
        while bench.ledger.sweep(100):
            pass
        assert (bench.count("task_rows"), bench.count("rejected_rows")) == (0, 0)

    def test_replacing_a_large_file(self, bench: Bench) -> None:
        """The old tasks stay live until the one commit that puts all the new ones in their place."""
        bench.policy["inbox"] = "replace"
        bench.imported("a", texts=("x", "y"))
        lease, (work,) = bench.begin("a", version="v2")
        self.stage(bench, lease, work.id)
        assert bench.texts("a") == ["x", "y"]
        bench.commit(lease, self.staged(work.id, 3, 1, version="v2", mode="replace"))
        assert bench.texts("a") == ["s0", "s1", "s2"]
        assert bench.row("a")["tasks"] == 3

    def test_appending_a_large_file(self, bench: Bench) -> None:
        """The new tasks come behind the old ones."""
        bench.policy["inbox"] = "append"
        bench.imported("a", texts=("x",))
        lease, (work,) = bench.begin("a", version="v2")
        self.stage(bench, lease, work.id)
        bench.commit(lease, self.staged(work.id, 3, 1, version="v2", mode="append"))
        assert bench.texts("a") == ["x", "s0", "s1", "s2"]
