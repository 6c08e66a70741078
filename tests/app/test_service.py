"""Continuous processes: what they say of themselves, and what they wait for."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.services.processes import free_ports
from pipeline import cli
from pipeline.app import App
from pipeline.config import load
from pipeline.sinks.sqlite import schema
from tests.faults.installation import Folder, Installation, until


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Installation]:
    """An installation without servers."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    made = Installation(tmp_path, Folder(inbox), "sqlite:///labelfeed.db", "embedded", "embedded")
    try:
        yield made
    finally:
        made.close()


def test_roles_share_an_embedded_log(embedded: Installation) -> None:
    """A `watch` and a `run` work side by side on one file; each says which roles it has, and ends with 0."""
    watch, run = embedded.start("watch"), embedded.start("run")
    embedded.put(20)
    embedded.imported()
    for role in (watch, run):
        until(lambda role=role: role.ready()[0] == 200, what=lambda role=role: f"{role.name} ready: {role.ready()}")

    assert watch.ready() == (200, {"watch": None, "source bucket": None})
    assert set(run.ready()[1]) == {"watch", "source bucket", "dispatch", "schedule", "work"}
    assert watch.metric("leader") + run.metric("leader") == 1
    assert [role.end() for role in (watch, run)] == [0, 0]
    embedded.exactly_once()


def test_next_leader_takes_over_at_once(embedded: Installation) -> None:
    """When the leader of a source ends, by a signal or killed, another process leads it within seconds."""
    roles = [embedded.start("watch") for _ in range(3)]
    for end in (lambda role: role.end(), lambda role: role.kill()):
        until(lambda: sum(role.metric("leader") for role in roles) == 1, what="a leader")
        leader = next(role for role in roles if role.metric("leader"))
        roles.remove(leader)
        end(leader)
        until(lambda: sum(role.metric("leader") for role in roles) == 1, 5.0, "the next leader")


def test_log_away(embedded: Installation) -> None:
    """A run whose event log is away says so at /readyz, in `up` and in one line, and ends when it is asked to."""
    port = free_ports(("main",))["main"]
    embedded.events = f"kafka://127.0.0.1:{port}/topic"
    embedded.write()
    embedded.put(1)
    run = embedded.start("run")
    until(lambda: run.said("started"))
    for role in ("dispatch", "watch", "source bucket"):
        until(lambda role=role: "does not answer" in str(run.ready()[1][role]), what=role)
    status, roles = run.ready()
    until(lambda: not run.metric("up", role="dispatch") and not run.metric("up", role="watch"))

    assert status == 503
    assert roles["schedule"] is None
    assert run.end() == 0
    assert len([line for line in run.lines("waiting") if line.get("role") == "dispatcher"]) == 1


def test_newer_schema(embedded: Installation) -> None:
    """A role that finds a newer schema than it knows waits, says so, and goes on when it is as new itself."""
    embedded.put(3)
    embedded.start("run")
    embedded.imported()
    embedded.close()
    version = _schema(embedded, 99)
    run = embedded.start("run")
    until(lambda: run.said("waiting"))
    status, roles = run.ready()
    _schema(embedded, version)
    until(lambda: run.said("started"))

    assert status == 503
    assert all("schema 99" in str(why) for why in roles.values())
    assert run.metric("up", role="work") == 1
    assert len(run.lines("waiting")) == 1
    assert run.lines("recovered")


def test_old_roles_go_on_beside_a_newer_schema(
    embedded: Installation, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role at work imports on, and meets no error, after a newer program has added to the schema."""
    embedded.put(3)
    run = embedded.start("run")
    embedded.imported()
    newer = tmp_path_factory.mktemp("newer") / "sqlite"
    shutil.copytree(str(schema._FOLDER), newer)
    number = _schema(embedded) + 1
    (newer / f"{number:04}_more.sql").write_text(
        "ALTER TABLE objects ADD COLUMN more INTEGER NOT NULL DEFAULT 0;\n"
        "ALTER TABLE task_rows ADD COLUMN more TEXT;\nCREATE TABLE more (id INTEGER PRIMARY KEY);\n"
    )
    monkeypatch.setattr(schema, "_FOLDER", newer)
    with App.open(load(embedded.config)):
        assert _schema(embedded) == number
    embedded.put(3)
    embedded.imported()

    assert run.ready()[0] == 200
    assert not run.lines("waiting")
    embedded.exactly_once()
    assert run.end() == 0


def _schema(embedded: Installation, version: int | None = None) -> int:
    with closing(sqlite3.connect(embedded.folder / "labelfeed.db")) as connection:
        (before,) = connection.execute("PRAGMA user_version").fetchone()
        if version is not None:
            connection.execute(f"PRAGMA user_version = {version}")
    return int(before)


@pytest.mark.parametrize("role", ["dispatch", "work"])
def test_half_an_embedded_queue(embedded: Installation, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`dispatch` and `work` alone refuse a queue that ends with the process."""
    assert cli.run([role, "--config", str(embedded.config)]) == 2
    assert "redis://" in capsys.readouterr().err


def test_address_in_use(embedded: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """A role that cannot listen where it is told to says so, and ends with 2."""
    assert cli.run(["watch", "--config", str(embedded.config), "--listen", "127.0.0.1:99999"]) == 2
    assert "listen" in capsys.readouterr().err
