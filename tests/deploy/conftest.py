"""The image, which takes minutes to build, once for all tests that use it."""

from __future__ import annotations

import pytest

from tests.deploy.image import Image, built


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image, built."""
    return built(tmp_path_factory.mktemp("image"))
