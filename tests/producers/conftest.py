"""A source in a folder, the embedded database and log, and what stands for the rest of the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.bus.embedded import EmbeddedLog
from pipeline.config import Source
from pipeline.events import ObjectEvent, fold
from pipeline.ledger import Claim, Filter, Outcome, Pass, SourceIdentity, Tick
from pipeline.metrics import Metrics
from pipeline.producers.passes import PassRunner
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from pipeline.stores import Store
from pipeline.stores.local import LocalStore
from pipeline.stores.scope import Scope

EPOCH = "local:test"


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        pause.wait(0.01)


@dataclass
class House:
    """The parts, and shorthands for what tests do with them."""

    root: Path
    file: SqliteFile
    ledger: SqliteLedger
    log: EmbeddedLog
    source: Source
    store: Store
    metrics: Metrics = field(default_factory=Metrics)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._consumer = self.log.consumer(lambda _: {})

    def put(self, key: str, content: bytes = b"[]") -> Path:
        """A finished file, renamed into its place."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_bytes(content)
        return unfinished.rename(path)

    def passes(self, **options: Any) -> PassRunner:
        """A runner of passes; `options` change the source."""
        source = self.source.model_copy(update=options)
        scope = Scope.of(source)
        return PassRunner(source, 1, self.store, scope, self.ledger, self.log, self.metrics)

    def list(self, *, wait: bool = False, accept: bool = False, **options: Any) -> Pass:
        """One pass."""
        runner = self.passes(**options)
        return runner.run(self.stop, wait_for_unsettled=wait, accept_deletions=accept)

    def published(self) -> list[ObjectEvent]:
        """The events published since the last call, as the dispatcher would get them."""
        events: list[ObjectEvent] = []
        while records := self._consumer.poll(10_000, 0).records:
            events += [record.event for record in records if isinstance(record.event, ObjectEvent)]
        return events

    def record(self, on_change: str = "ignore") -> list[tuple[str, str]]:
        """Record what was published; gives kinds and keys."""
        events = self.published()
        positions = self.log.end()
        self.ledger.record("embedded", fold(events), positions, {"inbox": on_change})  # type: ignore[dict-item]
        return [(event.kind, event.key) for event in events]

    def bring_in(self, on_change: str = "ignore") -> list[tuple[str, str]]:
        """Record, and import all that is ready as it is in the store; gives kinds and keys of the events."""
        told = self.record(on_change)
        for claim in self._claim():
            outcomes = []
            for work in self.ledger.start(claim.lease, "tester", 60):
                entry = self.store.head(work.key)
                if entry is None:
                    outcomes.append(Outcome(work.id, "gone"))
                else:
                    mode = "new" if work.imported is None else "replace"
                    outcomes.append(Outcome(work.id, "done", version=entry.version, mode=mode))
            self.ledger.commit(claim.lease, outcomes)
        return told

    def _claim(self) -> list[Claim]:
        def turn(tick: Tick) -> list[Claim]:
            claims = []
            for source in tick.load().sources:
                found = tick.candidates(source._replace(cursor=(0.0, 0)), 1_000_000)
                if found:
                    claims.append(tick.claim(source, found, EPOCH, 60, alone=False))
            return claims

        return self.ledger.tick(turn) or []

    def states(self) -> dict[str, str]:
        """Each key's state."""
        return {row["key"]: row["state"] for row in self.ledger.reports().objects(Filter(), 0, 1_000_000)}

    def metric(self, name: str, **labels: str) -> float:
        """A counter's value."""
        return self.metrics.registry.get_sample_value(f"labelfeed_{name}", labels) or 0.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """One source called `inbox`, of files that are settled at once."""
    root = tmp_path / "inbox"
    root.mkdir()
    file = SqliteFile(tmp_path / "labelfeed.db")
    ledger = SqliteLedger(file)
    ledger.migrate()
    log = EmbeddedLog(file)
    log.create()
    source = Source(name="inbox", project="p", url=str(root), settle=0.05, poll=0.05)
    store = LocalStore(root, settle=0)
    ledger.register([SourceIdentity("inbox", "p", store.identity(), source.url, "shape")])
    ledger.hold(EPOCH)
    made = House(root, file, ledger, log, source, store)
    yield made
    made.stop.set()
    ledger.close()
