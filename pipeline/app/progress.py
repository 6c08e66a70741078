"""How far a `--once` run has come, source by source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.app.leaving import Left, waiting
from pipeline.ledger import Filter, Pass, Reports
from pipeline.metrics import Metrics

FAILURES_SHOWN = 50
SKIPPED_SEARCHED = 1000
"""Skipped objects that are looked at to tell why they were skipped."""
BAD = ("failed", "skipped")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one source of a `--once` run has come, for a progress bar and for the closing table.

    `imported`, `unchanged`, `tasks` and `rejected` count what this run did; `failed` and `skipped` are how
    many objects stand so in the ledger; `failures` are the first of them, as `Reports.objects` gives them.
    `skips` has the first skipped object of each reason, with the number of `objects` it stands for; `paused` is as
    `Reports.sources` gives it. `held` says why what waits was left: time alone would not have let it go on.
    `unanswered` is as `Reports.unanswered` gives it, and `problem` says why the source could not be listed.
    """

    source: str
    found: int = 0
    imported: int = 0
    unchanged: int = 0
    tasks: int = 0
    rejected: int = 0
    failed: int = 0
    skipped: int = 0
    waiting: int = 0
    seconds: float = 0.0
    failures: Sequence[dict[str, object]] = field(default_factory=tuple)
    skips: Sequence[dict[str, object]] = field(default_factory=tuple)
    paused: Mapping[str, Any] | None = None
    held: str = ""
    unanswered: Mapping[str, Any] | None = None
    problem: str = ""


def _none() -> Mapping[str, str]:
    return {}


class Gauge:
    """Tells each source's progress from the ledger's counters, against what they were at the start. `held` names the
    sources that no passing of time lets go on, and says why; a source whose storage does not answer for `patience`
    seconds is left."""

    def __init__(
        self,
        reports: Reports,
        metrics: Metrics,
        names: Sequence[str],
        held: Callable[[], Mapping[str, str]] = _none,
        *,
        patience: float = math.inf,
    ) -> None:
        self._held = held
        self._left = Left(reports, patience)
        self._reports = reports
        self._metrics = metrics
        self._names = names
        self._before = {row["name"]: row for row in reports.sources()}

    def pending(self) -> int:
        """How many objects of these sources wait or are under way. What is ready of a source that is held does not
        count, nor anything of one whose storage does not answer."""
        held = self._held()
        rows = [row for row in self._reports.sources() if row["name"] in self._before and row["name"] in self._names]
        rows = [row for row in rows if waiting(row) and not self._left.is_left(row)]
        return sum(waiting(row) - (row["ready"] if _by_hand(row) or row["name"] in held else 0) for row in rows)

    def read(self, passes: Mapping[str, Pass], seconds: float, *, failures: bool = False) -> list[Progress]:
        """The progress now, `seconds` after the start. `passes` is how far each source's pass has come."""
        rows = {row["name"]: row for row in self._reports.sources()}
        return [self._progress(name, rows[name], passes.get(name), seconds, failures=failures) for name in self._names]

    def _progress(
        self, name: str, row: dict[str, Any], listing: Pass | None, seconds: float, *, failures: bool
    ) -> Progress:
        ended = row["finished"] - self._before[name]["finished"]
        bad = sum(int(self._metrics.value("imported_objects_total", source=name, state=state)) for state in BAD)
        found, published = (listing.listed, listing.published) if listing is not None else (0, 0)
        return Progress(
            source=name,
            found=found,
            imported=max(0, ended - bad),
            unchanged=max(0, found - max(published, ended)),
            tasks=int(self._metrics.value("written_tasks_total", source=name)),
            rejected=int(self._metrics.value("rejected_rows_total", source=name)),
            failed=row["failed"],
            skipped=row["skipped"],
            waiting=waiting(row),
            seconds=seconds,
            failures=self._failures(name) if failures and row["failed"] else (),
            skips=self._skips(name) if failures and row["skipped"] else (),
            paused=row["paused"],
            held=self._held().get(name, "") if row["ready"] else "",
            unanswered=self._reports.unanswered(name) if failures and waiting(row) else None,
        )

    def _failures(self, name: str) -> list[dict[str, object]]:
        return self._reports.objects(Filter(source=name, state="failed"), 0, FAILURES_SHOWN)

    def _skips(self, name: str) -> list[dict[str, object]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self._reports.objects(Filter(source=name, state="skipped"), 0, SKIPPED_SEARCHED):
            reason = row["reason"] or {}
            first = found.setdefault((reason.get("code", ""), reason.get("message", "")), row | {"objects": 0})
            first["objects"] += 1
        return list(found.values())


def _by_hand(row: Mapping[str, Any]) -> bool:
    return row["paused"] is not None and row["paused"]["by"] == "hand"
