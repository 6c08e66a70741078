"""A pass takes the memory of a page, whatever the bucket's size (benchmarks/million_keys.py goes to a million)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.simulated_s3 import Bucket, credentials, served

ROOT = Path(__file__).parents[2]
KEYS = (10_000, 40_000)
LIMIT_MB = 150
CACHE_KIB = 1024
"""SQLite's caches are so small here that they are full from the start."""
NOISE_MB = 8


def passes(keys: int, folder: Path) -> dict[str, object]:
    """Peak memory in MB of a process that makes two passes over so many keys, and what they found."""
    folder.mkdir()
    with served(Bucket(keys)) as bucket:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.million_keys", bucket.url, str(folder), str(CACHE_KIB)],
            capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | credentials(),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_memory_does_not_grow_with_the_bucket(tmp_path: Path) -> None:
    """Four times the keys take no more, and both stay under the limit."""
    found = [passes(keys, tmp_path / str(keys)) for keys in KEYS]

    assert [run["listed"] for run in found] == [[keys, keys] for keys in KEYS]
    assert [run["published"] for run in found] == [[keys, 0] for keys in KEYS]
    small, large = (float(str(run["peak_mb"])) for run in found)
    assert large <= LIMIT_MB
    assert large <= small + NOISE_MB
