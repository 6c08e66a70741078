"""SIGTERM ends a process in time, whatever it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploy import services
from deploy.services import Service
from tests.faults.conftest import Make
from tests.faults.installation import until
from tests.faults.network import Proxy

OBJECTS = 40
ENDS_SECONDS = 10.0 + 12.0
"""The installation's `shutdown_timeout`, and a few seconds more on a slow machine; S3 is waited for for sixty."""

HUNG_SECONDS = 3.0
"""By then a process has asked a server that hangs how it is."""


@pytest.fixture
def proxy(versitygw: Service, toxiproxy: Service, unique: str) -> Iterator[Proxy]:
    """A proxy to the S3 server."""
    made = Proxy.to(toxiproxy, unique, versitygw.port)
    yield made
    made.remove()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["work", "run"])
def test_storage_that_hangs_holds_up_no_end(make: Make, proxy: Proxy, name: str) -> None:
    """A process that waits for objects of an S3 that hangs ends soon after `shutdown_timeout` with 0 and gives its
    claims back; what it left is imported once."""
    installation = make(source={"endpoint": f"http://{services.HOST}:{proxy.port}"}, limits={"lease": "60s"})
    before = [installation.start("watch"), installation.start("dispatch")]
    installation.put(OBJECTS)
    until(lambda: installation.counts().get("ready", 0) == OBJECTS, what="noticed objects")
    if name == "run":
        assert [role.end() for role in before] == [0, 0]
    proxy.hang()
    ending = installation.start(name)
    until(lambda: installation.counts().get("running"), what=lambda: f"a running claim: {installation.explain()}")
    began = time.monotonic()
    assert ending.end() == 0
    assert time.monotonic() - began < ENDS_SECONDS
    assert not installation.counts().get("running"), installation.explain()
    proxy.answer()
    installation.start("run" if name == "run" else "work")
    installation.imported()
    installation.exactly_once()


@pytest.mark.timeout(300)
def test_a_queue_that_hangs_keeps_no_claim(
    make: Make, proxy: Proxy, toxiproxy: Service, redis_server: Service, redis_url: str, unique: str
) -> None:
    """A process whose Redis takes all that is asked and answers nothing still drains when it is told to end: what it
    had started goes back, and counts as no lost worker."""
    queue = Proxy.to(toxiproxy, f"{unique}-queue", redis_server.port)
    installation = make(
        source={"endpoint": f"http://{services.HOST}:{proxy.port}"},
        limits={"lease": "60s"},
        queue=redis_url.replace(f":{redis_server.port}", f":{queue.port}"),
    )
    for name in ("watch", "dispatch"):
        installation.start(name)
    installation.put(OBJECTS)
    until(lambda: installation.counts().get("ready", 0) == OBJECTS, what="noticed objects")
    proxy.hang()
    ending = installation.start("work")
    until(lambda: installation.counts().get("running"), what=lambda: f"a running claim: {installation.explain()}")
    queue.hang()
    time.sleep(HUNG_SECONDS)
    assert ending.end() == 0
    assert not installation.counts().get("running"), installation.explain()
    queue.answer()
    proxy.answer()
    installation.start("work")
    installation.imported()
    installation.exactly_once()
    queue.remove()
