"""What every ledger promises the scheduler of what is under way, of what was read, and of what all schedulers share."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.ledger import Load, Outcome, ProjectLoad, Reason, Tick
from pipeline.ledger.reports import Tally
from tests.ledger.bench import EPOCH, SOURCES, Bench, done, task


class ThrottleContract:
    def test_what_is_expected(self, bench: Bench) -> None:
        """Each claim tells what its objects should bring; what has ended of it counts no more."""
        bench.note("a", "b", "c", "d", size=100)

        def claim(tick: Tick) -> int:
            source = tick.load().sources[0]
            return tick.claim(source, tick.candidates(source, 4), EPOCH, 60, alone=False, each=(2.5, 100.0)).lease

        lease = bench.tick(claim)
        assert bench.load().expected == (10.0, 400.0)
        assert self.projects(bench)["cats"]["in_flight"] == 10
        work = bench.ledger.start(lease, "worker", 60)
        bench.commit(lease, done(work[0]))
        assert bench.load().expected == (7.5, 300.0)
        assert bench.load("bucket").expected == (0.0, 0.0)
        bench.ledger.give_back(lease)
        assert bench.load().expected == (0.0, 0.0)

    def test_what_leaves(self, bench: Bench) -> None:
        """Deletions of what has tasks are found among all that is ready, in their order and behind a place; not what
        is to bring some, nor what another transaction is at, nor what is due later."""
        bench.policy["inbox"] = "replace"
        bench.imported("a", "b", "c", "d", "e", size=70)
        bench.again("e", lambda work: Outcome(work.id, "gone", archive=True), version=None)
        bench.note("a", version="v2")
        bench.note("new", "unknown", version=None)
        bench.note("e", version=None)
        for key in ("d", "c", "b"):
            bench.note(key, version=None, kind="deleted")
        assert self.leaving(bench) == ["d", "c", "b"]
        first = bench.tick(lambda tick: tick.leaving(tick.load().sources[0]._replace(cursor=(0.0, 0)), 1))
        assert (len(first), first.sizes[0], first.lost[0]) == (1, 70, 0)
        assert self.leaving(bench, (first.due[0], first.ids[0])) == ["c", "b"]
        lease = bench.tick(lambda tick: tick.claim(tick.load().sources[0], first, EPOCH, 60, alone=False).lease)
        assert self.leaving(bench) == ["c", "b"]
        (work,) = bench.ledger.start(lease, "worker", 60)
        bench.commit(lease, Outcome(work.id, "ready", retry_after=600.0, reason=Reason("storage", "no")))
        assert self.leaving(bench) == ["c", "b"]
        assert bench.load().ready == 7

    def test_what_was_read(self, bench: Bench) -> None:
        """Objects, tasks and bytes that were read are counted for good, archived or replaced or failed as they may be;
        what was only looked at is not."""
        bench.policy["inbox"] = "replace"
        bench.imported("a", "b", texts=("x", "y"), size=70)
        assert bench.load().read == (2, 4, 140)
        bench.again("a", lambda work: Outcome(work.id, "failed", "v2", reason=Reason("syntax", "no"), size=30),
                    version="v2")  # fmt: skip
        assert bench.load().read == (3, 4, 170)
        bench.again("b", lambda work: Outcome(work.id, "done", "v1", mode="unchanged", size=70), version=None)
        bench.again("b", lambda work: Outcome(work.id, "gone", archive=True), version=None)
        assert bench.load().read == (3, 4, 170)
        project = self.project(bench)
        assert (project.tasks, project.imported) == (2, 4)

    def test_what_the_scheduler_remembers(self, bench: Bench) -> None:
        """Cursor, deficit, age and bucket of a source, and the bucket of a project, are as they were saved."""

        def save(tick: Tick) -> None:
            source = tick.load().sources[0]
            tick.save(source._replace(cursor=(1000.5, 7), deficit=-3.25, passed_over=99.5, bucket=(5e12, 123.5)))
            tick.spend(source.project_id, 12.5)

        bench.tick(save)
        source = bench.load()
        assert (source.cursor, source.deficit, source.passed_over) == ((1000.5, 7), -3.25, 99.5)
        assert source.bucket == (5e12, 123.5)
        project = self.project(bench)
        assert project.tokens == 12.5
        assert abs(project.tokens_at - bench.ledger.now()) < 10
        assert bench.load("bucket").bucket == (0.0, 0.0)

    def test_a_source_that_moves(self, bench: Bench) -> None:
        """What a source that moves into another project brings along is not taken for a flood of imports there."""
        bench.imported("a", texts=("x", "y"))
        bench.tick(lambda tick: [tick.spend(project.id, 1.0) for project in tick.load().projects])
        bench.ledger.register(SOURCES)
        assert self.project(bench, "dogs").tokens_at > 0
        bench.ledger.register([SOURCES[0]._replace(project="dogs"), SOURCES[1]])
        project = self.project(bench, "dogs")
        assert (project.tokens_at, project.imported) == (0.0, 2)
        assert self.project(bench, "cats").tokens_at > 0

    def test_what_is_shared(self, bench: Bench) -> None:
        """Notes and pressure are there for every other scheduler, and the notes for people."""
        assert self.load(bench).shared.notes == "{}"
        bench.tick(lambda tick: tick.note('{"sources":{"inbox":["paused"]}}'))
        bench.tick(lambda tick: tick.press((2.0, 0.25, 70, 12.5, 1000.5)))
        shared = self.load(bench).shared
        assert shared.pressure == (2.0, 0.25, 70, 12.5, 1000.5)
        assert abs(shared.noted_at - bench.ledger.now()) < 10
        told = bench.ledger.reports().scheduling()
        assert (told["sources"], told["projects"]) == ({"inbox": ["paused"]}, {})
        assert told["at"] == pytest.approx(shared.noted_at)

    def test_commits_of_living_workers(self, bench: Bench) -> None:
        """What the processes have told of their commits is added up; of a dead one nothing counts."""
        assert self.load(bench).commits == (0, 0.0)
        bench.ledger.beat("one", 2, 60, (10, 0.5))
        bench.ledger.beat("two", 2, 60, (5, 1.25))
        bench.ledger.beat("gone", 2, -1, (1000, 1000.0))
        bench.ledger.beat("one", 2, 60, (11, 0.75))
        load = self.load(bench)
        assert load.commits == (16, 2.0)
        assert load.threads == 4

    def test_open_tasks(self, bench: Bench) -> None:
        """Live tasks without annotations are open: not those that came with some, nor archived ones; with them comes
        how many were ever imported."""
        labelled = task("l", annotations='[{"result":[]}]')
        none = task("n", annotations="[]")
        bench.imported("a", texts=("x", "y", labelled, none))  # type: ignore[arg-type]
        bench.imported("b")
        lease, (work,) = bench.begin("c", source="bucket")
        bench.commit(lease, done(work))
        reports = bench.ledger.reports()
        assert reports.open_tasks("cats") == Tally(4, 5, 5)
        assert reports.open_tasks("dogs") == Tally(1, 1, 1)
        assert reports.open_tasks("nobody") == Tally()
        bench.again("b", lambda work: Outcome(work.id, "gone", archive=True), version=None)
        assert reports.open_tasks("cats") == Tally(3, 5, 4)

    def test_undelivered_tasks(self, bench: Bench) -> None:
        """What waits for the delivery that is furthest behind is counted, with what is in its open batches."""
        reports = bench.ledger.reports()
        assert reports.undelivered("cats") == Tally()
        for name, retired in (("one", "0"), ("two", "0"), ("old", "1")):
            bench.execute(
                "INSERT INTO deliveries (project_id, name, kind, target, stamp) SELECT id,"
                f" '{name}', 'jsonl', 't', '{name}' FROM projects WHERE name = 'cats'"
            )
            if retired == "1":
                bench.execute(f"UPDATE deliveries SET retired = (1 = 1) WHERE name = '{name}'")
        bench.imported("a", texts=("x", "y", "z"))
        assert reports.undelivered("cats") == Tally(3, 3, 3)
        for state, tasks in (("unsure", 4), ("done", 100)):
            bench.execute(
                f"INSERT INTO batches (delivery_id, state, tasks, created_at) SELECT d.id, '{state}', {tasks}, o.at"
                " FROM deliveries AS d JOIN outbox AS o ON o.delivery_id = d.id WHERE d.name = 'two'"
            )
        assert reports.undelivered("cats") == Tally(7, 3, 3)
        assert reports.undelivered("dogs") == Tally()
        bench.again("a", lambda work: Outcome(work.id, "gone", archive=True), version=None)
        assert reports.undelivered("cats")[1:] == (3, 0)

    @staticmethod
    def leaving(bench: Bench, cursor: tuple[float, int] = (0.0, 0)) -> list[str]:
        """What leaves, by key."""
        found = bench.tick(lambda tick: tick.leaving(tick.load().sources[0]._replace(cursor=cursor), 100))
        keys = {bench.row(key)["id"]: key for key in "abcde"}
        return [keys[number] for number in found.ids]

    @staticmethod
    def load(bench: Bench) -> Load:
        """The whole picture."""
        found: Load = bench.tick(lambda tick: tick.load())
        return found

    def project(self, bench: Bench, name: str = "cats") -> ProjectLoad:
        """A project, as the tick sees it."""
        return next(project for project in self.load(bench).projects if project.name == name)

    @staticmethod
    def projects(bench: Bench) -> dict[str, dict[str, Any]]:
        """The projects as the reports tell of them."""
        return {row["name"]: row for row in bench.ledger.reports().projects()}
