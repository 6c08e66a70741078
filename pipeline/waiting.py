"""Waiting for a server that does not answer: longer each time, bounded, one log line for each reason."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from pipeline import logs
from pipeline.errors import LabelfeedError, UnavailableError

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0

_log = logging.getLogger(__name__)


def our_error(error: Exception) -> LabelfeedError:
    """What a role waits for after an exception that nobody foresaw. Call it where that is caught: it logs it.

    A role that ended would stop everything and say nothing; one that goes on after a wait shows in the log.
    """
    _log.error(logs.OUR_ERROR, exc_info=error)
    return UnavailableError(f"an error of ours ({type(error).__name__}), which the log has", code="internal")


class Patience:
    """How long to wait next, for a role or a source of it. Thread-safe, so that the threads of one role share what
    they have learnt."""

    def __init__(self, role: str, *, source: str | None = None, longest: float | None = None) -> None:
        self._told = {"role": role} | ({} if source is None else {"source": source})
        self._longest = LONGEST_SECONDS if longest is None else longest
        self._failures = 0
        self.problem: str | None = None
        """Why the role waits, or None while it works."""

    def wait(self, error: LabelfeedError, stop: threading.Event, rest: Callable[[float], object] | None = None) -> None:
        """Wait after one more failure, or until `stop` is set. `rest` is how the time is spent, if not idly."""
        self._failures += 1
        seconds = delay(self._failures - 1, FIRST_SECONDS, self._longest)
        retry_after = getattr(error, "retry_after", None) or 0.0
        seconds = min(self._longest, max(seconds, retry_after))
        problem = f"{error.code}: {error}"
        level = logging.DEBUG if problem == self.problem else logging.WARNING
        self.problem = problem
        fields = {"code": error.code, "error": str(error), "seconds": seconds}
        _log.log(level, logs.WAITING, extra=self._told | fields)
        (rest or stop.wait)(seconds)

    def succeeded(self) -> None:
        """Forget the failures: what was waited for answers again."""
        if self.problem is not None:
            _log.info(logs.RECOVERED, extra=self._told)
        self._failures = 0
        self.problem = None

    @property
    def tried(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0


def delay(failures: int, first: float, longest: float) -> float:
    """Exponential back-off with half of it at random: at least half of min(longest, first * 2 ** failures)."""
    most = min(longest, first * 2.0 ** min(failures, 63))
    return most * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
