"""Fault points: nothing in production, a kill at the right moment in tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import faults

PASSES = (
    "from pipeline.faults import reached\nfor n in range(5):\n    print(n, flush=True)\n    reached('worker.started')\n"
)


def run(setting: str) -> subprocess.CompletedProcess[str]:
    """A process that passes one point five times."""
    environment = os.environ | {faults.VARIABLE: setting}
    return subprocess.run([sys.executable, "-c", PASSES], env=environment, capture_output=True, text=True, check=False)


def test_nothing_happens_without_the_variable() -> None:
    """Unset, passing a point does nothing."""
    assert run("").returncode == 0


def test_the_process_is_killed_the_nth_time() -> None:
    """`point:n` ends the process by SIGKILL when it comes there for the nth time; other points do nothing."""
    killed = run("worker.started:3")
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split() == ["0", "1", "2"]
    assert run("worker.staged").returncode == 0


def test_the_process_can_be_suspended_and_continued() -> None:
    """`point:n:STOP` suspends the process at its point; continued, it goes on as if nothing had been."""
    environment = os.environ | {faults.VARIABLE: "worker.started:2:STOP"}
    with subprocess.Popen(
        [sys.executable, "-c", PASSES], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0].split() == ["0", "1", "2", "3", "4"]
    assert process.returncode == 0


def test_a_point_can_strike_for_one_subject_alone() -> None:
    """`point@text` ends the process whenever it comes there with a subject that has the text in it, not before."""
    passes = "from pipeline.faults import reached\nfor key in 'abc':\n    reached('worker.parsing', key)\nprint(key)\n"
    for text, code, said in (("b", -signal.SIGKILL, ""), ("d", 0, "c\n")):
        environment = os.environ | {faults.VARIABLE: f"worker.parsing@{text}"}
        ended = subprocess.run(
            [sys.executable, "-c", passes], env=environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (code, said)


@pytest.mark.parametrize("setting", ["worker.nowhere", "worker.started:0", "worker.started:x", "worker.started:1:NAP"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    """A point that does not exist would make a kill test pass for nothing."""
    with pytest.raises(ValueError, match=r".+"):
        faults.armed(setting)


def test_every_point_is_reached_somewhere() -> None:
    """The list of points and the calls in the code are the same."""
    source = "".join(path.read_text() for path in Path(faults.__file__).parent.rglob("*.py"))
    assert set(re.findall(r'reached\("([\w.]+)"', source)) == faults.POINTS
