"""One process leads a source at a time: it alone lists and watches it; the others stand by.

Leading saves work; that nothing is lost or doubled does not rest on it. So a database that does not answer
ends no lead: nobody else can take it meanwhile, and what is noticed still reaches the event log.
"""

from __future__ import annotations

import logging
import threading

from pipeline import logs
from pipeline.errors import LabelfeedError
from pipeline.ledger import Ledger
from pipeline.metrics import Metrics
from pipeline.producers.runner import SourceRunner
from pipeline.waiting import Patience, our_error

LEAD_SECONDS = 10.0
"""How long a lead lasts that is not renewed ..."""
RENEW_SECONDS = 3.0
"""... and how often it is."""
TRY_SECONDS = 1.0
"""How often a process that stands by tries to lead."""
JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Leading:
    """A source's runner, which works while this process leads the source."""

    def __init__(self, runner: SourceRunner, source: str, source_id: int, ledger: Ledger, metrics: Metrics) -> None:
        self._runner = runner
        self._source = source
        self._source_id = source_id
        self._ledger = ledger
        self._metrics = metrics
        self._leads = False
        self._patience = Patience("lead", source=source, longest=RENEW_SECONDS)

    def run(self, holder: str, stop: threading.Event) -> None:
        """Lead whenever nobody else does, under the name of `holder`, until `stop` is set."""
        while not stop.is_set():
            self._set(leads=self._take(holder, stop))
            if self._leads:
                _log.info(logs.LEADING, extra={"source": self._source})
                self._metrics.add("leads_taken_total", source=self._source)
                self._work(holder, stop)
                self._set(leads=False)
            else:
                stop.wait(TRY_SECONDS)

    def problem(self) -> str | None:
        """Why this source waits, or None: standing by is no waiting, and a lead that cannot be renewed is."""
        if not self._leads or self._patience.problem is not None:
            return self._patience.problem
        status = self._runner.status()
        return None if status.ready else status.reason

    def _work(self, holder: str, stop: threading.Event) -> None:
        end = threading.Event()
        thread = threading.Thread(target=self._runner.run, args=(end,), name=f"source-{self._source}", daemon=True)
        thread.start()
        while thread.is_alive() and not stop.wait(RENEW_SECONDS):
            if not self._take(holder, stop):
                _log.warning(logs.LEAD_LOST, extra={"source": self._source})
                break
        end.set()
        thread.join(JOIN_SECONDS)
        try:
            self._ledger.yield_lead(self._source_id, holder)
        except LabelfeedError as error:
            _log.debug(logs.LEAD_LOST, extra={"source": self._source, "error": str(error)})
        except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
            our_error(error)

    def _take(self, holder: str, stop: threading.Event) -> bool:
        """Whether this process leads; as before, after a wait, where nobody can say."""
        try:
            taken = self._ledger.lead(self._source_id, holder, LEAD_SECONDS)
        except LabelfeedError as error:
            self._wait(error, stop)
            return self._leads
        except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
            self._wait(our_error(error), stop)
            return self._leads
        self._patience.succeeded()
        return taken

    def _wait(self, error: LabelfeedError, stop: threading.Event) -> None:
        self._metrics.add("errors_total", stage="lead", code=error.code)
        self._patience.wait(error, stop)

    def _set(self, *, leads: bool) -> None:
        self._leads = leads
        self._metrics.set("leader", float(leads), source=self._source)
