"""What a labelling configuration asks for is told before a run, by a plan, and where a row did not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli

XML = """\
<View>
  <Text name="t" value="$text"/>
  <Image name="i" value="$image"/>
</View>
"""
CONFIG = "projects: {p: {label_config: c.xml}}\nsources: [{name: inbox, project: p, url: ./inbox, settle: 0}]\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, and files of three kinds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "c.xml").write_text(XML)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.csv").write_text("text,image,n\nx,https://a/b.jpg,1\ny,,2\n")
    (inbox / "b.json").write_text('{"text": "x", "image": "s3://b/c.jpg", "n": "many"}')
    (inbox / "c.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """What a command says as JSON."""
    capsys.readouterr()
    cli.run([*command, "--json"])
    return json.loads(capsys.readouterr().out)


def test_check_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """`check` tells keys, their types, the tags that ask for them, what may feed the project, and an example."""
    project = told(capsys, "check")[-1]
    assert (project["component"], project["ok"]) == ("project p", True)
    assert [(ask["key"], ask["types"]) for ask in project["asks"]] == [
        ("text", ["integer", "list", "number", "text"]),
        ("image", ["list", "text"]),
    ]
    assert project["asks"][0]["tag"] == "<Text name='t'> (line 2)"
    assert project["feeds"] == ["task JSON, CSV and TSV with text, image"]
    assert set(project["example"]) == {"text", "image"}
    cli.run(["check"])
    out = capsys.readouterr().out
    assert "may be fed by task JSON" in out
    assert "for example {" in out


def test_plan_tells_kinds_columns_and_what_does_not_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan sums up a folder by format, names the keys with their types, and what is unused, missing or rejected."""
    (plan,) = told(capsys, "plan")
    assert {name: (kind["count"], kind["parser"], kind["tasks"]) for name, kind in plan["kinds"].items()} == {
        ".csv": (1, "csv", 2), ".json": (1, "json", 1), ".jsonl": (1, "json", 0),
    }  # fmt: skip
    assert plan["columns"] == {"text": ["text"], "image": ["text"], "n": ["integer", "text"]}
    assert (plan["unused"], plan["missing"]) == (["n"], [])
    assert plan["rejected"]["missing_key"]["count"] == 2
    assert "<Image name='i'> (line 3)" in plan["rejected"]["missing_key"]["first"]
    (place / "labelfeed.yaml").write_text(CONFIG.replace("c.xml", "c.xml, validate: structure"))
    (place / "inbox" / "a.csv").unlink()
    (place / "inbox" / "b.json").unlink()
    (plan,) = told(capsys, "plan")
    assert plan["missing"] == ["image"]


def test_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    """`import --dry-run` tells the same of files that are named."""
    (plan,) = told(capsys, "import", "inbox", "--project", "q", "--label-config", "c.xml", "--dry-run")
    assert sorted(plan["kinds"]) == [".csv", ".json", ".jsonl"]
    assert plan["unused"] == ["n"]
    cli.run(["import", "inbox", "--project", "q", "--dry-run"])
    assert "has the keys: text (text), image (text), n (integer or text)" in capsys.readouterr().err


def test_explain_in_the_configurations_words(capsys: pytest.CaptureFixture[str]) -> None:
    """`explain` shows the lines of the configuration that rejected rows did not fit."""
    cli.run(["run", "--once"])
    (found,) = told(capsys, "explain", "inbox:c.jsonl")
    assert found["asks"] == [
        'line 2: <Text name="t" value="$text"/> takes integer or list or number or text under text',
        'line 3: <Image name="i" value="$image"/> takes list or text under image',
    ]
    (good,) = told(capsys, "explain", "inbox:b.json")
    assert good["asks"] == []


RESOLVING = """\
<View>
  <Text name="t" value="$remote" resolver="csv|separator=;|column=text"/>
</View>
"""


def test_explain_resolves(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain` shows what a resolver leads to: the column's value in the first row of the CSV that the task names, or
    why there is none."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("settle: 0", "settle: 0, match: '*.json'"))
    (place / "c.xml").write_text(RESOLVING)
    inbox = place / "inbox"
    (inbox / "far away.csv").write_text("id;text\n1;the first, whole\n2;the second\n")
    (inbox / "empty.csv").write_text("id;text\n")
    uris = [*((inbox / name).as_uri() for name in ("far away.csv", "empty.csv", "gone.csv")), "s3://bucket/a.csv"]
    (inbox / "b.json").write_text(json.dumps([{"remote": uri} for uri in uris]))
    cli.run(["run", "--once"])
    (found,) = told(capsys, "explain", "inbox:b.json")
    cli.run(["explain", "inbox:b.json"])
    shown = capsys.readouterr().out

    assert [row["uri"] for row in found["resolved"]] == uris
    assert [row["value"] for row in found["resolved"]] == ["the first, whole", None, None, None]
    assert [bool(row["error"]) for row in found["resolved"]] == [False, True, True, True]
    assert found["resolved"][1]["error"] == "it has no such row or column"
    assert found["resolved"][3]["error"] == "no source of this configuration has it"
    assert f"<Text name='t'>: {uris[0]} gives 'the first, whole'" in shown


def test_explain_resolves_nothing_outside_of_its_sources(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a task says leads to no file beside a source, and to no path."""
    (place / "labelfeed.yaml").write_text(CONFIG.replace("settle: 0", "settle: 0, match: '*.json'"))
    (place / "c.xml").write_text(RESOLVING)
    inbox = place / "inbox"
    for path in (place / "beside.csv", inbox / "ok.csv"):
        path.write_text("id;text\n1;hunter2\n")
    root = inbox.as_uri()
    uris = [f"{root}/ok.csv", f"{root}/../beside.csv", f"{place.as_uri()}/beside.csv", f"{root}/%2e%2e/beside.csv"]
    (inbox / "b.json").write_text(json.dumps([{"remote": uri} for uri in uris]))
    cli.run(["run", "--once"])
    found = told(capsys, "explain", "inbox:b.json")[0]["resolved"]

    assert [row["uri"] for row in found] == uris
    assert [row["value"] for row in found] == ["hunter2", None, None, None]
    assert all(row["error"] for row in found[1:])
