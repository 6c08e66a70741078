"""What tests of a ledger work with: a database of one test, and shorthands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.events import ObjectEvent, Sequencer
from pipeline.ledger import STATES, Claim, Committed, Ledger, OnChange, Outcome, SourceIdentity, SourceLoad, Tick, Work
from pipeline.tasks import RejectedRow, Task

EPOCH = "redis-1"
SOURCES = (
    SourceIdentity("inbox", "cats", "file:///inbox", "file:///inbox", "h1"),
    SourceIdentity("bucket", "dogs", "s3://bucket", "s3://bucket", "h1"),
)


def task(text: str, row: int = 1, **parts: str) -> Task:
    """A task with one field."""
    return Task(row, f'{{"text":"{text}"}}', **parts)


def rejected(row: int, code: str = "syntax") -> RejectedRow:
    """A row that did not become a task."""
    return RejectedRow(row, code, "it is broken", line=row, column=2, excerpt="{")


@dataclass
class Bench:
    """A database, a ledger on it, `another` ledger on the same one, and SQL of the test's own."""

    ledger: Ledger
    another: Callable[[], Ledger]
    execute: Callable[[str], list[tuple[Any, ...]]]
    policy: dict[str, OnChange] = field(default_factory=lambda: {"inbox": "ignore", "bucket": "ignore"})

    def note(
        self,
        *keys: str,
        version: str | None = "v1",
        source: str = "inbox",
        sequencer: str | None = None,
        **columns: Any,
    ) -> dict[str, int]:
        """Record one event a key; what became of them."""
        token = None if sequencer is None else Sequencer("s3", sequencer)
        events = [ObjectEvent(source, key, version=version, sequencer=token, **columns) for key in sorted(keys)]
        return dict(self.ledger.record("log", events, {}, self.policy))

    def claims(
        self, size: int = 1000, seconds: float = 60.0, *, epoch: str = EPOCH, alone: bool = False
    ) -> list[Claim]:
        """Claim all that is due, in claims of at most `size` objects."""

        def turn(tick: Tick) -> list[Claim]:
            return [
                tick.claim(source, found[first : first + size], epoch, seconds, alone=alone)
                for source in tick.load().sources
                if (found := tick.candidates(source._replace(cursor=(0.0, 0)), 100_000))
                for first in range(0, len(found), size)
            ]

        return self.ledger.tick(turn) or []

    def begin(self, *keys: str, seconds: float = 60.0, **noted: Any) -> tuple[int, list[Work]]:
        """Record, claim and start objects of one source; the lease and the work, in the keys' order."""
        if keys:
            self.note(*keys, **noted)
        (claim,) = self.claims(seconds=seconds)
        return claim.lease, self.ledger.start(claim.lease, "worker", seconds)

    def commit(self, lease: int, *outcomes: Outcome) -> Committed:
        """Commit outcomes."""
        return self.ledger.commit(lease, outcomes)

    def imported(self, *keys: str, texts: Sequence[str | Task] = ("a",), version: str = "v1", **outcome: Any) -> None:
        """Bring objects to `done` with these tasks."""
        lease, work = self.begin(*keys, version=version)
        self.commit(lease, *(done(each, texts, version=version, **outcome) for each in work))

    def again(self, key: str, outcome: Callable[[Work], Outcome], **event: Any) -> Work:
        """Record an event that makes one object ready, and end it with an outcome."""
        lease, (work,) = self.begin(key, **event)
        assert self.commit(lease, outcome(work)).kept == {work.id}
        return work

    def row(self, key: str, source: str | None = None) -> dict[str, Any]:
        """One object as the reports show it."""
        (found,) = self.ledger.reports().find(source, key)
        return found

    def state(self, key: str) -> str:
        """One object's state as it is shown."""
        return str(self.row(key)["state"])

    def texts(self, key: str) -> list[str]:
        """The live tasks of an object, by their one field."""
        found = self.ledger.reports().object_tasks(self.row(key)["id"], 1000)
        return [each["data"].split('"')[3] for each in found]

    def load(self, name: str = "inbox") -> SourceLoad:
        """What one source has waiting."""
        load = self.ledger.tick(lambda tick: tick.load())
        assert load is not None
        return next(source for source in load.sources if source.name == name)

    def tick(self, turn: Callable[[Tick], Any]) -> Any:
        """One turn."""
        return self.ledger.tick(turn)

    def end_lease(self, lease: int) -> None:
        """Let a lease's time be over."""
        now = self.execute("SELECT until FROM leases LIMIT 1")[0][0]
        past = "0" if isinstance(now, float) else "'2000-01-01'"
        self.execute(f"UPDATE leases SET until = {past} WHERE id = {lease}")

    def count(self, table: str) -> int:
        """Rows of a table or view."""
        return int(self.execute(f"SELECT count(*) FROM {table}")[0][0])

    def check(self) -> None:
        """Everything that is kept by deltas equals what is really there."""
        reports, execute = self.ledger.reports(), self.execute
        names = dict(execute("SELECT id, name FROM sources"))
        real = {
            (names[source], state): n
            for source, state, n in execute("SELECT source_id, state, count(*) FROM objects GROUP BY 1, 2")
        }
        live = dict(execute("SELECT source, count(*) FROM tasks GROUP BY 1"))
        broken = dict(execute("SELECT source, count(*) FROM rejected GROUP BY 1"))
        for row in reports.sources():
            counted = {state: row[state] + (row["running"] if state == "claimed" else 0) for state in STATES}
            assert counted == {state: real.get((row["name"], state), 0) for state in STATES}
            assert (row["tasks"], row["rejected"]) == (live.get(row["name"], 0), broken.get(row["name"], 0))
        by_project = dict(execute("SELECT project, count(*) FROM tasks GROUP BY 1"))
        assert {row["name"]: row["tasks"] for row in reports.projects() if row["tasks"]} == by_project
        for source in names:
            for audit in reports.audit(source, None, 100_000):
                assert audit.live == audit.counted, audit
        unheld = "SELECT count(*) FROM objects WHERE (state = 'claimed') <> (lease IS NOT NULL)"
        assert execute(unheld) == [(0,)]
        orphans = "SELECT count(*) FROM objects WHERE lease IS NOT NULL AND lease NOT IN (SELECT id FROM leases)"
        assert execute(orphans) == [(0,)]


def pending(ledger: Ledger) -> int:
    """How many objects of sources that are not retired wait or are under way."""
    rows = [row for row in ledger.reports().sources() if not row["retired"]]
    return sum(row["ready"] + row["claimed"] + row["running"] for row in rows)


def done(work: Work, texts: Sequence[str | Task] = ("a",), **columns: Any) -> Outcome:
    """A done object with these tasks."""
    tasks = [each if isinstance(each, Task) else task(each, number) for number, each in enumerate(texts, start=1)]
    values = {"version": work.wanted, "shape": "h1", **columns}
    count = len(values.get("rejected", ()))
    return Outcome(work.id, "done", tasks=tasks, task_count=len(tasks), rejected_count=count, **values)
