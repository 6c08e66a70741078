"""What all tests share."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

import pytest

pytest_plugins = ["tests.servers"]
pytest.register_assert_rewrite("tests.bus.contract", "tests.stores.contract", "tests.ledger", "tests.deliveries")

ROOT = Path(__file__).parents[1]


def pytest_sessionstart() -> None:
    """Compile once what every process of a test loads: it would do so itself where Python may not keep what it has
    compiled."""
    if sys.dont_write_bytecode:
        for folder in ("pipeline", "deploy", "tests"):
            compileall.compile_dir(ROOT / folder, quiet=2)
