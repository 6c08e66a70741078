"""A server on the web for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores.web import Site, serving
from tests.stores.webstore import OPENED


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of this test alone."""
    with serving(Site()) as site:
        yield site


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """HTTP stores that a test opened are closed after it."""
    yield
    while OPENED:
        OPENED.pop().close()
