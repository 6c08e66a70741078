"""Outcomes of one claim on their way into the ledger: many small ones share a commit, none waits long."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline import logs
from pipeline.consumers.rows import DatabaseDown
from pipeline.errors import DataRefused, UnavailableError, UsageError
from pipeline.faults import reached
from pipeline.ledger import STAGE_BYTES, Committed, Ledger, Outcome, Reason
from pipeline.metrics import Metrics

LONGEST_WAIT_SECONDS = 0.25
"""An outcome is committed at the latest this long after the first one that it shares a commit with."""
LARGE_CLAIM_OBJECTS = 250
LARGE_CLAIM_WAIT_SECONDS = 1.0
"""In a claim as large as this all have waited already: there the fixed price of a commit counts for more."""
LATENCY_SAMPLES = 8
"""Objects of one commit whose time from change to tasks is measured; each costs as much as parsing a file."""
LATENCY_LIMIT_SECONDS = 3600.0
"""What changed longer ago was not late: it is an old file that is imported for the first time."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Summary:
    """What became of one claim's objects: how many ended in each state, tasks, rejected rows, bytes read."""

    states: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    rejected: int = 0
    bytes: int = 0
    lost: int = 0


class Commits:
    """Gathers the outcomes of one claim and commits them in batches. Used by one thread.

    `committed` is called after each commit, `doubted` after one that kept nothing: the lease may be over.
    `each` commits every outcome by itself.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: Metrics,
        lease: int,
        source: str,
        *,
        committed: Callable[[], None],
        doubted: Callable[[], None],
        each: bool,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._lease = lease
        self._source = source
        self._committed = committed
        self._doubted = doubted
        self._each = each
        self._outcomes: list[Outcome] = []
        self._modified: list[float] = []
        self._bytes = 0
        self._first = 0.0
        self._wait = LONGEST_WAIT_SECONDS
        self.summary = Summary()

    def expect(self, objects: int) -> None:
        """Say how many objects the claim has, before any outcome."""
        if objects >= LARGE_CLAIM_OBJECTS:
            self._wait = LARGE_CLAIM_WAIT_SECONDS

    def add(self, outcome: Outcome, size: int, modified: float, at: float) -> None:
        """Take an outcome that came `at` (monotonic) and is about `size` bytes; commit if it is time to.

        Raises DatabaseDown.
        """
        if not self._outcomes:
            self._first = at
        self._outcomes.append(outcome)
        self._modified.append(modified)
        self._bytes += size
        if self._each or self._bytes >= STAGE_BYTES or at - self._first >= self._wait:
            self.flush()

    def add_all(self, outcomes: Sequence[Outcome], modified: Sequence[float], at: float) -> None:
        """Take small objects' outcomes that came together. Raises as `add`."""
        if not outcomes:
            return
        if not self._outcomes:
            self._first = at
        self._outcomes += outcomes
        self._modified += modified
        self._bytes += sum([outcome.size for outcome in outcomes])
        if self._each or self._bytes >= STAGE_BYTES or at - self._first >= self._wait:
            self.flush()

    def flush_due(self) -> None:
        """Commit what has waited its time: the object under way may take long. Raises as `add`."""
        if self._outcomes and time.monotonic() - self._first >= self._wait:
            self.flush()

    def flush(self) -> None:
        """Commit what is gathered. Raises as `add`."""
        if not self._outcomes:
            return
        outcomes, modified = self._outcomes, self._modified
        self._outcomes, self._modified, self._bytes = [], [], 0
        reached("worker.before_commit")
        started = time.monotonic()
        committed = self._commit(outcomes)
        reached("worker.committed")
        seconds = time.monotonic() - started
        self._metrics.observe("commit_duration_seconds", seconds)
        self._metrics.add("busy_seconds_total", seconds, stage="commit")
        self._tell(outcomes, committed)
        self._measure(outcomes, modified, committed)
        self._committed()
        if not committed.kept:
            self._doubted()

    def _commit(self, outcomes: Sequence[Outcome]) -> Committed:
        try:
            return self._write(outcomes)
        except DataRefused as error:
            return self._commit_halves(outcomes, error)

    def _write(self, outcomes: Sequence[Outcome]) -> Committed:
        try:
            return self._ledger.commit(self._lease, outcomes)
        except (UnavailableError, UsageError) as error:
            self._metrics.add("errors_total", stage="commit", code=error.code)
            raise DatabaseDown(error) from error

    def _commit_halves(self, outcomes: Sequence[Outcome], error: DataRefused) -> Committed:
        """Find the outcome that the database refuses, so that its neighbours need not fail with it."""
        if len(outcomes) == 1:
            fields = {"object": outcomes[0].object_id, "source": self._source, "lease": self._lease}
            _log.error(logs.OBJECT_REFUSED, extra=fields | {"error": str(error)})
            return self._write([_refused(outcomes[0])])
        middle = len(outcomes) // 2
        first, second = self._commit(outcomes[:middle]), self._commit(outcomes[middle:])
        return Committed(first.kept | second.kept, first.lost | second.lost, first.tasks + second.tasks)

    def _tell(self, outcomes: Sequence[Outcome], committed: Committed) -> None:
        kept = [outcome for outcome in outcomes if outcome.object_id in committed.kept]
        states = Counter([outcome.state for outcome in kept])
        rejected = sum([outcome.rejected_count for outcome in kept])
        size = sum([outcome.size for outcome in outcomes])
        for state, count in states.items():
            self._metrics.add("imported_objects_total", count, source=self._source, state=state)
        for code, count in Counter([outcome.reason.code for outcome in kept if outcome.reason]).items():
            self._metrics.add("errors_total", count, stage="import", code=code)
        self._metrics.add("written_tasks_total", committed.tasks, source=self._source)
        self._metrics.add("rejected_rows_total", rejected, source=self._source)
        self._metrics.add("read_bytes_total", size, source=self._source)
        self._metrics.add("duplicates_avoided_total", len(committed.lost))
        self.summary.states.update(states)
        self.summary.tasks += committed.tasks
        self.summary.rejected += rejected
        self.summary.bytes += size
        self.summary.lost += len(committed.lost)

    def _measure(self, outcomes: Sequence[Outcome], modified: Sequence[float], committed: Committed) -> None:
        now = time.time()
        step = max(1, len(outcomes) // LATENCY_SAMPLES)
        for outcome, changed in zip(outcomes[::step], modified[::step], strict=True):
            seconds = now - changed
            if outcome.object_id in committed.kept and outcome.task_count and 0 <= seconds < LATENCY_LIMIT_SECONDS:
                self._metrics.observe("end_to_end_seconds", seconds, source=self._source)


def _refused(outcome: Outcome) -> Outcome:
    reason = Reason(
        "internal",
        "the database refuses its tasks",
        hint="this is an error in Labelfeed; the log has the details",
    )
    return Outcome(
        outcome.object_id,
        "failed",
        version=outcome.version,
        reason=reason,
        rejected_count=outcome.rejected_count if outcome.staged else 0,
        size=outcome.size,
        staged=outcome.staged,
    )
