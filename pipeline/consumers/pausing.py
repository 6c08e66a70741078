"""Sources that are paused, as the scheduler sees them: what may still be tried, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline import logs
from pipeline.ledger import SourceLoad
from pipeline.metrics import Metrics

_log = logging.getLogger(__name__)


def claimable(source: SourceLoad, now: float, *, eager: bool) -> int:
    """How many of a source's ready objects may be claimed now: all, or of a paused one none or one to try.

    With `eager` the next object is tried as soon as the last one has ended.
    """
    standing = source.standing
    if standing.paused is None:
        return source.ready
    if standing.paused == "hand" or source.claimed or (now < standing.probe_due and not eager):
        return 0
    return min(1, source.ready)


class Pauses:
    """Tells once of each source that it is paused, and once that it goes on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._paused: set[str] = set()

    def tell(self, sources: Sequence[SourceLoad]) -> None:
        """Log what has changed since the last look, and set the gauge."""
        for source in sources:
            standing = source.standing
            self._metrics.set("source_paused", standing.paused is not None, source=source.name)
            if standing.paused is None and source.name in self._paused:
                self._paused.remove(source.name)
                _log.warning(logs.SOURCE_RESUMED, extra={"source": source.name})
            elif standing.paused is not None and source.name not in self._paused:
                self._paused.add(source.name)
                fields = {"source": source.name, "by": standing.paused, "ready": source.ready}
                if standing.paused == "failures":
                    fields |= {"failing": standing.failing, "code": standing.code}
                _log.warning(logs.SOURCE_PAUSED, extra=fields)
