"""Where notifications lead, whether or not the stores that they speak of answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.app import routes
from pipeline.app.routes import route_of
from pipeline.config import Source
from pipeline.stores.s3 import S3Store, open_store
from tests.stores.front import Answer, Front, front_of

pytestmark = pytest.mark.usefixtures("aws")
EVENTS = 1000
SILENT = 20
"""Sources of a bucket."""
POLL_SECONDS = 10.0
"""Far less than Kafka's longest time between two polls, and than a second for each silent source; far more than a busy
machine takes."""
DEADLINE_SECONDS = 20.0
VERSIONING = b"<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>"


class Read(NamedTuple):
    """A source as a route sees it."""

    store: S3Store


Open = Callable[[str, str], Read]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens stores of buckets, by bucket and endpoint, which are closed at the end."""
    stores: list[S3Store] = []

    def open_one(bucket: str, endpoint: str) -> Read:
        source = Source(name=bucket, project="p", url=f"s3://{bucket}", endpoint=endpoint)
        stores.append(open_store(source, Path()))
        return Read(stores[-1])

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def front() -> Iterator[Front]:
    """A server that answers as each test says."""
    with front_of("http://127.0.0.1:1") as made:
        yield made


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_buckets_that_do_not_answer_hold_up_nobody(opened: Open, silent: str, front: Front) -> None:
    """A poll's worth of events of silent buckets is routed in seconds, however many sources they concern, and those of
    another bucket as it answers."""
    front.fault = lambda _method, _target: Answer(200, b"<VersioningConfiguration/>")
    read = opened("silent", silent)
    names = [f"silent{number}" for number in range(SILENT)]
    feeds = {"good": opened("good", front.url)} | dict.fromkeys(names, read) | {"other": opened("other", silent)}
    route = route_of(feeds)
    began = time.monotonic()
    found = [
        target
        for number in range(EVENTS)
        for bucket in ("good", "silent", "other")
        for target in route(bucket, f"{number}")
    ]

    assert time.monotonic() - began < POLL_SECONDS
    told = {target.source: target.by_version_id for target in found}
    assert told == {"good": False, "other": True} | dict.fromkeys(names, True)
    assert len(found) == EVENTS * len(feeds)


@pytest.mark.parametrize(("status", "by_version_id"), [(b"Enabled", True), (b"", False)])
def test_a_bucket_that_answers_again_is_believed(
    opened: Open, front: Front, monkeypatch: pytest.MonkeyPatch, status: bytes, by_version_id: bool
) -> None:
    """After a failed answer a bucket is asked again when its time has come, and then never more."""
    monkeypatch.setattr(routes, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(routes, "AGAIN_SECONDS", 3600.0)
    answers = {False: Answer(400), True: Answer(200, VERSIONING % status)}
    up = False
    front.fault = lambda _method, _target: answers[up]
    route = route_of({"bucket": opened("bucket", front.url)})

    def told() -> bool:
        (target,) = route("bucket", "key")
        return target.by_version_id

    assert told()
    asked = len(front.asked)
    assert asked
    assert told()
    assert len(front.asked) == asked
    up = True
    monkeypatch.setattr(routes, "AGAIN_SECONDS", 0.0)
    until(lambda: told() is by_version_id and len(front.asked) == asked + 1)
    assert told() is by_version_id
    assert len(front.asked) == asked + 1


def test_a_bucket_that_is_asked_again_is_not_waited_for(
    opened: Open, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the answer to a second question takes, events are routed meanwhile."""
    monkeypatch.setattr(routes, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(routes, "AGAIN_SECONDS", 0.0)
    asked, answering = threading.Event(), threading.Event()

    def slow(_method: str, _target: str) -> Answer:
        asked.set()
        answering.wait(DEADLINE_SECONDS)
        return Answer(200, VERSIONING % b"")

    front.fault = lambda _method, _target: Answer(400)
    route = route_of({"bucket": opened("bucket", front.url)})
    assert [target.by_version_id for target in route("bucket", "key")] == [True]
    front.fault = slow
    for _ in range(EVENTS):
        assert [target.by_version_id for target in route("bucket", "key")] == [True]
    assert asked.wait(DEADLINE_SECONDS)
    answering.set()
    until(lambda: [target.by_version_id for target in route("bucket", "key")] == [False])
