"""Label Studio on SQLite, with one user, whose legacy token is known and may be used."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from deploy.services import obtain, probe
from deploy.services.model import HOST, Launch, Site

USER = "admin@example.com"
PASSWORD = "test-password"
TOKEN = "5f1c0a2b7d9e4c6688aa77bb55cc33dd11ee22ff"
"""The user's legacy token. A personal access token is asked for by `POST /api/token/`."""
HTTP_OK = 200

_ENV = {
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "DJANGO_DB": "sqlite",
    "DEBUG": "false",
    "SECRET_KEY": "for-tests-only-" + "0" * 40,
    "SSRF_PROTECTION_ENABLED": "false",
    "PYTHONWARNINGS": "ignore",
}


def obtain_label_studio(home: Path) -> Path:
    """An environment of its own by uv, and a database with its tables and its user: making those takes a minute,
    copying them none."""
    program = home / "venv" / "bin" / "label-studio"
    if not (home / "installed").exists():
        uv = _uv()
        shutil.rmtree(home / "venv", ignore_errors=True)
        obtain.run([uv, "--system-certs", "venv", "-q", "--python", sys.executable, str(home / "venv")])
        into = [uv, "--system-certs", "pip", "install", "-q", "--no-deps", "--require-hashes"]
        into += ["--python", str(home / "venv" / "bin" / "python")]
        obtain.run([*into, "--only-binary", ":all:", "-r", str(obtain.LOCKS / "label_studio.txt")])
        # Four have no wheel; what builds them is locked above.
        obtain.run([*into, "--no-build-isolation", "-r", str(obtain.LOCKS / "label_studio_built.txt")])
        (home / "installed").touch()
    if not (home / "template").exists():
        making = home / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        account = ["--username", USER, "--password", PASSWORD, "--user-token", TOKEN]
        obtain.run([str(program), "init", "first", *account], {**_ENV, "LABEL_STUDIO_BASE_DATA_DIR": str(making)})
        making.rename(home / "template")
    return program


def launch_label_studio(site: Site) -> Launch:
    """How to run its server on a copy of that database."""
    if not (site.data / "label_studio.sqlite3").exists():
        shutil.copytree(site.program.parents[2] / "template", site.data, dirs_exist_ok=True)
    env = {**_ENV, "LABEL_STUDIO_BASE_DATA_DIR": str(site.data)}
    if "files" in site.settings:
        env |= {"LOCAL_FILES_SERVING_ENABLED": "true", "LOCAL_FILES_DOCUMENT_ROOT": site.settings["files"]}
    listen = ("--internal-host", HOST, "--port", str(site.port))
    return Launch((str(site.program), "start", "--no-browser", *listen), env)


def label_studio_ready(site: Site) -> bool:
    """Whether it says that it is well."""
    status, body = probe.http(site.port, "/health")
    return status == HTTP_OK and "UP" in body


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if os.access(beside, os.X_OK) else "uv"
