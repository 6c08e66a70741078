"""The tool that starts the servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from deploy.services import apache, processes
from deploy.services.components import BY_NAME
from deploy.services.model import ServiceError, Site
from deploy.services.probe import exchange
from tests.servers import needed

INSTALL_SECONDS = 1500
ON_REQUEST = {"minio"}
"""What no test waits for."""
LISTEN = "0A"
ROOT = Path(__file__).parents[2]


def pong(service: services.Service) -> bool:
    """Whether a Redis answers."""
    return exchange(service.port, b"PING\r\n", 5) == b"+PONG\r\n"


def test_using_stops_when_its_last_user_leaves(redis_server: services.Service, unique: str) -> None:
    """A server lives as long as somebody uses it, and no longer."""
    with services.using("redis", unique) as first:
        with services.using("redis", unique) as second:
            assert (second.pid, second.port) == (first.pid, first.port)
        assert pong(first)
    assert not services.alive(first)
    assert processes.port_free(first.port)


@pytest.mark.timeout(INSTALL_SECONDS)
@pytest.mark.parametrize("name", sorted({component.name for component in services.TABLE} - ON_REQUEST))
def test_what_is_there_is_not_downloaded_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing a component for the second time calls nothing that downloads or builds."""
    with needed():
        services.install(name)

    def called(argv: Sequence[str], *_: Any, **__: Any) -> str:
        raise AssertionError(f"{argv} is called")

    for module in [each for key, each in sys.modules.items() if key.startswith("deploy.services")]:
        if hasattr(module, "run"):
            monkeypatch.setattr(module, "run", called)
    monkeypatch.setattr(subprocess, "Popen", called)
    services.install(name)


def test_kept_services_outlive_their_users(redis_server: services.Service, unique: str) -> None:
    """What `up` has started stays when a session that used it ends."""
    kept = services.ensure("redis", unique, keep=True)
    try:
        with services.using("redis", unique):
            pass
        assert pong(kept)
    finally:
        processes.stop(kept, signal.SIGTERM, 10)


def test_a_killed_server_is_started_anew(redis_server: services.Service, unique: str) -> None:
    """A record of a dead process is no server."""
    with services.using("redis", unique) as service:
        services.kill(service)
        assert services.ensure("redis", unique).pid != service.pid


def test_a_foreign_server_on_the_port_is_not_taken_for_ours(redis_server: services.Service, unique: str) -> None:
    """That a port answers doesn't prove that the process which was started lives."""
    with services.using("redis", unique) as service:
        services.kill(service)
        foreign = subprocess.Popen(
            ["redis-server", "--port", str(service.port), "--bind", "127.0.0.1", "--save", ""],
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        try:
            assert processes.wait_until(lambda: pong(service), 10)
            again = services.ensure("redis", unique)
            assert again.port != service.port
            assert pong(again)
        finally:
            foreign.kill()
            foreign.wait()


def test_restart_keeps_ports_and_data(redis_server: services.Service, unique: str) -> None:
    """After a restart a server is where it was, with what it had made durable."""
    with services.using("redis", unique, settings={"appendonly": "yes", "appendfsync": "always"}) as service:
        exchange(service.port, b"SET a b\r\n", 5)
        after = services.restart(service, hard=True)
        assert after.port == service.port
        assert after.pid != service.pid
        assert exchange(after.port, b"GET a\r\n", 7) == b"$1\r\nb\r\n"


def test_a_running_server_is_not_bent_to_other_settings(redis_server: services.Service, unique: str) -> None:
    """Who asks for other settings than a running server has is told so."""
    with (
        services.using("redis", unique, settings={"appendonly": "yes"}),
        pytest.raises(ServiceError, match="other settings"),
    ):
        services.ensure("redis", unique, settings={"appendonly": "no"})


def test_a_server_of_another_version_is_not_taken_for_ours(
    redis_server: services.Service, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table has moved on since a server was started, its users are told so, and what to do."""
    with services.using("redis", unique) as service:
        monkeypatch.setitem(BY_NAME, "redis", replace(BY_NAME["redis"], version="99"))
        with pytest.raises(ServiceError, match=f'in version {service.version}, and 99 .* ARGS="down redis"'):
            services.ensure("redis", unique)


def test_a_cluster_may_be_named_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's storage is formatted under any name: one in 64 begins as an option does."""
    with needed():
        program = services.install("kafka")
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xfb" * 16))
    apache.launch_kafka(Site(program, tmp_path, processes.free_ports(("main", "controller")), {}))
    assert "cluster.id=-" in (tmp_path / "log" / "meta.properties").read_text()


def test_unknown_names_are_refused() -> None:
    """A name that isn't in the table is answered with those that are."""
    with pytest.raises(ServiceError, match="toxiproxy"):
        services.ensure("oracle")


def test_the_command_tells_what_runs(redis_server: services.Service) -> None:
    """`status --json` names the running servers and `env` prints where they are, for a shell."""
    command = [sys.executable, "-m", "deploy.services"]
    status = json.loads(subprocess.check_output([*command, "status", "--json"], cwd=ROOT))
    exports = subprocess.check_output([*command, "env"], cwd=ROOT, text=True)

    assert [row["pid"] for row in status if row["name"] == "redis" and row["instance"] == "main"] == [redis_server.pid]
    assert f"export REDIS_URL={redis_server.url}\n" in exports


def test_all_servers_listen_on_loopback_only(
    kafka: services.Service, redis_server: services.Service, postgres: services.Service, elasticmq: services.Service
) -> None:
    """No server of the tool can be reached from another machine."""
    ours = {port for service in services.running() for port in service.ports.values()}
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = [line.split()[1].split(":") for line in lines if line.split()[3] == LISTEN]
    addresses = {address for address, port in listening if int(port, 16) in ours}

    assert addresses == {"0100007F", "0000000000000000FFFF00000100007F"}


def test_a_pid_that_was_given_to_another_process_is_not_alive() -> None:
    """A process is known by pid and birth together."""
    me = os.getpid()
    assert processes.born(me) is not None
    fields = dict.fromkeys(("name", "instance", "version", "url", "data", "log"), "")
    other = services.Service(**fields, port=1, ports={}, env={}, settings={}, pid=me, born=1, kept=False)
    assert not services.alive(other)
