"""Which sources a run that is to end leaves, because their storage does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.ledger import Reports

LOOK_SECONDS = 1.0
"""How often the ledger is asked why nothing ends any more."""


@dataclass(slots=True)
class _Seen:
    """How far a source had come when it last moved, at a monotonic time, and when the ledger was asked for more."""

    at: float
    finished: int
    staged: int = 0
    asked: float = 0.0
    left: bool = False


class Left:
    """Leaves a source when for `patience` seconds no object of it has ended and no large file went on, while some wait
    for storage that did not answer. A source that moves again is not left any more."""

    def __init__(self, reports: Reports, patience: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reports = reports
        self._patience = patience
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def is_left(self, row: Mapping[str, Any]) -> bool:
        """Whether a source that has something to do is left, by its row in the reports now."""
        now = self._clock()
        seen = self._seen.setdefault(row["name"], _Seen(now, row["finished"]))
        if row["finished"] != seen.finished:
            self._seen[row["name"]] = _Seen(now, row["finished"])
            return False
        if now - seen.at >= self._patience and now - seen.asked >= LOOK_SECONDS:
            seen.asked = now
            self._look(row, seen, now)
        return seen.left

    def _look(self, row: Mapping[str, Any], seen: _Seen, now: float) -> None:
        staged = self._reports.staged(row["name"]) if row["running"] else seen.staged
        if staged != seen.staged:
            seen.at, seen.staged, seen.left = now, staged, False
        else:
            seen.left = self._reports.unanswered(row["name"]) is not None


def waiting(row: Mapping[str, Any]) -> int:
    """How many objects of a source wait or are under way."""
    return int(row["ready"] + row["claimed"] + row["running"])
