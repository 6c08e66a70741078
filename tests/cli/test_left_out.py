"""What the configuration leaves out, as `status`, `plan` and `explain` tell it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli

Run = Callable[..., tuple[int, str, str]]

CONFIG = """\
projects: {p: {}, q: {}}
sources:
  - name: inbox
    project: p
    url: ./inbox
    settle: 0
    exclude: "*.log"
    max_size: 1kB
    routes: [{match: "q/**", project: q}]
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files for two projects, one that is too large, and a log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "inbox" / "q").mkdir(parents=True)
    for name in ("a.json", "q/b.json"):
        (tmp_path / "inbox" / name).write_text('[{"text": "one"}]')
    (tmp_path / "inbox" / "x.log").write_text("no task")
    (tmp_path / "inbox" / "big.json").write_text(" " * 2000)
    return tmp_path


def test_each_project_gets_its_own(place: Path, run: Run) -> None:
    """One source with routes imports each object once, into the project of its route."""
    assert run("run", "--once")[0] == 0
    assert run("run", "--once")[0] == 0
    tasks = [json.loads(line) for line in run("tasks")[1].splitlines()]
    assert sorted((task["project"], task["source"]["name"]) for task in tasks) == [
        ("p", "inbox"), ("q", "inbox.q"),
    ]  # fmt: skip
    assert run("verify")[0] == 0


def test_status_counts_what_was_left_out(place: Path, run: Run) -> None:
    """By rule, as of the last pass."""
    run("run", "--once")
    assert "inbox: the last pass left out 1 by exclude, 1 by max_size, 1 by routes" in " ".join(
        run("status")[1].split()
    )
    rows = json.loads(run("status", "--json")[1])["sources"]
    assert rows[0]["last_pass"]["left_out"] == {"exclude": 1, "max_size": 1, "routes": 1}


@pytest.mark.parametrize(
    ("named", "why"),
    [("inbox/x.log", "exclude: *.log"), ("inbox:x.log", "exclude: *.log"), ("inbox/big.json", "max_size: 1000")],
)
@pytest.mark.parametrize("imported", [True, False])
def test_explain_tells_the_rule(place: Path, run: Run, named: str, why: str, imported: bool) -> None:
    """For a path or a key, before and after the first run; an object that is taken is explained as ever."""
    if imported:
        run("run", "--once")
    code, out, _ = run("explain", named)
    assert (code, f"left out by the configuration, {why}" in out) == (0, True)
    (row,) = [row for row in json.loads(run("explain", named, "--json")[1]) if row["source"] == "inbox"]
    assert (row["state"], row["why"]) == ("left_out", why)


def test_explain_of_a_routed_object(place: Path, run: Run) -> None:
    """It speaks of the source that took it, not of the one that left it to that."""
    run("run", "--once")
    (row,) = json.loads(run("explain", "inbox/q/b.json", "--json")[1])
    assert (row["source"], row["state"]) == ("inbox.q", "done")


def test_plan_counts_it_too(place: Path, run: Run) -> None:
    """Before anything was imported."""
    plans = {row["source"]: row for row in json.loads(run("plan", "--json")[1])}
    assert plans["inbox"]["left_out"] == {"exclude": 1, "max_size": 1, "routes": 1}
    assert plans["inbox.q"]["new"] == 1
