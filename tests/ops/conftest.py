"""Installations whose roles are processes of their own, with Redis and SQLite, to be watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.services.model import Service
from tests.faults.installation import Folder, Installation


@pytest.fixture
def distributed(tmp_path: Path, redis_server: Service, unique: str) -> Iterator[Installation]:
    """Roles that share one file and one Redis."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    queue = f"{redis_server.url}?namespace={unique}"
    made = Installation(tmp_path, Folder(inbox), "sqlite:///labelfeed.db", "embedded", queue)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Installation]:
    """An installation without servers."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    made = Installation(tmp_path, Folder(inbox), "sqlite:///labelfeed.db", "embedded", "embedded")
    try:
        yield made
    finally:
        made.close()
