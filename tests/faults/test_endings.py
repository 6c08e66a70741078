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
