"""What metrics cost stays small; `make bench ARGS=metrics_cost` measures it at full size."""

from __future__ import annotations

from pathlib import Path

from benchmarks import local_files, metrics_cost
from benchmarks.metrics_cost import COST_LIMIT, SCRAPE_LIMIT


def test_calls(tmp_path: Path) -> None:
    """An import's calls are few, and take with the reading of gauges no more than 2 % of its processor time."""
    folder = tmp_path / "files"
    folder.mkdir()
    local_files.make(folder, 2000)
    share, calls = metrics_cost.share(folder, tmp_path / "labelfeed.db")

    assert share <= COST_LIMIT
    assert calls < 2000


def test_scrape(tmp_path: Path) -> None:
    """/metrics tells of 200,000 objects at once, as it counts none of them; of 10,000,000 in `make bench`."""
    folder = tmp_path / "files"
    folder.mkdir()
    slowest, reading = metrics_cost.scrapes(folder, tmp_path / "labelfeed.db", 200_000)

    assert slowest <= SCRAPE_LIMIT * 5, "five times the limit of a quiet machine"
    assert reading <= SCRAPE_LIMIT * 5
