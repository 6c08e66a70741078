"""What only servers know, for /metrics and /readyz: read every few seconds, in a thread of its own.

So a scrape costs no server anything, and answers while one is away: what could not be read is then absent. Object
counts are the ledger's own counters, which every transaction keeps; once a night they are held against a count.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline import logs
from pipeline.app.credentials import expiries
from pipeline.app.parts import Data, disks
from pipeline.config import Config
from pipeline.consumers.broker import Queue
from pipeline.errors import LabelfeedError
from pipeline.ledger import STATES
from pipeline.metrics import Concern, Metrics

READ_SECONDS = 5.0
COUNT_AT_HOUR = 3
"""When the counters are held against a count: once a day, in the hour that begins then, by local time."""
SKEW_LIMIT_SECONDS = 1.0
"""A database that takes longer to say what time it is tells nothing of its clock."""
LEDGER_GAUGES = ("objects", "oldest_waiting_seconds", "tasks")
LAG = ("log_lag_records",)

_log = logging.getLogger(__name__)


class Gauges:
    """Reads the gauges of one process. `jobs` is its work queue, None where it has none."""

    def __init__(self, config: Config, data: Data, jobs: Queue | None, metrics: Metrics, roles: frozenset[str]) -> None:
        self._config = config
        self._data = data
        self._jobs = jobs
        self._metrics = metrics
        self._roles = roles
        self._names = {source.name for source in config.sources}
        self._concerns: dict[str, list[Concern]] = {}
        self._told: dict[str, str] = {}
        self._counted: str | None = None
        self._skew: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set."""
        for path, at in expiries(self._config).items():
            self._metrics.set("credentials_expire_timestamp_seconds", at, of=path)
        while True:
            try:
                self.read()
                self.count(datetime.now().astimezone())
            except Exception:  # noqa: BLE001 - the outer boundary of this thread: without it, gauges would vanish
                _log.exception(logs.OUR_ERROR)
            if stop.wait(READ_SECONDS):
                return

    def concerns(self) -> list[str]:
        """What works but should be mended, a sentence each."""
        return [concern.text for found in list(self._concerns.values()) for concern in found]

    def read(self) -> None:
        """Read all gauges of this process's roles once; those whose server does not answer become absent."""
        self._skew = {}
        # Each question to a server that is away takes seconds: one is enough to know.
        if self._guarded(self._database, (*LEDGER_GAUGES, *LAG)) and "dispatch" in self._roles:
            self._guarded(self._lag, LAG)
        if self._roles & {"watch", "dispatch"}:
            self._guarded(self._log_concerns)
        if self._jobs is not None:
            self._guarded(self._queue, ("queue_messages",))
        self._metrics.replace("clock_skew_seconds", {(server,): skew for server, skew in self._skew.items()})
        self._disk()
        self._tell()

    def count(self, at: datetime) -> None:
        """Hold the counters against a count, if it is the hour and this was not done today."""
        if "dispatch" not in self._roles or at.hour != COUNT_AT_HOUR or self._counted == f"{at:%F}":
            return
        try:
            found = self._data.ledger.reports().miscounted()
        except LabelfeedError:
            return
        self._counted = f"{at:%F}"
        for name in self._names:
            off = sum(abs(kept - counted) for kept, counted in found.get(name, {}).values())
            self._metrics.set("miscounted_objects", off, source=name)
        self._concerns["counters"] = [
            Concern("counters_differ", f"the counters of {name} are not what a count gives: labelfeed verify {name}")
            for name in found
        ]

    def _guarded(self, read: Callable[[], None], names: Sequence[str] = ()) -> bool:
        """Read, or forget the gauges of these names; whether they could be read."""
        try:
            read()
        except LabelfeedError:
            for name in names:
                self._metrics.replace(name, {})
            return False
        return True

    # --- what is read ------------------------------------------------------------------------------------------

    def _database(self) -> None:
        self._clock()
        if "dispatch" in self._roles:
            self._ledger()

    def _clock(self) -> None:
        before = time.time()
        there = self._data.ledger.now()
        after = time.time()
        if after - before < SKEW_LIMIT_SECONDS:
            self._skew["database"] = there - (before + after) / 2

    def _ledger(self) -> None:
        reports = self._data.ledger.reports()
        rows = [row for row in reports.sources() if row["name"] in self._names]
        now = self._data.ledger.now()
        self._metrics.replace("objects", {(row["name"], state): _count(row, state) for row in rows for state in STATES})
        self._metrics.replace("oldest_waiting_seconds", {(row["name"],): _waiting(row, now) for row in rows})
        known = {row["name"]: row["tasks"] for row in reports.projects()}
        self._metrics.replace("tasks", {(name,): known.get(name, 0) for name in self._config.projects})
        for name, project in self._config.projects.items():
            if project.throttle.max_tasks:
                self._metrics.set("tasks_limit", project.throttle.max_tasks, project=name)

    def _lag(self) -> None:
        log = self._data.log
        ends = log.end()
        reached = self._data.ledger.positions(log.name)
        lags = {partition: max(0, end - reached.get(partition, 0)) for partition, end in ends.items()}
        self._metrics.replace("log_lag_records", {(str(partition),): lag for partition, lag in lags.items()})

    def _log_concerns(self) -> None:
        self._concerns["log"] = list(self._data.log.concerns())

    def _queue(self) -> None:
        assert self._jobs is not None
        health = self._jobs.health()
        if "dispatch" in self._roles:
            self._metrics.replace("queue_messages", {(part,): count for part, count in health.messages.items()})
        if health.skew is not None:
            self._skew["redis"] = health.skew
        self._concerns["queue"] = list(health.concerns)

    def _disk(self) -> None:
        for place, folder in disks(self._config).items():
            try:
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            self._metrics.set("disk_free_bytes", usage.free, place=place)
            self._metrics.set("disk_size_bytes", usage.total, place=place)

    def _tell(self) -> None:
        """Log what is new among the concerns, and what is mended."""
        now = {concern.code: concern.text for found in self._concerns.values() for concern in found}
        for code, text in now.items():
            if code not in self._told:
                _log.warning(logs.CONCERN, extra={"code": code, "text": text})
        for code in self._told.keys() - now.keys():
            _log.info(logs.CONCERN_MENDED, extra={"code": code})
        self._told = now
        self._metrics.replace("concern", {(code,): 1.0 for code in now})


def _count(row: Mapping[str, Any], state: str) -> int:
    """How many objects are in a state; reports tell the claimed ones that run apart."""
    return int(row[state] + (row["running"] if state == "claimed" else 0))


def _waiting(row: Mapping[str, Any], now: float) -> float:
    oldest = row["oldest_ready"]
    return 0.0 if oldest is None else max(0.0, now - oldest)
