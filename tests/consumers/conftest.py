"""The small installation that tests of consumers work in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Source
from tests.consumers.house import House, build, inbox


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """One source called `inbox`."""
    built = build(tmp_path, [inbox()])
    yield built
    built.ledger.close()


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Any]:
    """Builds an installation with other sources or limits."""
    made: list[House] = []

    def make(*sources: Source, **limits: Any) -> House:
        made.append(build(tmp_path, sources or [inbox()], **limits))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()
