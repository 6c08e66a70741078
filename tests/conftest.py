"""What all tests share."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.servers"]
pytest.register_assert_rewrite("tests.bus.contract", "tests.stores.contract", "tests.ledger")
