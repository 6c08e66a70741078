from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.installation import Folder, Installation


@pytest.fixture
def mixed(tmp_path: Path, kafka_url: str, unique: str) -> Iterator[Installation]:
    """An installation of SQLite, Kafka, an embedded queue and a folder."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    events = f"{kafka_url}?partitions=4&session=3&group={unique}"
    made = Installation(tmp_path, Folder(inbox), "sqlite:///labelfeed.db", events, "embedded")
    try:
        yield made
    finally:
        made.close()
