"""Ours against what Label Studio 1.23.2 was recorded to make of the same inputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recorded import recording
from tests.recorded.case import Case
from tests.recorded.comparing import ours, same
from tests.recorded.differences import DIFFERENCES, NOT_RECORDED
from tests.recorded.inputs import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
ROWS = set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.partition("## Differences from Label Studio")[2], re.MULTILINE))
RECORDED = recording.load()
ROW_OF = {name: row for row, names in DIFFERENCES.items() for name in names}


def test_every_input_is_recorded_as_it_is() -> None:
    """There are several hundred inputs, and each was recorded with the very bytes that it has now."""
    assert len(CASES) >= 800
    assert {case.name: case.digest for case in CASES} == {name: told["input"] for name, told in RECORDED.items()}


def test_rows_and_recorded_differences_are_the_same() -> None:
    """Each row of the page is shown by a recorded input, or told to be one that cannot be; and no row is missing."""
    assert DIFFERENCES.keys() | NOT_RECORDED.keys() == ROWS
    assert not DIFFERENCES.keys() & NOT_RECORDED.keys()
    assert all(DIFFERENCES.values())
    assert len(ROW_OF) == sum(map(len, DIFFERENCES.values()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_or_a_row_of_the_page(case: Case) -> None:
    """Ours makes the same tasks of it and refuses what Label Studio refuses, or the page has a row that says it."""
    mine, theirs = ours(case), RECORDED[case.name]
    assert same(mine, theirs) == (case.name not in ROW_OF), f"ours {mine}\ntheirs {theirs}"
