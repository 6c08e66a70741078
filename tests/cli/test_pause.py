"""Sources that are paused: by hand with `pause` and `resume`, or by their failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.ledger import PAUSE_AFTER

CONFIG = "projects: {p: {}}\nsources: [{name: inbox, project: p, url: ./inbox, settle: 0}]\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and an inbox."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    return tmp_path


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The source as `status` tells of it."""
    capsys.readouterr()
    cli.run(["status", "--json"])
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    return dict(source)


def test_by_hand(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is imported of a paused source, a run ends and says so, and after `resume` it goes on."""
    (place / "inbox" / "a.json").write_text('{"text": "x"}')
    assert cli.run(["pause", "inbox"]) == 0
    assert cli.run(["run", "--once"]) == 0
    assert "labelfeed resume inbox" in capsys.readouterr().err
    waiting = status(capsys)
    assert (waiting["ready"], waiting["done"]) == (1, 0)
    assert waiting["paused"]["by"] == "hand"  # type: ignore[index]
    assert cli.run(["resume", "inbox"]) == 0
    assert cli.run(["run", "--once"]) == 0
    assert status(capsys)["done"] == 1


def test_unknown_source() -> None:
    """A source that the configuration does not have can be neither paused nor resumed."""
    assert cli.run(["pause", "outbox"]) == 2
    assert cli.run(["resume", "outbox"]) == 2


def test_by_failures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run tries everything even of a source that its failures paused; status says why, until an object passes."""
    for number in range(PAUSE_AFTER + 5):
        (place / "inbox" / f"{number:03}.json").write_text("{nope")
    assert cli.run(["run", "--once"]) == 1
    assert "all failed as syntax" in capsys.readouterr().err
    failed = status(capsys)
    assert (failed["failed"], failed["ready"]) == (PAUSE_AFTER + 5, 0)
    assert failed["paused"] == failed["paused"] | {"by": "failures", "code": "syntax", "failing": PAUSE_AFTER + 5}  # type: ignore[operator]
    cli.run(["status"])
    assert "inbox (paused)" in capsys.readouterr().out
    (place / "inbox" / "good.json").write_text('{"text": "x"}')
    cli.run(["run", "--once"])
    assert status(capsys)["paused"] is None


def test_skips_are_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The closing table says why objects were skipped, once for each reason, and what to do."""
    for number in range(3):
        (place / "inbox" / f"{number}.odd").write_text("?")
    (place / "inbox" / "empty.json").write_text("[]")
    cli.run(["run", "--once"])
    out = capsys.readouterr().out
    assert "inbox:0.odd and 2 more" in out
    assert "no_tasks" in out
    assert "--format csv" in " ".join(out.split())
