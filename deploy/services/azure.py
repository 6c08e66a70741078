"""Azure Storage by Azurite: blobs and queues, with account keys, or with tokens where it is given a certificate."""

from __future__ import annotations

import shutil
import ssl
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from deploy.services import obtain, probe
from deploy.services.model import HOST, Launch, ServiceError, Site

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own account and its key, which every installation of it has."""
CONNECTION = (
    f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
    f"BlobEndpoint=http://{HOST}:{{port}}/{ACCOUNT};QueueEndpoint=http://{HOST}:{{queue}}/{ACCOUNT};"
)
"""What SDKs find the emulator by, over its ports."""
_FORBIDDEN = 403


def obtain_azurite(home: Path) -> Path:
    """Azurite's main script, from npm."""
    return obtain.npm(home, "azurite", "node_modules/azurite/dist/src/azurite.js")


def launch_azurite(site: Site) -> Launch:
    """How to run blobs and queues; by HTTPS with tokens, too, where `cert` and `key` are set to files."""
    node = shutil.which("node")
    if node is None:
        raise ServiceError("azurite needs Node.js 20, and node is not installed")
    options = {
        "--location": str(site.data),
        "--blobHost": HOST,
        "--blobPort": str(site.port),
        "--queueHost": HOST,
        "--queuePort": str(site.ports["queue"]),
        "--tableHost": HOST,
        "--tablePort": str(site.ports["table"]),
    }
    if "cert" in site.settings:
        options |= {"--oauth": "basic", "--cert": site.settings["cert"], "--key": site.settings["key"]}
    flags = ("--silent", "--skipApiVersionCheck", "--disableTelemetry")
    arguments = (word for option in options.items() for word in option)
    return Launch((node, str(site.program), *flags, *arguments))


def azurite_ready(site: Site) -> bool:
    """Whether blobs and queues answer: with a refusal, as the question isn't signed."""
    secure = "cert" in site.settings
    return all(_status(site.ports[name], secure=secure) == _FORBIDDEN for name in ("main", "queue"))


def _status(port: int, *, secure: bool) -> int:
    path = f"/{ACCOUNT}?comp=list"
    if not secure:
        return probe.http(port, path)[0]
    context = ssl._create_unverified_context()  # noqa: SLF001 - the certificate is the caller's own
    connection = HTTPSConnection(HOST, port, timeout=probe.PROBE_SECONDS, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()
