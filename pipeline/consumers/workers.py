"""The workers of one process: threads that take claims from the queue, the child runner, the lease renewer."""

from __future__ import annotations

import logging
import threading

from pipeline import logs
from pipeline.consumers.broker import Queue
from pipeline.consumers.child import ChildRunner
from pipeline.consumers.importer import Importer
from pipeline.consumers.renewer import Renewer
from pipeline.errors import LabelfeedError
from pipeline.ledger import Ledger

CANCEL_SHARE = 0.7
"""This part of the time to shut down is left to what runs; then it is cancelled and has the rest to give back."""

_log = logging.getLogger(__name__)


class WorkerPool:
    """Starts and stops the workers of a process."""

    def __init__(
        self, queue: Queue, importer: Importer, children: ChildRunner, renewer: Renewer, ledger: Ledger
    ) -> None:
        self._queue = queue
        self._importer = importer
        self._children = children
        self._renewer = renewer
        self._ledger = ledger

    def start(self, threads: int) -> None:
        """Take claims in `threads` threads. Raises UnavailableError if the ledger does not answer."""
        self._renewer.start(threads)
        self._importer.metrics.set("up", 1, role="work")
        self._queue.start(self._importer.run, self._children.run, threads)

    def stop(self, timeout: float) -> None:
        """Take no further claim, give back those that were not started, let what runs finish; what has not
        finished when most of `timeout` seconds is over is cancelled and given back."""
        cancel = threading.Timer(timeout * CANCEL_SHARE, self.cancel)
        cancel.daemon = True
        cancel.start()
        unstarted = self._queue.stop(timeout)
        cancel.cancel()
        try:
            if unstarted:
                self._ledger.unclaim(unstarted)
        except LabelfeedError as error:
            _log.warning(logs.CLAIM_KEPT, extra={"claims": len(unstarted), "error": str(error)})
        self._renewer.stop()
        self._importer.close()

    def cancel(self) -> None:
        """Stop what runs, at its next piece of rows."""
        self._importer.cancel()
        self._children.cancel()
