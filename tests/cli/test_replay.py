"""Events that are fed to the ledger once more."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.app import App
from pipeline.bus import Record
from pipeline.config import load
from pipeline.events import ObjectEvent

CONFIG = "projects: {p: {}}\nsources: [{name: inbox, project: p, url: ./inbox, settle: 0}]\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.json").write_text('{"text": "x"}')
    return tmp_path


def replayed(capsys: pytest.CaptureFixture[str], *options: str) -> int:
    """How many events a replay put back."""
    capsys.readouterr()
    assert cli.run(["replay", "--json", *options]) == 0
    return int(json.loads(capsys.readouterr().out)["replayed"])


def test_a_dead_letter_is_imported_after_its_replay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was put aside comes to the ledger by `replay`, once."""
    event = ObjectEvent("inbox", "a.json", discovered_by="notification", time=1.0, id="1")
    with App.open(load(None)) as app:
        (end,) = app.log.publish([event]).values()
        with closing(app.log.consumer(lambda _partitions: {0: end})) as consumer:
            consumer.dead([Record(0, end - 1, event)], ["the database refused it"])
        app.ledger.record(app.log.name, [], {0: end}, {"inbox": "ignore"})
    assert replayed(capsys) == 1
    assert replayed(capsys) == 0
    with App.open(load(None)) as app, closing(app.log.consumer(lambda _partitions: {0: end})) as consumer:
        (record,) = consumer.poll(10, 0).records
    assert record.event == event._replace(discovered_by="replay")


def test_a_span_changes_nothing_that_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """All events may be fed again, by time or by offsets: each object is still imported once."""
    assert cli.run(["run", "--once"]) == 0
    assert replayed(capsys, "--since", "1h") == 1
    assert replayed(capsys, "--partition", "0", "--from", "1", "--to", "2") == 1
    assert replayed(capsys, "--since", "2999-01-01") == 0
    assert cli.run(["run", "--once"]) == 0
    capsys.readouterr()
    assert cli.run(["tasks"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert cli.run(["verify"]) == 0


@pytest.mark.parametrize(
    "options",
    [["--since", "soon"], ["--from", "3"], ["--partition", "7"], ["--since", "1h", "--partition", "0"]],
)
def test_what_makes_no_sense_is_said(options: list[str]) -> None:
    """Options that name no time, no partition, or two spans are refused."""
    assert cli.run(["replay", *options]) == 2
