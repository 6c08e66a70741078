"""Proposed revisions from the command line: a labelled task's file changes, and a person decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli

Run = Callable[..., tuple[int, str, str]]

CONFIG = """\
projects: {p: {}}
sources:
  - {name: inbox, project: p, url: ./inbox, settle: 0, on_change: replace, row_key: n}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives exit code, standard output, standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(word) for word in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def write(place: Path, *texts: str, labelled: bool = False) -> None:
    """The inbox's one file with these tasks."""
    tasks = [{"data": {"n": number, "text": text}} for number, text in enumerate(texts)]
    if labelled:
        tasks[0]["annotations"] = [{"result": []}]  # type: ignore[assignment]  # JSON values of any kind
    (place / "inbox" / "new").write_text(json.dumps(tasks))
    (place / "inbox" / "new").rename(place / "inbox" / "a.json")


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A folder whose one file was imported with a labelled task, and then changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    write(tmp_path, "one", "two", labelled=True)
    assert run("run", "--once")[0] == 0
    write(tmp_path, "ONE", "TWO")
    assert run("run", "--once")[0] == 0
    return tmp_path


def texts(run: Run) -> list[str]:
    """The texts of all tasks."""
    return sorted(json.loads(line)["data"]["text"] for line in run("tasks")[1].splitlines())


def test_a_change_of_a_labelled_task_is_shown_and_waits(changed: Path, run: Run) -> None:
    """`revisions`, `status` and `explain` show it; the task is as it was."""
    code, out, _ = run("revisions", "--json")
    (row,) = json.loads(out)

    assert (code, row["source"], row["key"], row["state"]) == (0, "inbox", "a.json", "proposed")
    assert (row["task"]["data"]["text"], row["proposed"]["data"]["text"]) == ("one", "ONE")
    assert 'text: "one" → "ONE"; annotations' in " ".join(run("revisions")[1].split())
    assert "proposed revisions" in run("status")[1]
    assert json.loads(run("status", "--json")[1])["sources"][0]["revisions"] == 1
    assert '"one" → "ONE"' in run("explain", "inbox:a.json")[1]
    assert texts(run) == ["TWO", "one"]


@pytest.mark.parametrize("named", [["1"], ["inbox:a.json"], ["--source", "inbox"], ["--all"]])
def test_accepting(changed: Path, run: Run, named: list[str]) -> None:
    """By number, object, source or all: the task becomes what was proposed, and nothing waits any more."""
    code, _, told = run("revisions", "accept", *named)

    assert (code, "1 revisions were accepted" in told) == (0, True)
    assert texts(run) == ["ONE", "TWO"]
    assert json.loads(run("revisions", "--json")[1]) == []
    assert "accepted" in run("explain", "inbox:a.json")[1]


def test_rejecting(changed: Path, run: Run) -> None:
    """The task stays; deciding again is refused with its reason, exit 1."""
    assert run("revisions", "reject", "1")[0] == 0
    assert texts(run) == ["TWO", "one"]
    code, out, _ = run("revisions", "accept", "1", "--json")
    assert (code, json.loads(out)) == (1, [{"id": 1, "refused": "it was rejected already"}])


def test_deciding_names_what(changed: Path, run: Run) -> None:
    """Nothing is decided on by leaving out what, nor by naming it twice; exit 2."""
    assert run("revisions", "accept")[0] == 2
    assert run("revisions", "reject", "1", "--all")[0] == 2
    assert run("revisions", "accept", "--source", "other")[0] == 2


def test_a_change_that_is_ignored_is_explained(changed: Path, run: Run) -> None:
    """With `on_change: ignore` a further change is counted, shown in `status` and in `explain`."""
    (changed / "labelfeed.yaml").write_text(CONFIG.replace("on_change: replace, row_key: n", "on_change: ignore"))
    write(changed, "three")
    assert run("run", "--once")[0] == 0
    assert "ignored changes" in run("status")[1]
    assert "effect=ignored" in run("explain", "inbox:a.json")[1]
    assert texts(run) == ["TWO", "one"]
