"""What every ledger promises of sources that are paused, by hand or by their failures."""

from __future__ import annotations

from itertools import pairwise

from pipeline.ledger import (
    LONGEST_PROBE_SECONDS,
    LOST_WORKERS_LIMIT,
    PAUSE_AFTER,
    PROBE_SECONDS,
    Outcome,
    Reason,
    SourceIdentity,
    Standing,
)
from tests.ledger.bench import SOURCES, Bench, done


class StandingContract:
    def test_same_failures_pause(self, bench: Bench) -> None:
        """The last so many objects having failed with one code pauses their source, and the reports say so."""
        self.fail(bench, PAUSE_AFTER - 1)
        assert bench.load().standing == Standing(PAUSE_AFTER - 1, "syntax")
        self.fail(bench, 1, start=100)
        standing = bench.load().standing

        assert (standing.failing, standing.code, standing.paused) == (PAUSE_AFTER, "syntax", "failures")
        assert standing.since is not None
        assert abs(standing.probe_due - standing.since - PROBE_SECONDS) < 1
        paused = {row["name"]: row["paused"] for row in bench.ledger.reports().sources()}
        assert paused["bucket"] is None
        assert (paused["inbox"]["by"], paused["inbox"]["failing"], paused["inbox"]["code"]) == (
            "failures", PAUSE_AFTER, "syntax",
        )  # fmt: skip
        assert bench.load("bucket").standing == Standing()

    def test_other_failures_do_not_pause(self, bench: Bench) -> None:
        """Failures with different codes, or with an import among them, are bad files and pause nothing."""
        self.fail(bench, PAUSE_AFTER - 1)
        self.fail(bench, PAUSE_AFTER - 1, "encoding", start=100)
        bench.imported("good")
        assert bench.load().standing == Standing()
        self.fail(bench, PAUSE_AFTER - 1, start=200)
        assert bench.load().standing.paused is None

    def test_order_within_a_commit(self, bench: Bench) -> None:
        """Outcomes of one commit count in their order: what passed last is what counts."""
        lease, work = bench.begin(*(f"k{number:02}" for number in range(PAUSE_AFTER + 1)))
        failed = [self.failed(each.id) for each in work[:-1]]
        bench.commit(lease, *failed, done(work[-1]))
        assert bench.load().standing == Standing()

    def test_skipped_and_unchanged_prove_nothing(self, bench: Bench) -> None:
        """An object that was skipped, or found unchanged, neither fails nor passes."""
        bench.imported("same")
        self.fail(bench, 3)
        bench.again("empty", lambda work: Outcome(work.id, "skipped", "v1", reason=Reason("no_tasks", "empty")))
        bench.again("same", lambda work: Outcome(work.id, "done", "v1", mode="unchanged"), version=None)
        assert bench.load().standing == Standing(3, "syntax")

    def test_probes_back_off(self, bench: Bench) -> None:
        """Each further failure of a paused source doubles the time until the next object is tried, to a bound."""
        self.fail(bench, PAUSE_AFTER)
        waits = []
        for number in range(10):
            self.fail(bench, 1, start=100 + number)
            waits.append(bench.load().standing.probe_due - bench.ledger.now())
        assert all(later > sooner for sooner, later in pairwise(waits[:6]))
        assert LONGEST_PROBE_SECONDS - 5 < waits[-1] <= LONGEST_PROBE_SECONDS

    def test_one_that_passes_ends_it(self, bench: Bench) -> None:
        """The first object that is imported lets a source that its failures paused go on."""
        self.fail(bench, PAUSE_AFTER + 3)
        bench.imported("good")
        assert bench.load().standing == Standing()

    def test_by_hand(self, bench: Bench) -> None:
        """What a person pauses stays so, whatever passes or fails, until a person ends it; it holds up no run."""
        inbox = bench.load().id
        bench.ledger.pause(inbox)
        bench.imported("good")
        self.fail(bench, PAUSE_AFTER)
        bench.note("waits")
        assert bench.load().standing.paused == "hand"
        bench.ledger.resume(inbox)
        assert bench.load().standing == Standing()

    def test_projects(self, bench: Bench) -> None:
        """A project is paused and resumed by its name; the tick and the reports see it, and doing it twice is told."""
        assert bench.ledger.pause_project("cats", paused=True)
        assert not bench.ledger.pause_project("cats", paused=True)
        assert not bench.ledger.pause_project("no such project", paused=True)
        paused = {each.name: each.paused for each in bench.tick(lambda tick: tick.load()).projects}
        assert paused["dogs"] is None
        assert abs(paused["cats"] - bench.ledger.now()) < 10
        assert {row["name"]: row["paused"] for row in bench.ledger.reports().projects()} == paused
        assert bench.ledger.pause_project("cats", paused=False)
        assert not bench.ledger.pause_project("cats", paused=False)

    def test_lost_workers_pause(self, bench: Bench) -> None:
        """Objects whose processes died too often count as failures of their source, as any other does."""
        self.fail(bench, 3, "worker_lost")
        for _ in range(LOST_WORKERS_LIMIT):
            lease, (work,) = bench.begin(*() if bench.load().ready else ("poison",))
            bench.ledger.give_back(lease, lost=work.id)
        assert bench.state("poison") == "failed"
        assert bench.load().standing == Standing(4, "worker_lost")

    def test_another_configuration_forgives(self, bench: Bench) -> None:
        """With a changed configuration a source's failures are forgotten, with the same one they are not."""
        self.fail(bench, PAUSE_AFTER)
        bench.ledger.register(SOURCES)
        assert bench.load().standing.paused == "failures"
        bench.ledger.register([SourceIdentity(*SOURCES[0][:4], "h2"), SOURCES[1]])
        assert bench.load().standing == Standing()

    def test_newest(self, bench: Bench) -> None:
        """What is tried first of a paused source is what became due last."""
        for key in ("a", "c", "b"):
            bench.note(key)

        found = bench.tick(lambda tick: tick.newest(tick.load().sources[0]))
        assert [each.id for each in found] == [bench.row("b")["id"]]

    @staticmethod
    def failed(object_id: int, code: str = "syntax") -> Outcome:
        """A failed object."""
        return Outcome(object_id, "failed", "v1", reason=Reason(code, "it is broken"))

    def fail(self, bench: Bench, count: int, code: str = "syntax", start: int = 0) -> None:
        """Let so many new objects fail."""
        lease, work = bench.begin(*(f"{code}{number:04}" for number in range(start, start + count)))
        bench.commit(lease, *(self.failed(each.id, code) for each in work))
