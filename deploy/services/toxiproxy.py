"""toxiproxy: cuts and slows connections on request."""

from __future__ import annotations

from deploy.services import probe
from deploy.services.model import HOST, Launch, Site

HTTP_OK = 200


def launch(site: Site) -> Launch:
    """How to run it; its proxies are made by its HTTP interface."""
    return Launch((str(site.program), "-host", HOST, "-port", str(site.port)))


def ready(site: Site) -> bool:
    """Whether it says its version."""
    return probe.http(site.port, "/version")[0] == HTTP_OK
