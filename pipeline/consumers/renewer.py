"""Renewing of leases: one thread a process keeps all leases alive that its workers hold, and says that it lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline import logs
from pipeline.errors import LabelfeedError
from pipeline.ledger import Ledger
from pipeline.waiting import our_error

FAILURES_LIMIT = 2
"""So many renewals in a row that the database did not answer cancel a claim: its lease may be over."""
BEAT_SECONDS = 2.0
"""How often a process says that its worker threads are alive ..."""
BEATS_MISSED = 3
"""... and how many of these may fail before they no longer count."""
JOIN_SECONDS = 3.0
"""How long its end is waited for: it may be about to wait for the database."""

_log = logging.getLogger(__name__)


class Held:
    """A lease that a worker works under. `lost` is set once it must not write any more."""

    __slots__ = ("failures", "lease", "lost", "renewed")

    def __init__(self, lease: int) -> None:
        self.lease = lease
        self.lost = False
        self.failures = 0
        self.renewed = time.monotonic()


def _none() -> tuple[int, float]:
    return 0, 0.0


class Renewer:
    """Renews each held lease of `seconds` at a third of its length, in a thread of its own.

    `commits` says how many commits this process has made, and how many seconds they took together.
    """

    def __init__(
        self, ledger: Ledger, worker: str, seconds: float, commits: Callable[[], tuple[int, float]] = _none
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._worker = worker
        self._seconds = seconds
        self._threads = 0
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        """Why the database could not be told that this process lives, or None."""

    def start(self, threads: int) -> None:
        """Say that `threads` worker threads live here, and go on saying so. Raises UnavailableError."""
        self._threads = threads
        self._ledger.beat(self._worker, threads, BEAT_SECONDS * BEATS_MISSED)
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="renewer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and say that no worker thread lives here any more."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(JOIN_SECONDS)
        told = self.problem is None and not self._thread.is_alive()
        self._thread = None
        if not told:
            # The database does not answer. That nobody lives here shows by itself, as nobody says so any more.
            return
        try:
            self._ledger.beat(self._worker, 0, 0.0)
        except LabelfeedError as error:
            _log.debug(logs.WAITING, extra={"role": "work", "error": str(error)})

    @contextmanager
    def hold(self, lease: int) -> Iterator[Held]:
        """Keep a lease, which was just started, alive for as long as the block runs."""
        held = Held(lease)
        with self._lock:
            self._held[lease] = held
        try:
            yield held
        finally:
            with self._lock:
                del self._held[lease]

    def _run(self) -> None:
        third = self._seconds / 3
        pause = min(BEAT_SECONDS, third / 2)
        beaten = time.monotonic()
        while not self._stop.wait(pause):
            if time.monotonic() - beaten >= BEAT_SECONDS - pause / 2:
                beaten = time.monotonic()
                self._beat()
            try:
                self._renew_due(third - pause / 2)
            except Exception:  # noqa: BLE001 - the outer boundary of this thread: without it all leases would end
                _log.exception(logs.OUR_ERROR)

    def _beat(self) -> None:
        try:
            self._ledger.beat(self._worker, self._threads, BEAT_SECONDS * BEATS_MISSED, self._commits())
        except LabelfeedError as error:
            self._waits(error)
        except Exception as error:  # noqa: BLE001 - leases are to be renewed whatever keeps the process from this
            self._waits(our_error(error))
        else:
            if self.problem is not None:
                _log.info(logs.RECOVERED, extra={"role": "work"})
            self.problem = None

    def _waits(self, error: LabelfeedError) -> None:
        if self.problem is None:
            _log.warning(logs.WAITING, extra={"role": "work", "code": error.code, "error": str(error)})
        self.problem = f"{error.code}: {error}"

    def _renew_due(self, age: float) -> None:
        with self._lock:
            leases = list(self._held.values())
        for held in leases:
            if not held.lost and time.monotonic() - held.renewed >= age:
                self.renew(held)

    def renew(self, held: Held) -> None:
        """Renew one lease now, and note what came of it."""
        asked = time.monotonic()
        try:
            if self._ledger.renew(held.lease, self._seconds):
                held.failures, held.renewed = 0, asked
            else:
                held.lost = True
        except LabelfeedError as error:
            self._failed(held, error)
        except Exception as error:  # noqa: BLE001 - the leases after this one are to be renewed, too
            self._failed(held, our_error(error))

    def _failed(self, held: Held, error: LabelfeedError) -> None:
        held.failures += 1
        held.lost = held.failures >= FAILURES_LIMIT
        extra = {"lease": held.lease, "failures": held.failures, "error": str(error)}
        _log.warning(logs.LEASE_NOT_RENEWED, extra=extra)
