"""Database, event log and work queue are chosen each for itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline import cli
from tests.faults.installation import Folder, Installation

FILES = 30


@pytest.mark.parametrize(
    ("database", "events", "queue"),
    list(itertools.product(["sqlite", "postgresql"], ["embedded", "kafka"], ["embedded", "redis"])),
)
def test_any_mix(
    tmp_path: Path,
    database_url: str,
    kafka_url: str,
    redis_url: str,
    database: str,
    events: str,
    queue: str,
) -> None:
    """In each of the eight settings a run imports everything once, and a second one what has come since."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    made = Installation(
        tmp_path,
        Folder(inbox),
        database_url if database == "postgresql" else "sqlite:///labelfeed.db",
        f"{kafka_url}?partitions=2&session=3&group={tmp_path.name}" if events == "kafka" else events,
        redis_url if queue == "redis" else queue,
    )
    for _ in range(2):
        made.put(FILES)
        assert cli.run(["run", "--once", "--config", str(made.config)]) == 0
        made.imported()
        made.exactly_once()
