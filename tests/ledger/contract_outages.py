"""What every ledger promises of objects that wait for storage that does not answer."""

from __future__ import annotations

from pipeline.ledger import Outcome, Reason
from tests.ledger.bench import Bench, done, task


class OutageContract:
    def test_unanswered(self, bench: Bench) -> None:
        """Objects whose storage did not answer are told of with the last reason, and since when nothing else came."""
        reports = bench.ledger.reports()
        assert reports.unanswered("inbox") is None
        bench.imported("good")
        bench.note("new")
        assert reports.unanswered("inbox") is None
        lease, work = bench.begin("a", "b")
        bench.commit(lease, *(self.waits(each.id, 30.0 + n, f"no answer {n}") for n, each in enumerate(work)))
        found = reports.unanswered("inbox")
        assert found is not None
        since = found.pop("since")
        assert found == {"objects": 3, "code": "unavailable", "message": "no answer 2"}
        (ended,) = [row["finished_at"] for row in reports.sources() if row["name"] == "inbox"]
        assert ended <= since <= bench.ledger.now()
        assert reports.unanswered("bucket") is None

    def test_unanswered_under_way(self, bench: Bench) -> None:
        """What is tried again just now is told of, too, until something else comes of it."""
        lease, (work,) = bench.begin("a")
        bench.commit(lease, self.waits(work.id, 0.0))
        lease, (work,) = bench.begin()
        assert (bench.ledger.reports().unanswered("inbox") or {})["objects"] == 1
        bench.commit(lease, done(work))
        assert bench.ledger.reports().unanswered("inbox") is None

    def test_unsettled_is_answered(self, bench: Bench) -> None:
        """What changes while it is read does not wait for its storage, nor what there is a new version of."""
        lease, (away, moving) = bench.begin("away", "moving")
        changed = Outcome(moving.id, "ready", reason=Reason("unsettled", "it changed"), retry_after=60.0)
        bench.commit(lease, self.waits(away.id, 60.0), changed)
        reports = bench.ledger.reports()
        assert (reports.unanswered("inbox") or {})["objects"] == 1
        bench.note("away", version="v2")
        assert reports.unanswered("inbox") is None

    def test_hasten(self, bench: Bench) -> None:
        """What waits for its storage can be made due at once; what backs off for its own sake stays where it is."""
        lease, work = bench.begin("away", "moving")
        moving = Outcome(work[1].id, "ready", reason=Reason("unsettled", "it changed"), retry_after=600.0)
        bench.commit(lease, self.waits(work[0].id, 600.0), moving)
        assert bench.claims() == []
        assert bench.ledger.reports().hasten("bucket") == 0
        assert bench.ledger.reports().hasten("inbox") == 1
        (claim,) = bench.claims()
        assert claim.ids == (work[0].id,)
        assert bench.ledger.reports().hasten("inbox") == 0

    def test_staged(self, bench: Bench) -> None:
        """Rows of a large file are counted while it is written, and no longer once it is published."""
        reports = bench.ledger.reports()
        lease, (work,) = bench.begin("large")
        assert reports.staged("inbox") == 0
        bench.ledger.stage(lease, work.id, 0, [task("a", 1), task("b", 2)], [])()
        assert (reports.staged("inbox"), reports.staged("bucket")) == (2, 0)
        bench.ledger.stage(lease, work.id, 2, [task("c", 3)], [])()
        assert reports.staged("inbox") == 3
        bench.commit(lease, done(work, (), staged=True)._replace(task_count=3))
        assert reports.staged("inbox") == 0

    @staticmethod
    def waits(object_id: int, seconds: float, message: str = "no answer") -> Outcome:
        """An object whose storage did not answer."""
        return Outcome(object_id, "ready", reason=Reason("unavailable", message), retry_after=seconds)
