from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from deploy.services import Service
from tests.faults.installation import Bucket, Folder, Installation

Make = Callable[..., Installation]


@pytest.fixture
def mixed(tmp_path: Path, kafka_url: str, unique: str) -> Iterator[Installation]:
    """An installation of SQLite, Kafka, an embedded queue and a folder."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    events = f"{kafka_url}?partitions=4&session=3&group={unique}"
    made = Installation(tmp_path, Folder(inbox), "sqlite:///labelfeed.db", events, "embedded")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def make(
    tmp_path: Path, unique: str, kafka_url: str, redis_url: str, database_url: str, versitygw: Service, aws: None
) -> Iterator[Make]:
    """Makes the distributed installation: a bucket, Kafka, Redis and PostgreSQL; any of them may be another."""
    with ExitStack() as stack:

        def made(**parts: Any) -> Installation:
            given: dict[str, Any] = {
                "place": Bucket(versitygw, unique),
                "database": database_url,
                "events": f"{kafka_url}?partitions=4&session=3&group={unique}",
                "queue": redis_url,
            } | parts
            given["source"] = {"endpoint": versitygw.url} | parts.get("source", {})
            installation = Installation(tmp_path, **given)
            stack.callback(installation.close)
            return installation

        yield made


@pytest.fixture
def distributed(make: Make) -> Installation:
    """The distributed installation."""
    return make()


@pytest.fixture
def own(unique: str) -> Iterator[Callable[[str], Service]]:
    """Starts a server for this test alone, which it may stop, kill and empty."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(services.using(name, unique))
