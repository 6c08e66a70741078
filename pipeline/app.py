"""The composition root: the only file that knows every layer. It builds the parts that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

from pipeline.config import Config, Source
from pipeline.ledger import Ledger
from pipeline.metrics import Metrics
from pipeline.parsers import Rules
from pipeline.stores import Store


@dataclass(frozen=True, slots=True)
class Feed:
    """One source, ready to be read: its configuration, its row in the ledger, its store and its rules."""

    source: Source
    source_id: int
    store: Store
    rules: Rules
    shape: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one source of a `--once` run has come, for a progress bar and for the closing table."""

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


class App:
    """An installation, opened: ledger, event log, feeds. A context manager; closing it lets go of everything."""

    config: Config
    ledger: Ledger
    metrics: Metrics
    feeds: dict[str, Feed]

    def run_once(self, show: Callable[[Sequence[Progress]], None]) -> list[Progress]:
        """One pass of every source, everything imported; `show` is called about ten times a second."""
        raise NotImplementedError

    def run(self, roles: frozenset[str], stop: Event) -> None:
        """Work continuously in these roles (`watch`, `dispatch`, `work`, `serve`) until `stop` is set."""
        raise NotImplementedError
