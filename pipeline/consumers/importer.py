"""The heart of a worker: a started claim's objects are read, parsed and committed. Knows no queue and no log.

No transaction is open while bytes are fetched or parsed. Whatever one object does, the others of its claim
are not stopped by it; whoever has lost the lease writes nothing more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline import logs
from pipeline.config import Limits
from pipeline.consumers import Feed
from pipeline.consumers.claim import Cancelled, ClaimRun
from pipeline.consumers.commits import Summary
from pipeline.consumers.reading import ReadAhead
from pipeline.consumers.renewer import Held, Renewer
from pipeline.consumers.rows import DatabaseDown
from pipeline.errors import LabelfeedError, LeaseLost, RetriableError, UsageError
from pipeline.events import TRACES_TOLD
from pipeline.faults import reached
from pipeline.ledger import Ledger, Work
from pipeline.metrics import Metrics
from pipeline.stores import READING_THREADS_LIMIT, concurrency
from pipeline.waiting import Patience, our_error

NO_OBJECT = 0
"""What `at` is told while no object is worked on."""

_log = logging.getLogger(__name__)


def _nothing(*_: object) -> None:
    """Nobody listens."""


class Importer:
    """Imports claims. Used by all worker threads of a process at once.

    `committed` is called after every commit. `at` is told each object's id before it is opened, and
    makes every object a commit of its own: that is how a child process works.
    """

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        ledger: Ledger,
        metrics: Metrics,
        worker: str,
        limits: Limits,
        renewer: Renewer,
        committed: Callable[[], None] = _nothing,
        at: Callable[[int], None] | None = None,
    ) -> None:
        self.feeds = feeds
        self.ledger = ledger
        self.metrics = metrics
        self.limits = limits
        self.renewer = renewer
        self.committed = committed
        self.at = at
        self._worker = worker
        self._patience = Patience("worker")
        self._cancelling = threading.Event()
        self.cancelled = False
        self.problem: str | None = None
        """Why a claim waits for the database, or None."""
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self.stager = ThreadPoolExecutor(limits.workers + 1, thread_name_prefix="stage")
        self._lock = threading.Lock()

    def run(self, lease: int) -> Summary:
        """Start a claim, import its objects, give back what had no outcome.

        Never raises what the database or storage cause: while the database does not answer it waits, so
        that the caller takes no further claim meanwhile.
        """
        reached("worker.before_start")
        try:
            work = self.ledger.start(lease, self._worker, self.limits.lease)
        except LabelfeedError as error:
            self._surrender(lease, error)
            return Summary()
        if not work:
            _log.debug(logs.BATCH_CANCELLED, extra={"lease": lease, "why": "ended before it was started"})
            return Summary()
        reached("worker.started")
        feed = self.feeds.get(work[0].source)
        if feed is None:
            self._give_back(lease)
            return Summary()
        with self.renewer.hold(lease) as held:
            return self._run(held, feed, work)

    def _run(self, held: Held, feed: Feed, work: Sequence[Work]) -> Summary:
        claim = ClaimRun(self, held, feed)
        started = time.monotonic()
        try:
            claim.run(work)
            self._patience.succeeded()
        except LeaseLost:
            claim.lost = True
        except Cancelled:
            self._give_back(held.lease)
        except MemoryError:
            # It runs alone next time, in a process whose memory is bounded.
            _log.exception(logs.OUR_ERROR, extra={"object": claim.current, "source": feed.source.name, "why": "memory"})
            self._give_back(held.lease, lost=claim.current)
        except DatabaseDown as down:
            self._surrender(held.lease, down.error)
        except (RetriableError, UsageError) as error:
            self._surrender(held.lease, error)
        except Exception as error:  # noqa: BLE001 - the outer boundary of a claim: it must not be held until it expires
            self._surrender(held.lease, our_error(error))
        self._tell(claim, work, time.monotonic() - started)
        return claim.commits.summary

    def _tell(self, claim: ClaimRun, work: Sequence[Work], seconds: float) -> None:
        source, summary = work[0].source, claim.commits.summary
        fields: dict[str, object] = {"tasks": summary.tasks, "rejected": summary.rejected, "bytes": summary.bytes}
        fields |= summary.states
        traces = list(dict.fromkeys([item.trace for item in work if item.trace]))[:TRACES_TOLD]
        fields |= {"objects": sum(summary.states.values()), "traces": traces, "seconds": seconds}
        extra: dict[str, object] = {"lease": claim.lease, "source": source}
        if claim.lost or (summary.lost and not summary.states):
            _log.warning(logs.BATCH_CANCELLED, extra=extra | {"why": "the lease was lost"})
        if summary.states or not (claim.lost or summary.lost):
            _log.info(logs.BATCH_COMMITTED, extra=extra | fields)
        self.metrics.observe("claim_duration_seconds", seconds)
        self.metrics.add("busy_seconds_total", claim.opening, stage="open")
        self.metrics.add("busy_seconds_total", claim.parsing, stage="parse")
        self.metrics.add("store_requests_total", claim.gets, source=source, operation="get")

    def cancel(self) -> None:
        """Stop what runs, between two rows' pieces; it goes back uncounted, as does every later claim."""
        self.cancelled = True
        self._cancelling.set()

    def close(self) -> None:
        """End the threads that write large files, and those that read ahead: at once, or when storage answers."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self.stager.shutdown(cancel_futures=True)

    def ahead(self, feed: Feed, meanwhile: Callable[[], None]) -> ReadAhead | None:
        """What reads the objects of a claim ahead of their turn; None if the store has no latency. `meanwhile` is
        called often while one of these is waited for.

        A claim may have all threads of its source: while another one starts or is committed, its part stands idle."""
        each = concurrency(feed.store)
        if each == 1 or self.at is not None:
            return None
        threads = min(READING_THREADS_LIMIT, each * self.limits.workers)
        return ReadAhead(self._pool(feed.source.name, threads), feed.store, feed.rules, threads, meanwhile)

    def _pool(self, source: str, threads: int) -> ThreadPoolExecutor:
        with self._lock:
            if source not in self._pools:
                self._pools[source] = ThreadPoolExecutor(threads, thread_name_prefix=f"read-{source}")
            return self._pools[source]

    def _surrender(self, lease: int, error: LabelfeedError) -> None:
        """The database does not answer, refuses us or has no room: wait, then give the claim back if that can be."""
        self.metrics.set("up", 0, role="work")
        if self.at is not None:
            self.at(NO_OBJECT)
        while True:
            self.problem = f"{error.code}: {error}"
            self._patience.wait(error, self._cancelling)
            try:
                self.ledger.give_back(lease)
            except LabelfeedError as again:
                error = again
                if self.cancelled:
                    return
            else:
                self.problem = None
                self.metrics.set("up", 1, role="work")
                return

    def _give_back(self, lease: int, lost: int | None = None) -> None:
        try:
            self.ledger.give_back(lease, lost=lost)
        except LabelfeedError as error:
            _log.warning(logs.CLAIM_KEPT, extra={"lease": lease, "error": str(error)})
