"""What waits and why, kept in the ledger for `status`, and in the metrics."""

from __future__ import annotations

import orjson

from pipeline.config import Config
from pipeline.consumers.turns import Turn
from pipeline.ledger import Tick
from pipeline.metrics import Metrics
from pipeline.throttle import Pressure, Why, claims

SOONEST_SECONDS = 0.5
"""Notes that change are written no more often than this ..."""
BEAT_SECONDS = 2.0
"""... and while anything waits they are written this often, so that people see that a scheduler is at work."""

LONGEST_SECONDS = 2 * BEAT_SECONDS
"""Time between two notes that is taken for time waited; in more, nobody looked."""
THROTTLED: frozenset[Why] = frozenset(
    {"full", "enough", "uncounted", "undelivered", "throttled", "in_flight", "share", "database"}
)


class Notes:
    """Tells of what the configuration's sources and projects wait for."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._names = {
            "sources": frozenset(source.name for source in config.sources),
            "projects": frozenset(config.projects),
        }
        self._metrics = metrics
        self._written: object = None
        self._passed = 0.0

    def keep(self, tick: Tick, turn: Turn) -> None:
        """Write what has changed, inside the turn. What others said of other sources stays."""
        load = turn.load
        assert load is not None
        said = {"sources": turn.sources, "projects": turn.projects}
        gist = {(kind, name, wait.why, wait.behind) for kind, waits in said.items() for name, wait in waits.items()}
        age = load.now - load.shared.noted_at
        if age < 0:  # the clock was set back: what was noted is of no time that can be told
            age = BEAT_SECONDS
        waiting = any(source.ready and source.name in self._names["sources"] for source in load.sources)
        if age < SOONEST_SECONDS or (gist == self._written and not (waiting and age >= BEAT_SECONDS)):
            return
        before = orjson.loads(load.shared.notes)
        notes = {
            kind: {name: told for name, told in before.get(kind, {}).items() if name not in self._names[kind]}
            | {name: list(wait) for name, wait in waits.items()}
            for kind, waits in said.items()
        }
        tick.note(orjson.dumps(notes).decode())
        self._written = gist
        self._passed = min(age, LONGEST_SECONDS)

    def gauge(self, turn: Turn) -> None:
        """Bring the metrics up to date, after the turn."""
        self._metrics.replace("source_waits", {(name, wait.why): 1.0 for name, wait in turn.sources.items()})
        self._metrics.replace("project_waits", {(name, wait.why): 1.0 for name, wait in turn.projects.items()})
        assert turn.load is not None
        self._metrics.set("claims_bound", claims(Pressure(*turn.load.shared.pressure)))

    def count(self, turn: Turn) -> None:
        """Count the time that was waited, after the turn. Whoever writes the notes counts, so that no second is
        counted twice."""
        seconds, self._passed = self._passed, 0.0
        if seconds:
            for name, wait in turn.sources.items():
                if wait.why in THROTTLED:
                    self._metrics.add("throttle_wait_seconds_total", seconds, source=name, cause=wait.why)
