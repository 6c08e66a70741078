"""A small installation without queue and log: a folder, the embedded database, an importer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Config, Limits, Project, Source
from pipeline.consumers.dispatcher import Dispatcher
from pipeline.consumers.importer import Importer
from pipeline.consumers.renewer import Renewer
from pipeline.events import ObjectEvent
from pipeline.ledger import Claim, Filter, Ledger, SourceIdentity, Tick
from pipeline.metrics import Metrics
from pipeline.parsers import Rules
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from pipeline.stores import Store
from pipeline.stores.local import LocalStore

EPOCH = f"local:test-{os.getpid()}"


@dataclass(frozen=True)
class Feed:
    """One source as consumers see it."""

    source: Source
    store: Store
    rules: Rules
    shape: str = "shape"


@contextmanager
def dispatching(made: Dispatcher) -> Iterator[None]:
    """A dispatcher that runs."""
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield
    finally:
        made.stop()
        thread.join(30)


@dataclass
class House:
    """The parts, and shorthands for what tests do with them."""

    folder: Path
    file: SqliteFile
    ledger: SqliteLedger
    config: Config
    feeds: dict[str, Feed]
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def limits(self) -> Limits:
        """The bounds of the configuration."""
        return self.config.limits

    def put(self, key: str, content: str | bytes, source: str = "inbox") -> Path:
        """Write a file of a source."""
        path = self.folder / source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def note(self, *keys: str, source: str = "inbox", **columns: Any) -> None:
        """Record one event a key, as a listing would tell of it."""
        feed = self.feeds[source]
        events = []
        for key in sorted(keys):
            entry = feed.store.head(key)
            told = {"version": entry.version, "size": entry.size} if entry else {"version": "was-there"}
            events.append(ObjectEvent(source=source, key=key, **(told | columns)))
        self.ledger.record("test", events, {}, {name: each.source.on_change for name, each in self.feeds.items()})

    def claim(self, *, alone: bool = False, seconds: float = 60.0) -> list[Claim]:
        """Claim all that is ready, one claim a source."""

        def turn(tick: Tick) -> list[Claim]:
            claims = []
            for source in tick.load().sources:
                found = tick.candidates(source._replace(cursor=(0.0, 0)), 1_000_000)
                if found:
                    claims.append(tick.claim(source, found, EPOCH, seconds, alone=alone))
            return claims

        return self.ledger.tick(turn) or []

    def importer(self, ledger: Ledger | None = None, **options: Any) -> Importer:
        """A new importer over the same parts."""
        ledger = ledger or self.ledger
        renewer = options.pop("renewer", None) or Renewer(ledger, "tester", self.limits.lease)
        return Importer(self.feeds, ledger, self.metrics, "tester", self.limits, renewer, **options)

    def bring_in(self, *keys: str, source: str = "inbox") -> None:
        """Note keys, claim them and import them."""
        self.note(*keys, source=source)
        for claim in self.claim():
            self.importer().run(claim.lease)

    def rows(self, source: str | None = None) -> dict[str, dict[str, Any]]:
        """The ledger's objects by key."""
        return {row["key"]: row for row in self.ledger.reports().objects(Filter(source=source), 0, 1_000_000)}

    def states(self) -> dict[str, str]:
        """Each key's state."""
        return {key: row["state"] for key, row in self.rows().items()}

    def tasks(self) -> list[str]:
        """The live tasks' data as JSON text."""
        return [row["data"] for row in self.ledger.reports().tasks(None, 0, 10_000_000)]

    def due_now(self) -> None:
        """Let every back-off be over."""
        self.file.write(lambda connection: connection.execute("UPDATE objects SET due = 0 WHERE state = 'ready'"))

    def metric(self, name: str, **labels: str) -> float:
        """A counter's value."""
        return self.metrics.registry.get_sample_value(f"labelfeed_{name}", labels) or 0.0


def build(tmp_path: Path, sources: Sequence[Source], *, alive: bool = True, **limits: Any) -> House:
    """An installation of local sources, each in the folder of its name; `alive` holds the epoch of its claims."""
    file = SqliteFile(tmp_path / "labelfeed.db")
    ledger = SqliteLedger(file)
    ledger.migrate()
    config = Config(projects={"p": Project()}, sources=tuple(sources), limits=Limits(**limits))
    feeds = {}
    for source in sources:
        (tmp_path / source.name).mkdir(exist_ok=True)
        store = LocalStore(tmp_path / source.name, settle=0)
        feeds[source.name] = Feed(source, store, Rules.of(source))
    ledger.register(
        [
            SourceIdentity(source.name, source.project, feeds[source.name].store.identity(), source.url, "shape")
            for source in sources
        ]
    )
    if alive:
        ledger.hold(EPOCH)
    return House(tmp_path, file, ledger, config, feeds)


def inbox(**options: Any) -> Source:
    """The source that most tests use."""
    return Source(**({"name": "inbox", "project": "p", "url": "inbox"} | options))
