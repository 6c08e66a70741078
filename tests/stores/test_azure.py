"""The Azure store on Azurite: the contract, and what only Azure has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Source
from pipeline.stores.azure import AzureStore, open_store
from tests.stores.contract import Made, StoreContract, listed


def opened(container: str, prefix: str = "", **more: Any) -> AzureStore:
    """The store of a source in a container of Azurite, found by the connection string."""
    return open_store(Source(name="s", project="p", url=f"az://{container}{prefix}", **more), Path())


def made_of(client: Any, container: str, prefix: str = "") -> Made:
    """A store and the means to change what is in it."""
    blobs = client.get_container_client(container)
    folder = f"{prefix.strip('/')}/" if prefix else ""

    def put(key: str, content: bytes) -> None:
        blobs.upload_blob(folder + key, content, overwrite=True)

    def delete(key: str) -> None:
        blobs.delete_blob(folder + key)

    return Made(opened(container, prefix), put, delete)


@pytest.fixture
def container(azure: Any, unique: str) -> Iterator[str]:
    """A container of this test alone."""
    azure.create_container(unique)
    yield unique
    azure.delete_container(unique)


@pytest.fixture
def made(azure: Any, container: str) -> Iterator[Made]:
    """A store on that container."""
    made = made_of(azure, container)
    yield made
    made.store.close()


class TestOnAzurite(StoreContract):
    """The contract in a whole container."""


class TestInAPrefix(StoreContract):
    """The contract in a folder of a container that holds others."""

    @pytest.fixture
    def made(self, azure: Any, container: str) -> Iterator[Made]:
        """A folder of its own for each test, with neighbours before and after it."""
        blobs = azure.get_container_client(container)
        for key in ("in", "in-a", "in/other/x", "in/boxes", "in/box0/z", "zz"):
            blobs.upload_blob(key, b"neighbour")
        made = made_of(azure, container, "/in/box")
        yield made
        made.store.close()
