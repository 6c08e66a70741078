"""`make demo-distributed` shows what it says, on real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo import FIRST, MORE
from deploy.services import Service

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"AWS_SESSION_TOKEN": "of-a-login", "AWS_PROFILE": "nobody", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
"""What the shell of somebody who works with AWS says."""


@pytest.mark.timeout(600)
def test_demo_distributed(
    tmp_path: Path, kafka: Service, redis_server: Service, postgres: Service, seaweedfs: Service
) -> None:
    """Files of before and of while it runs are imported by four processes, which end well; the table tells of all of
    them, with the one that is broken, and `verify` agrees. Whose cloud the shell speaks of does not matter."""
    found = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=tmp_path,
        env={**os.environ, **ELSEWHERE, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = found.stdout + found.stderr

    assert found.returncode == 0, told
    assert f"{MORE} more files land in the bucket" in told
    assert "exit codes 0, 0, 0, 0" in told
    assert "not everything was imported in time" not in told
    table = next(line.split() for line in found.stdout.splitlines() if line.startswith("reports  "))
    assert table[1] == str(FIRST + MORE)
    assert "reports:reports/broken.json" in found.stdout
