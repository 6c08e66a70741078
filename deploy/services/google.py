"""Servers that speak Google's protocols: Cloud Storage by fake-gcs-server, Pub/Sub by Google's own fake."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.services import obtain, probe
from deploy.services.model import HOST, Launch, ServiceError, Site

HTTP_OK = 200
PUBSUB_SOURCE = Path(__file__).parent / "pubsub"
EVENTS = "finalize,delete,metadataUpdate,archive"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins, with empty settings ..."""
_FRAME_BYTES = 9
_SETTINGS = 4
"""... and what kind of frame a server of HTTP/2 begins with."""


def launch_fake_gcs(site: Site) -> Launch:
    """How to run it in memory; where `pubsub`, `project` and `topic` are set, it tells that topic of all changes."""
    place = f"http://{HOST}:{site.port}"
    options = {
        "scheme": "http",
        "host": HOST,
        "port": site.port,
        "backend": "memory",
        "public-host": f"{HOST}:{site.port}",
        "external-url": place,
        "log-level": "warn",
    }
    if "pubsub" not in site.settings:
        return Launch(_argv(site, options))
    options |= {
        "event.pubsub-project-id": site.settings["project"],
        "event.pubsub-topic": site.settings["topic"],
        "event.list": EVENTS,
    }
    return Launch(_argv(site, options), {"PUBSUB_EMULATOR_HOST": site.settings["pubsub"]})


def _argv(site: Site, options: dict[str, str | int]) -> tuple[str, ...]:
    return (str(site.program), *(f"-{name}={value}" for name, value in options.items()))


def fake_gcs_ready(site: Site) -> bool:
    """Whether it lists its buckets."""
    status, body = probe.http(site.port, "/storage/v1/b?project=test")
    return status == HTTP_OK and "storage#buckets" in body


def obtain_pubsub(home: Path) -> Path:
    """The program of `pubsub/`, built here: its modules are held against the sums in `pubsub/go.sum`."""
    program = home / "pubsub"
    if not program.exists():
        if shutil.which("go") is None:
            raise ServiceError("the Pub/Sub server is built with Go, and go is not installed")
        home.mkdir(parents=True, exist_ok=True)
        staging = home / "building"
        obtain.run(["go", "build", "-C", str(PUBSUB_SOURCE), "-mod=readonly", "-trimpath", "-o", str(staging), "."])
        staging.rename(program)
    return program


def launch_pubsub(site: Site) -> Launch:
    """How to run it; it keeps everything in memory."""
    return Launch((str(site.program), "-port", str(site.port)))


def pubsub_ready(site: Site) -> bool:
    """Whether it answers as a server of HTTP/2, which gRPC goes over."""
    answer = probe.exchange(site.port, _PREFACE, at_least=_FRAME_BYTES)
    return len(answer) >= _FRAME_BYTES and answer[3] == _SETTINGS
