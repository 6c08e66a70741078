"""Which sources a run that is to end leaves: their storage does not answer, or nothing is delivered on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.consumers.delivering import drained, every
from pipeline.ledger import Ledger, Reports
from pipeline.throttle import Wait, told

LOOK_SECONDS = 1.0
"""How often the ledger is asked why nothing ends any more ..."""
LOOK_SHARE = 0.05
"""... and the share of the time that asking may take where it means counting."""


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


class Behind:
    """Says which sources wait for deliveries that do nothing more by themselves: each is paused, fails, or has nothing
    left, and one of them has as much before it as `undelivered_tasks` allows."""

    def __init__(self, ledger: Ledger, config: Config, *, clock: Callable[[], float] = time.monotonic) -> None:
        limited = {
            name: project
            for name, project in config.projects.items()
            if project.deliveries and project.throttle.undelivered_tasks
        }
        self._projects = {
            name: (project.throttle.undelivered_tasks, config.model_copy(update={"projects": {name: project}}))
            for name, project in limited.items()
        }
        self._sources = {source.name: source.project for source in config.sources if source.project in limited}
        self._ledger = ledger
        self._clock = clock
        self._next = 0.0
        self._why: Mapping[str, str] = {}

    def held(self) -> Mapping[str, str]:
        """Source → why it is held, for a person. Raises UnavailableError."""
        begun = self._clock()
        if self._projects and begun >= self._next:
            stuck = {name: why for name in self._projects if (why := self._stuck(name))}
            self._why = {name: stuck[project] for name, project in self._sources.items() if project in stuck}
            ended = self._clock()
            self._next = ended + max(LOOK_SECONDS, (ended - begun) / LOOK_SHARE)
        return self._why

    def _stuck(self, project: str) -> str | None:
        most, config = self._projects[project]
        undelivered = self._ledger.reports().undelivered(project).found
        if undelivered < most or not drained(self._ledger, config) or self._about_to_try(config):
            return None
        return told(Wait("undelivered", at=undelivered, of=most), self._ledger.now())

    def _about_to_try(self, config: Config) -> bool:
        """Whether a delivery that has failed is at its next attempt: it may have been mended."""
        known, now = every(config), self._ledger.now()
        rows = [row for row in self._ledger.deliveries().report() if row["name"] in known]
        ended = max((row["ended_at"] for row in rows), default=0.0)
        return any(
            row["granted"] or (row["batch"] != "unsure" and max(row["due"], ended + known[row["name"]]) <= now)
            for row in rows
            if row["failing"]
            and row["paused_at"] is None
            and (row["waiting_tasks"] or row["changes"] or row["granted"])
        )


def waiting(row: Mapping[str, Any]) -> int:
    """How many objects of a source wait or are under way."""
    return int(row["ready"] + row["claimed"] + row["running"])
