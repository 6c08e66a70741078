"""A store, a lossy log, schedulers, workers and zombies in one thread, around a real ledger.

The store's objects hold one of a few contents, so that contents come back. A content is its own version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from pipeline.consumers.outcomes import mode_of
from pipeline.errors import LeaseLost
from pipeline.events import ObjectEvent, Sequencer, fold
from pipeline.ledger import ENDED, Claim, OnChange, Outcome, Reason, RevisionFilter, SourceIdentity, Tick, Work
from pipeline.tasks import Task
from tests.ledger.bench import Bench, pending, task

KEYS = ("a", "b/1", "b/2", "c")
CONTENTS = {
    "A": ("1", "2"), "B": ("2", "3", "2"), "C": ("9",), "D": ("4", "1"), "E": (), "broken": ("never",),
}  # fmt: skip
LABELLED = ("1", "9")
"""Tasks with these texts carry annotations, so that they are never written over."""
BROKEN = "broken"
ROUNDS = 50
"""Passes after which everything must have come to rest."""


@dataclass
class Hand:
    """What one worker holds: a lease, objects, and what it has read of them (None: the store said 404)."""

    lease: int
    work: list[Work]
    read: dict[int, str | None] = field(default_factory=dict)


class Simulation:
    """One source of its own in the bench's ledger."""

    def __init__(self, bench: Bench, name: str, policy: OnChange, *, archive: bool, ordered: bool) -> None:
        self.bench = bench
        self.name = name
        self.policy = policy
        self.archive = archive
        self.ordered = ordered
        self.store: dict[str, str] = {}
        self.log: list[ObjectEvent] = []
        self.sent: list[Claim] = []
        self.hands: list[Hand] = []
        self.labelled: dict[int, str] = {}
        self._clock = 0
        (row,) = bench.ledger.register([SourceIdentity(name, "cats", name, name, "h")])
        self.id = row.id

    # --- the store, and what is heard of it ---

    def put(self, key: str, content: str) -> None:
        """Write an object."""
        self.store[key] = content
        self._tell(key, "created", content)

    def delete(self, key: str) -> None:
        """Delete an object."""
        if self.store.pop(key, None) is not None:
            self._tell(key, "deleted", None)

    def _tell(self, key: str, kind: str, version: str | None) -> None:
        self._clock += 1
        token = Sequencer("s3", f"{self._clock:04X}") if self.ordered else None
        self.log.append(ObjectEvent(self.name, key, kind, version, token, discovered_by="notification"))  # type: ignore[arg-type]

    def deliver(self, indices: Iterable[int], *, keep: bool) -> None:
        """Record some events of the log; they may come again."""
        chosen = {index % len(self.log) for index in indices} if self.log else set()
        self._record([self.log[index] for index in chosen])
        if not keep:
            self.log = [event for index, event in enumerate(self.log) if index not in chosen]

    def _record(self, events: Sequence[ObjectEvent]) -> None:
        self.bench.ledger.record("log", fold(events), {}, {self.name: self.policy})

    def listing(self) -> list[ObjectEvent]:
        """One pass: what differs between the store and the ledger."""
        known = {row.key: row for row in self.bench.ledger.known(self.id, None, None, 1000)}
        events = [
            ObjectEvent(self.name, key, "seen", content)
            for key, content in self.store.items()
            if key not in known or known[key].wanted != content or known[key].state == "gone"
        ]
        gone = [key for key, row in known.items() if key not in self.store and row.state != "gone"]
        return events + [ObjectEvent(self.name, key, "deleted") for key in gone]

    def passes(self, *, late: bool) -> None:
        """List; with `late` what it finds lies in the log for a while."""
        found = self.listing()
        if late:
            self.log.extend(found)
        else:
            self._record(found)

    # --- the pipeline ---

    def claim(self, size: int) -> None:
        """Claim what is ready."""

        def turn(tick: Tick) -> list[Claim]:
            (source,) = tick.load().sources
            found = tick.candidates(source._replace(cursor=(0.0, 0)), size)
            return [tick.claim(source, found, "e", 60.0, alone=False)] if found else []

        self.sent.extend(self.bench.ledger.tick(turn) or [])

    def start(self, index: int, *, twice: bool) -> None:
        """A worker takes a message (which may come twice)."""
        if not self.sent:
            return
        claim = self.sent[index % len(self.sent)]
        if not twice:
            self.sent.remove(claim)
        work = self.bench.ledger.start(claim.lease, "w", 60.0)
        if work:
            self.hands.append(Hand(claim.lease, work))

    def read(self, index: int) -> None:
        """A worker reads the next of its objects."""
        if self.hands:
            hand = self.hands[index % len(self.hands)]
            left = [work for work in hand.work if work.id not in hand.read]
            if left:
                hand.read[left[0].id] = self.store.get(left[0].key)

    def commit(self, index: int, *, staged: bool, repeat: bool) -> None:
        """A worker commits what it has read, and perhaps does it once more."""
        if not self.hands:
            return
        hand = self.hands[index % len(self.hands)]
        read = [work for work in hand.work if work.id in hand.read]
        outcomes = [self._outcome(hand, work, staged=staged) for work in read]
        if outcomes:
            self.bench.ledger.commit(hand.lease, outcomes)
            self._look_at_labelled()
            if repeat:
                assert not self.bench.ledger.commit(hand.lease, outcomes).kept
        hand.work = [work for work in hand.work if work.id not in hand.read]
        if not hand.work:
            self.hands.remove(hand)

    def _outcome(self, hand: Hand, work: Work, *, staged: bool) -> Outcome:
        content = hand.read[work.id]
        if content is None:
            return Outcome(work.id, "gone", archive=self.archive)
        if content == BROKEN and content != work.imported:
            return Outcome(work.id, "failed", content, reason=Reason("syntax", "it is broken"))
        mode = mode_of(work, content, self.policy)
        if mode in ("unchanged", "ignored"):
            return Outcome(work.id, "done", content, mode=mode)
        tasks = [_task(text, row) for row, text in enumerate(CONTENTS[content], start=1)]
        if staged and self._stage(hand, work, tasks):
            return Outcome(work.id, "done", content, mode=mode, task_count=len(tasks), staged=True)
        return Outcome(work.id, "done", content, mode=mode, tasks=tasks, task_count=len(tasks))

    def _stage(self, hand: Hand, work: Work, tasks: Sequence[Task]) -> bool:
        try:
            for position, each in enumerate(tasks):
                self.bench.ledger.stage(hand.lease, work.id, position, [each], [])()
        except LeaseLost:
            return False
        return True

    def work(self, *, staged: bool = False) -> None:
        """Everything that is ready or held is imported."""
        self.claim(100)
        while self.sent:
            self.start(0, twice=False)
        while self.hands:
            self.read(0)
            self.commit(0, staged=staged, repeat=False)

    def die(self, index: int) -> None:
        """A worker is gone without a word."""
        if self.hands:
            self.hands.pop(index % len(self.hands))

    def give_back(self, index: int, *, lost: bool) -> None:
        """A worker stops, or a child of it has died."""
        if self.hands:
            hand = self.hands.pop(index % len(self.hands))
            self.bench.ledger.give_back(hand.lease, lost=hand.work[0].id if lost else None)

    def expire(self, index: int) -> None:
        """A lease ends; whoever holds it is a zombie from now on and doesn't know."""
        leases = [lease for (lease,) in self.bench.execute("SELECT id FROM leases ORDER BY id")]
        if leases:
            self.bench.end_lease(leases[index % len(leases)])
            self.bench.tick(lambda tick: tick.expire(100))

    def retry(self, key: str, *, force: bool) -> None:
        """A person puts an object back; not by force where that would merge what was appended."""
        force = force and self.policy != "append"
        found = self.bench.ledger.reports().find(self.name, key)
        self.bench.ledger.reports().retry([row["id"] for row in found], force=force)

    def decide(self, index: int, *, accept: bool) -> None:
        """A person decides on a proposed revision."""
        found = self.bench.ledger.reports().revisions(RevisionFilter(self.name), 0, 100)
        if found:
            row = found[index % len(found)]
            assert self.bench.ledger.decide([row["id"]], accept=accept) == {}
            if accept:
                del self.labelled[row["task_id"]]
            self._look_at_labelled()

    def _look_at_labelled(self) -> None:
        """What carries annotations stays as it is until a person accepts another content."""
        rows = "SELECT t.id, t.data FROM task_rows AS t JOIN objects AS o ON o.id = t.object_id JOIN sources AS s"
        rows += f" ON s.id = o.source_id WHERE s.name = '{self.name}'"
        there = {task_id: str(data) for task_id, data in self.bench.execute(rows)}
        assert self.labelled.items() <= there.items()
        live = f"SELECT id FROM tasks WHERE source = '{self.name}' AND annotations IS NOT NULL"
        self.labelled = {task_id: there[task_id] for (task_id,) in self.bench.execute(live)} | self.labelled

    def sweep(self) -> None:
        """The leader tidies up."""
        self.bench.ledger.sweep(2)

    # --- the end ---

    def settle(self) -> None:
        """Lose what is in the log, end every lease, then list and import until nothing differs."""
        self.log, self.hands = [], []
        for _ in range(ROUNDS):
            for (lease,) in self.bench.execute("SELECT id FROM leases"):
                self.bench.end_lease(lease)
            self.bench.tick(lambda tick: tick.expire(1000))
            self.work()
            if not pending(self.bench.ledger):
                found = self.listing()
                if not found:
                    break
                self._record(found)
        else:
            raise AssertionError("it does not come to rest")
        while self.bench.ledger.sweep(100):
            pass

    def verify(self) -> None:
        """Every object at its newest content exactly once, or as its policy says."""
        reports = self.bench.ledger.reports()
        audits = {audit.key: audit for audit in reports.audit(self.id, None, 1000)}
        assert set(self.store) <= set(audits)
        for key, audit in audits.items():
            assert audit.state in ENDED
            found = [row["data"].split('"')[3] for row in reports.object_tasks(audit.id, 1000)]
            if key not in self.store:
                assert audit.state == "gone"
                assert not found or not self.archive
                continue
            content = self.store[key]
            assert audit.wanted == content
            self._verify_tasks(content, audit.id, audit.imported, audit.state, found)
            assert audit.imports <= 1
        staged = "SELECT count(*) FROM imports WHERE state IN ('staged', 'discarded')"
        assert self.bench.execute(staged) == [(0,)]
        self.bench.check()

    def _verify_tasks(self, content: str, object_id: int, imported: str | None, state: str, found: list[str]) -> None:
        if content == BROKEN and imported != BROKEN and self.policy != "ignore":
            assert state == "failed"
        elif self.policy != "ignore":
            assert (state, imported) == ("done", content)
        if self.policy == "append":
            live = [row for row in self.bench.ledger.reports().imports(object_id) if row["state"] == "live"]
            assert sorted(found) == sorted(text for row in live for text in CONTENTS[row["version"]])
        elif imported is None or (state == "failed" and self.archive and not found):
            # What came back broken leaves archived what was archived when it went.
            assert found == []
        else:
            assert self._is(object_id, found, CONTENTS[imported])

    def _is(self, object_id: int, found: Sequence[str], content: Sequence[str]) -> bool:
        """Whether the tasks are those of a content, where what was proposed of a labelled one counts, too."""
        told: dict[int, str] = {}
        for row in self.bench.ledger.reports().revisions(RevisionFilter(object_id=object_id, decided=True), 0, 1000):
            if row["state"] in ("proposed", "rejected"):
                told[row["task_id"]] = row["data"].split('"')[3]
        tasks = self.bench.ledger.reports().object_tasks(object_id, 1000)
        either = [{row["data"].split('"')[3], told.get(row["id"], row["data"].split('"')[3])} for row in tasks]
        assert len(either) == len(found)
        return any(sorted(texts) == sorted(content) for texts in product(*either))


def _task(text: str, row: int) -> Task:
    return task(text, row, annotations="[1]") if text in LABELLED else task(text, row)
