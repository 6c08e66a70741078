"""Processes and ports of this machine: start in the background, tell alive from dead, stop, find a free port."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deploy.services.model import HOST, Launch, Service

PORTS = range(20_000, 32_000)
"""Below the range from which the system gives ports to clients, so that none of them takes ours meanwhile."""
POLL_SECONDS = 0.05
_START_FIELD = 19
"""Place of the start time in /proc/PID/stat, counted after the command's closing parenthesis."""


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A free port of loopback for each name."""
    ports: dict[str, int] = {}
    while len(ports) < len(names):
        port = random.choice(PORTS)
        if port not in ports.values() and port_free(port):
            ports[names[len(ports)]] = port
    return ports


def port_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def spawn(launch: Launch, log: Path) -> int:
    """Start a command in a session of its own, its output appended to `log`; gives its pid."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    environment = {**os.environ, **launch.env}
    return os.posix_spawnp(launch.argv[0], launch.argv, environment, file_actions=actions, setsid=True)


def born(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; None if there is none, or a dead one unreaped."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_START_FIELD])


def alive(service: Service) -> bool:
    """Whether the very process that was started still lives; another one of its number doesn't count."""
    return born(service.pid) == service.born


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def stop(service: Service, how: signal.Signals, seconds: float) -> None:
    """Ask a service's process to end, and kill it and its children if it hasn't within `seconds`."""
    if not alive(service):
        return
    with suppress(ProcessLookupError):
        os.kill(service.pid, how)
        os.kill(service.pid, signal.SIGCONT)
    if not wait_until(lambda: not alive(service), seconds):
        kill(service)
    wait_until(lambda: all(port_free(port) for port in service.ports.values()), seconds)


def kill(service: Service) -> None:
    """End a service's process and its children at once, as a power cut would."""
    if alive(service):
        with suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGKILL)
        wait_until(lambda: not alive(service), 10.0)


def formatted(templates: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Templates over `port` and the ports' names, filled in."""
    return {name: template.format(port=ports["main"], **ports) for name, template in templates.items()}
