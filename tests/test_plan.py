"""Plans: what a run would do, estimated without writing."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Source
from pipeline.parsers import Rules
from pipeline.plan import SAMPLE_BYTES, Plan, plan
from pipeline.stores.local import LocalStore


def planned(folder: Path, settle: float = 0) -> Plan:
    """The plan of a folder that no ledger knows."""
    source = Source(name="s", project="p", url=str(folder), settle=settle)
    return plan(source, LocalStore(folder, settle), Rules.of(source), None, 0)


def test_estimate_of_a_large_file(tmp_path: Path) -> None:
    """Of a large file only the beginning is read, and its tasks are told to within a tenth."""
    rows = 200_000
    (tmp_path / "large.csv").write_text("text,n\n" + "some text of a row,5\n" * rows)
    found = planned(tmp_path)

    assert found.new == 1
    assert abs(found.tasks - rows) < rows / 10
    assert (tmp_path / "large.csv").stat().st_size > SAMPLE_BYTES


def test_estimate_of_many_files(tmp_path: Path) -> None:
    """Of many files of a kind a few are read; media count one each, whatever their size."""
    for number in range(50):
        (tmp_path / f"{number}.json").write_text('[{"a": 1}, {"a": 2}]')
        (tmp_path / f"{number}.png").write_bytes(b"x" * (number * 100 + 1))
    found = planned(tmp_path)

    assert (found.new, found.tasks) == (100, 150)


def test_problems(tmp_path: Path) -> None:
    """A sampled file that would fail or be skipped is named with its reason; one that is unsettled is counted."""
    (tmp_path / "bad.json").write_bytes(b"\xff\xff{")
    (tmp_path / "x.unknown").write_text("x")
    found = planned(tmp_path)
    late = planned(tmp_path, settle=3600)

    assert {key for key, _ in found.problems} == {"bad.json", "x.unknown"}
    assert (late.new, late.unsettled) == (0, 2)
