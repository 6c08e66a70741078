"""The page on formats: its examples are true, and it names every code and extension."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.parsers import media, selection
from pipeline.tasks import ROW_CODES
from tests.parsers.reading import both, rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text()
EXAMPLES = re.findall(r"```text in (\S+)(?: config=(\S+))?\n(.*?)```\n```json out\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_is_found() -> None:
    """No example is left out because it is written in another form."""
    assert len(EXAMPLES) == PAGE.count("```text in ") == PAGE.count("```json out") >= 8


@pytest.mark.parametrize(("name", "config", "content", "shown"), EXAMPLES, ids=lambda part: str(part)[:12])
def test_example(name: str, config: str, content: str, shown: str) -> None:
    """An example's file becomes what the page shows."""
    xml = (ROOT / "examples" / "configs" / f"{config}.xml").read_text() if config else None
    result = both(name, content, rules(xml))
    lines = shown.splitlines()
    tasks: list[Any] = [json.loads(line) for line in lines if line.startswith("{")]
    assert [json.dumps(data) for data in result.data] == [json.dumps(task) for task in tasks]
    assert [f"row {row.row}: {row.code}" for row in result.rejected] == [
        line for line in lines if line.startswith("row")
    ]


def test_all_codes_and_extensions_are_named() -> None:
    """The page names every code of a rejected row and every extension that is read."""
    for code in (*ROW_CODES, "encoding", "compressed", "no_tasks", "unsupported_format"):
        assert f"`{code}`" in PAGE
    for extension in (*selection._EXTENSIONS, *media.EXTENSIONS, ".gz", ".bz2", ".zst"):
        assert extension in PAGE
