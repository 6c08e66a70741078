"""A whole installation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An installation with an empty inbox; what still runs at the end of the test is killed."""
    made = House(tmp_path)
    made.inbox.mkdir()
    made.configure()
    try:
        yield made
    finally:
        made.close()
