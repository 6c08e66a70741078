"""What fuzzing found, and where it starts from, stays harmless; `python -m tests.fuzz` looks for more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import harness

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
CHANGES = 12
"""Changed copies of each case that are tried, too."""


@pytest.mark.parametrize("case", CORPUS, ids=lambda path: path.name)
def test_case(case: Path) -> None:
    """A kept case gives tasks, rejections or a failed object, the same in whatever reads it comes."""
    harness.one(case.read_bytes())


@pytest.mark.parametrize("case", CORPUS, ids=lambda path: path.name)
def test_changed_case(case: Path) -> None:
    """So does it with some bytes changed, in a way that is the same on every run."""
    data = case.read_bytes()
    chance = random.Random(case.name)
    for _ in range(CHANGES):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        harness.one(bytes(changed))
