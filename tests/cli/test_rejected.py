"""Rejected rows are streamed, repaired, and given back to `labelfeed import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.parsers import ITEM_BYTES
from pipeline.tasks import EXCERPT_LIMIT

XML = '<View><Text name="t" value="$text"/></View>'
CONFIG = (
    f"projects: {{p: {{label_config: '{XML}'}}}}\nsources: [{{name: inbox, project: p, url: ./inbox, settle: 0}}]\n"
)
LINES = (
    '{"text": "fine"}\n{"txt": "one", "n": 123456789012345678901234}\n{"text": "x", "annotations": []}\n'
    '{"text": broken}\n{}\n7\n{"data": {"text": {"a": 1}}, "id": 5}\n'
)
CODES = ["missing_key", "needs_data", "syntax", "empty_task", "not_an_object", "wrong_type", "too_many_cells"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where files with bad rows were imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelfeed.yaml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.jsonl").write_text(LINES)
    (tmp_path / "inbox" / "b.csv").write_text("text,b\nx,1\ny,2,3\n")
    cli.run(["run", "--once"])
    return tmp_path


def rejected(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    """What the verb prints, line by line."""
    capsys.readouterr()
    assert cli.run(["rejected", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_row_with_its_place(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every rejected row is told with its file's URI, row, line, column, code, message and excerpt."""
    rows = rejected(capsys)
    assert [row["rejected"]["code"] for row in rows] == CODES
    told = rows[2]["rejected"]
    assert told["uri"] == (place / "inbox" / "a.jsonl").as_uri()
    assert (told["source"], told["row"], told["line"], told["column"]) == ("inbox", 4, 4, 10)
    assert (told["excerpt"], told["complete"]) == ('{"text": broken}', True)
    assert told["message"]


def test_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are chosen by source and by code; a name that does not exist is an error."""
    assert [row["rejected"]["code"] for row in rejected(capsys, "--code", "syntax")] == ["syntax"]
    assert len(rejected(capsys, "--source", "inbox")) == len(CODES)
    assert cli.run(["rejected", "--source", "outbox"]) == 2
    assert cli.run(["rejected", "--code", "nonsense"]) == 2
    assert cli.run(["rejected", "--format", "table"]) == 0
    assert "too_many_cells" in capsys.readouterr().out


def test_repaired_rows_become_tasks(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Repaired documents given back to `import` become tasks, which remember where they came from."""
    rows = rejected(capsys)
    for row in rows:
        repaired = row["data"] if isinstance(row.get("data"), dict) else {}
        row["data"] = repaired | {"text": f"repaired {row['rejected']['row']}"}
    (place / "repaired.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.run(["import", "repaired.jsonl", "--project", "p"]) == 0
    capsys.readouterr()
    cli.run(["tasks"])
    tasks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    back = [task for task in tasks if task["data"]["text"].startswith("repaired")]
    assert [task["extra"]["rejected"]["code"] for task in back] == CODES
    assert back[0]["data"]["n"] == 123456789012345678901234
    assert back[5]["external_id"] == "5"


def test_what_is_not_repaired_is_rejected_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given back as they are, none of the documents becomes a task."""
    capsys.readouterr()
    cli.run(["rejected"])
    (place / "same.jsonl").write_text(capsys.readouterr().out)
    assert cli.run(["import", "same.jsonl", "--project", "p"]) == 1
    capsys.readouterr()
    cli.run(["objects", "--state", "failed", "--json"])
    (failed,) = json.loads(capsys.readouterr().out)
    assert (failed["tasks"], failed["rejected"]) == (0, len(CODES))


def test_a_row_that_was_cut(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a long row the beginning is kept, and it is said that it isn't whole."""
    (place / "inbox" / "c.jsonl").write_text('{"text": {"long": "' + "x" * 5000 + '"}}\n')
    cli.run(["run", "--once"])
    (row,) = [row for row in rejected(capsys) if row["rejected"]["uri"].endswith("c.jsonl")]
    assert row["rejected"]["complete"] is False
    assert len(row["data"]) == EXCERPT_LIMIT < ITEM_BYTES


@pytest.mark.parametrize("sign", ["x", "é", "漢", "🦡"])
def test_an_excerpt_is_a_kibibyte(place: Path, capsys: pytest.CaptureFixture[str], sign: str) -> None:
    """Of a long row at most 1,024 bytes are kept, whatever its script, and no sign is cut in two."""
    (place / "inbox" / "c.txt").write_text("fine\n" + sign * 5000 + "\0\n")
    cli.run(["run", "--once"])
    (row,) = [row for row in rejected(capsys) if row["rejected"]["uri"].endswith("c.txt")]
    assert EXCERPT_LIMIT - 3 <= len(row["data"].encode()) <= EXCERPT_LIMIT
    assert set(row["data"]) == {sign}
    assert row["rejected"]["complete"] is False


def test_a_row_over_several_lines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pretty-printed item is one line of output, and the same data."""
    (place / "inbox" / "c.json").write_text('[\n {\n  "other": "a\\nb",\n  "n": 1\n }\n]\n')
    cli.run(["run", "--once"])
    (row,) = [row for row in rejected(capsys) if row["rejected"]["uri"].endswith("c.json")]
    assert row["data"] == {"other": "a\nb", "n": 1}
