"""SIGKILL at each place of a worker: what comes after it finds everything, and writes nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import faults
from tests.consumers.house import build, inbox

KILLED = Path(__file__).with_name("killed.py")


def worker(folder: Path, fault: str) -> int:
    """Run a worker that is to die at a fault point; its exit status."""
    environment = os.environ | {faults.VARIABLE: fault}
    return subprocess.run([sys.executable, KILLED, folder], env=environment, check=False).returncode


@pytest.mark.parametrize(
    "fault",
    [
        "worker.before_start:1",
        "worker.started:1",
        "worker.staged:1",
        "worker.staged:2",
        "worker.before_commit:1",
        "worker.before_commit:2",
        "worker.committed:1",
        "worker.committed:2",
    ],
)
def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path, fault: str) -> None:
    """Killed anywhere, a worker's objects go back as soon as its process is gone, and each is imported once."""
    (tmp_path / "inbox").mkdir()
    for key, count in (("a", 1), ("b", 2), ("large", 15_000)):
        (tmp_path / "inbox" / key).write_text(str(count))
    assert worker(tmp_path, fault) == -signal.SIGKILL
    assert worker(tmp_path, "") == 0
    house = build(tmp_path, [inbox()])
    expected = [f'"{key} {n}"' for key, count in (("a", 1), ("b", 2), ("large", 15_000)) for n in range(count)]
    assert sorted(house.tasks()) == sorted(expected)
    assert set(house.states().values()) == {"done"}
    house.ledger.close()
