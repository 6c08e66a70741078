from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.services.model import Service
from tests.deliveries.studio import Studio
from tests.e2e.house import House
from tests.ledger.conftest import postgres_bench, postgres_place, sqlite_bench

__all__ = ["postgres_bench", "postgres_place", "sqlite_bench"]


@pytest.fixture
def studio(label_studio: Service) -> Iterator[Studio]:
    """A project of its own in a real Label Studio."""
    made = Studio.make(label_studio)
    yield made
    made.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A folder with a configuration, worked by the real command."""
    made = House(tmp_path)
    made.inbox.mkdir()
    yield made
    made.close()
