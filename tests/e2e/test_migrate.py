"""An embedded installation that becomes a distributed one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import yaml

from pipeline import cli

CONFIG = {
    "projects": {"p": {"label_config": '<View><Text name="t" value="$text"/></View>'}},
    "sources": [{"name": "inbox", "project": "p", "url": "./inbox", "settle": 0, "on_change": "replace"}],
}
FILES = {
    "a.json": '{"data": {"text": "a"}, "annotations": [{"result": []}], "predictions": [{"result": [], "score": 0.5}]}',
    "b.csv": "text,n\nb,1\nc,2\n",
    "lines.jsonl": '{"text": "d"}\n{"nothing": 1}\n',
    "broken.json": "{nope",
    "empty.json": "[]",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, an inbox and all that an import can come to."""
    monkeypatch.chdir(tmp_path)
    configure("sqlite:///labelfeed.db")
    (tmp_path / "inbox").mkdir()
    for name, text in FILES.items():
        (tmp_path / "inbox" / name).write_text(text)
    assert cli.run(["run", "--once"]) == 1
    (tmp_path / "inbox" / "b.csv").write_text("text,n\nb,1\nC,2\n")
    assert cli.run(["run", "--once"]) == 1
    return tmp_path


def configure(database: str) -> None:
    """Name the database in the configuration."""
    Path("labelfeed.yaml").write_text(yaml.safe_dump({"database": database, "events": "embedded"} | CONFIG))


def said(capsys: pytest.CaptureFixture[str], *command: str) -> list[object]:
    """What a verb prints as JSON; of times the milliseconds, as PostgreSQL keeps no more than microseconds."""
    capsys.readouterr()
    cli.run([*command])
    out = capsys.readouterr().out
    documents = out.splitlines() if command[0] == "tasks" else [out]
    return [json.loads(document, parse_float=lambda text: round(float(text), 3)) for document in documents]


def test_everything_goes_along(
    place: Path, database_url: str, kafka_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tasks and outcomes are the same afterwards; nothing is imported twice, and the new ledger goes on."""
    before = {verb: said(capsys, *verb.split()) for verb in ("tasks", "objects --json")}
    assert cli.run(["migrate", "sqlite:///labelfeed.db", database_url]) == 0
    Path("labelfeed.yaml").write_text(
        yaml.safe_dump({"database": database_url, "events": f"{kafka_url}?partitions=1"} | CONFIG)
    )
    after = {verb: said(capsys, *verb.split()) for verb in before}
    assert after == before
    assert cli.run(["run", "--once"]) == 1  # broken.json is what it was
    assert said(capsys, "tasks") == before["tasks"]
    (place / "inbox" / "new.json").write_text('{"text": "new"}')
    (place / "inbox" / "b.csv").write_text("text,n\nb,1\nCC,2\n")
    assert cli.run(["run", "--once"]) == 1  # broken.json is what it was
    tasks = said(capsys, "tasks")
    assert sorted(str(task["data"]["text"]) for task in tasks) == ["CC", "a", "b", "d", "new"]  # type: ignore[index]
    assert cli.run(["verify"]) == 0


def test_numbers_go_on(place: Path, database_url: str) -> None:
    """No batch gets a number that one had before, though that one is forgotten."""
    with closing(sqlite3.connect("labelfeed.db")) as old:
        old.execute("INSERT INTO batches (id, delivery_id, state, created_at) VALUES (41, 1, 'done', 0)")
        old.execute("DELETE FROM batches")
        old.commit()
    assert cli.run(["migrate", "sqlite:///labelfeed.db", database_url]) == 0
    with psycopg.connect(database_url) as new:
        made = new.execute(
            "INSERT INTO batches (delivery_id, state, created_at) VALUES (1, 'done', now()) RETURNING id"
        )
        assert made.fetchone() == (42,)


def test_only_an_empty_database_is_moved_into(place: Path, database_url: str) -> None:
    """A second move is refused, and so is a file that is not there; the first is left as it is."""
    assert cli.run(["migrate", "sqlite:///labelfeed.db", database_url]) == 0
    assert cli.run(["migrate", "sqlite:///labelfeed.db", database_url]) == 2
    assert cli.run(["migrate", "sqlite:///nothing.db", database_url]) == 2
    assert cli.run(["migrate", database_url, "sqlite:///labelfeed.db"]) == 2
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (4,)
