"""Sources that are paused: by hand with `pause` and `resume`, or by their failures."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

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


def whole_status(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """All that `status` tells."""
    capsys.readouterr()
    cli.run(["status", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_projects_by_hand(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A project is paused and resumed as a source is; status says so of it and of its sources, and a run ends."""
    (place / "inbox" / "a.json").write_text('{"text": "x"}')
    assert cli.run(["pause", "p"]) == 0
    assert cli.run(["run", "--once"]) == 0
    assert "1 objects of inbox wait; paused" in capsys.readouterr().err
    told = whole_status(capsys)
    assert told["projects"][0]["waits"]["text"] == told["sources"][0]["waits"]["text"] == "paused"
    assert cli.run(["resume", "project:p"]) == 0
    assert "goes on" in capsys.readouterr().err
    assert cli.run(["resume", "p"]) == 0
    assert "was not paused" in capsys.readouterr().err
    assert cli.run(["run", "--once"]) == 0
    assert status(capsys)["done"] == 1


def test_a_name_of_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a project and a source have one name, it must be said which is meant."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("name: inbox", "name: p"))
    assert cli.run(["pause", "p"]) == 2
    assert "project:p or source:p" in capsys.readouterr().err
    assert cli.run(["pause", "source:p"]) == 0
    told = whole_status(capsys)
    assert told["sources"][0]["paused"]["by"] == "hand"
    assert told["projects"][0]["paused"] is None


def test_a_full_project_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run ends when its project is full and says so, by how much it is, and goes on when the limit is raised."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("p: {}", "p: {throttle: {max_tasks: 3}}"))
    (place / "inbox" / "0.txt").write_text("one\ntwo\n")
    assert cli.run(["run", "--once"]) == 0
    for number in (1, 2):
        (place / "inbox" / f"{number}.txt").write_text("one\ntwo\n")
    assert cli.run(["run", "--once"]) == 0
    assert "1 objects of inbox wait; full: 4 of 3, 1 too many" in capsys.readouterr().err
    told = whole_status(capsys)
    assert told["sources"][0]["waits"]["text"] == "full: 4 of 3, 1 too many"
    assert (told["projects"][0]["tasks"], told["projects"][0]["waits"]["why"]) == (4, "full")
    cli.run(["status"])
    assert "full: 4 of 3" in capsys.readouterr().out
    (place / "labelfeed.yaml").write_text(CONFIG)
    assert cli.run(["run", "--once"]) == 0
    assert (status(capsys)["done"], status(capsys)["waits"]) == (3, None)


def test_enough_open_tasks(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks that came with annotations are nothing that labellers wait for; the others are counted, and are enough."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("p: {}", "p: {throttle: {open_tasks: 2}}"))
    done = '{"data": {"text": "x"}, "annotations": [{"result": []}]}'
    for number in range(4):
        (place / "inbox" / f"{number}.json").write_text(done)
    assert cli.run(["run", "--once"]) == 0
    assert status(capsys)["done"] == 4
    for number in range(4):
        (place / "inbox" / f"open-{number}.json").write_text('{"text": "x"}')
    assert cli.run(["run", "--once"]) == 0
    assert "2 objects of inbox wait; enough for the labellers: 2 of 2" in capsys.readouterr().err
    assert status(capsys)["tasks"] == 6


def test_nobody_schedules(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has waited for a while with no process at work is told as such."""
    (place / "inbox" / "a.json").write_text('{"text": "x"}')
    cli.run(["pause", "inbox"])
    cli.run(["run", "--once"])
    cli.run(["resume", "inbox"])
    with closing(sqlite3.connect(place / "labelfeed.db", isolation_level=None)) as connection:
        connection.execute("UPDATE objects SET due = due - 60")
        connection.execute("UPDATE scheduling SET noted_at = noted_at - 60")
    assert "labelfeed run" in whole_status(capsys)["sources"][0]["waits"]["text"]


def test_what_was_not_recorded_is_a_failure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An event that could not be recorded makes status exit with 1, as a failed object does."""
    cli.run(["run", "--once"])
    assert cli.run(["status"]) == 0
    with closing(sqlite3.connect(place / "labelfeed.db", isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO dead_letters (at, position, reason, body) VALUES (?, 1, 'not JSON', X'7B')", (time.time(),)
        )
    assert cli.run(["status"]) == 1
    assert "not JSON" in capsys.readouterr().out


def configure(place: Path, **throttle: int) -> None:
    """A project within a limit, which what is deleted leaves."""
    made = CONFIG.replace("p: {}", f"p: {{throttle: {json.dumps(throttle)}}}")
    (place / "labelfeed.yaml").write_text(made.replace("settle: 0", "settle: 0, on_delete: archive"))


def delete(place: Path, *names: str) -> None:
    """Take files away, however large a part of all they are."""
    for name in names:
        (place / "inbox" / name).unlink()
    assert cli.run(["sources", "accept", "inbox", "--deletions"]) == 0


@pytest.mark.parametrize(
    ("limit", "told_of"), [("max_tasks", "full: 3 of 3"), ("open_tasks", "enough for the labellers: 3 of 3")]
)
def test_a_full_project_can_be_emptied(
    place: Path, capsys: pytest.CaptureFixture[str], limit: str, told_of: str
) -> None:
    """What was deleted at the source leaves a full project in the same run, also from behind what waits for room; and
    that comes in instead."""
    configure(place, **{limit: 3})
    for number in range(5):
        (place / "inbox" / f"{number}.json").write_text('{"text": "x"}')
    assert cli.run(["run", "--once"]) == 0
    assert f"2 objects of inbox wait; {told_of}" in capsys.readouterr().err
    imported = [path for (path,) in rows(place, "SELECT key FROM objects WHERE state = 'done'")]
    delete(place, imported[0])
    assert cli.run(["run", "--once"]) == 0
    told = status(capsys)
    assert (told["tasks"], told["ready"], told["gone"]) == (3, 1, 1)
    delete(place, *imported[1:])
    assert cli.run(["run", "--once"]) == 0
    told = status(capsys)
    assert (told["tasks"], told["ready"], told["gone"]) == (2, 0, 3)


def test_a_paused_project_is_not_emptied(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is paused by hand loses no task either, until it goes on."""
    configure(place, max_tasks=1)
    (place / "inbox" / "0.json").write_text('{"text": "x"}')
    assert cli.run(["run", "--once"]) == 0
    assert cli.run(["pause", "p"]) == 0
    delete(place, "0.json")
    assert cli.run(["run", "--once"]) == 0
    told = status(capsys)
    assert (told["tasks"], told["ready"]) == (1, 1)
    assert cli.run(["resume", "p"]) == 0
    assert cli.run(["run", "--once"]) == 0
    told = status(capsys)
    assert (told["tasks"], told["ready"]) == (0, 0)


def rows(place: Path, question: str) -> list[tuple[Any, ...]]:
    """What the database says."""
    with closing(sqlite3.connect(place / "labelfeed.db")) as connection:
        return connection.execute(question).fetchall()
