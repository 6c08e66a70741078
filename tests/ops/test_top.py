"""`labelfeed top`: what flows and what waits, from the ledger alone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest

from pipeline import cli
from tests.faults.installation import Installation, until

INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli import main
main()
"""
"""The program as a terminal starts it: tests that run in the background have it ignore Ctrl-C."""


def look(installation: Installation, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """One look, as JSON."""
    capsys.readouterr()
    assert cli.run(["top", "--once", "--json", "--config", str(installation.config)]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_flow_and_rest(embedded: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """While objects are imported each source has its rates; at rest it has none, and no backlog."""
    embedded.put(20)
    run = embedded.start("run")
    embedded.imported()
    embedded.put(2000)
    flowing = until(lambda: (frame := look(embedded, capsys))["sources"][0]["task_rate"] > 0 and frame, what="a rate")
    embedded.imported()
    resting = until(lambda: (frame := look(embedded, capsys))["sources"][0]["rate"] == 0 and frame, what="rest")
    run.end()

    assert flowing["sources"][0]["rate"] > 0
    assert flowing["threads"] == 2
    (source,) = resting["sources"]
    assert (source["backlog"], source["tasks"], source["oldest_waiting_seconds"]) == (0, 2020, None)


def test_what_is_waited_for(embedded: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that a person has paused says so, with what waits and since when; failures are counted."""
    embedded.put(3)
    embedded.place.put("broken.json", b"{")
    assert cli.run(["run", "--once", "--config", str(embedded.config)]) == 1
    assert cli.run(["pause", "bucket", "--config", str(embedded.config)]) == 0
    run = embedded.start("run")
    embedded.put(4)
    found = until(lambda: (frame := look(embedded, capsys))["sources"][0]["backlog"] == 4 and frame, what="a backlog")
    cli.run(["top", "--once", "--config", str(embedded.config)])
    shown = capsys.readouterr().out
    run.end()

    (source,) = found["sources"]
    assert (source["failed"], source["waits"]["why"]) == (1, "paused")
    assert source["oldest_waiting_seconds"] >= 0
    assert "waits for" in shown
    assert "paused" in shown


def test_live(embedded: Installation) -> None:
    """In a terminal it draws itself again and again, until Ctrl-C ends it."""
    embedded.put(3)
    assert cli.run(["run", "--once", "--config", str(embedded.config)]) == 0
    terminal, inner = pty.openpty()
    command = [sys.executable, "-c", INTERRUPTIBLE, "top", "--interval", "0.2", "--config", str(embedded.config)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment, cwd=embedded.folder)
    os.close(inner)
    drawn = ""
    try:
        while drawn.count("worker threads") < 3:
            drawn += os.read(terminal, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        # What it draws at the end must be read, too, or it waits for room in the terminal.
        with contextlib.suppress(OSError):
            while os.read(terminal, 65536):
                pass
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        os.close(terminal)

    assert "bucket" in drawn
