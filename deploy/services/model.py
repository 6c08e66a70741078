"""The words of this tool: a component (how to get and run a server) and a service (one that runs)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
"""Every server listens here and nowhere else."""

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
REGION = "us-east-1"


class ServiceError(Exception):
    """A server can't be had on this machine; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one instance of a component lives.

    `program` is what `obtain` gave, `data` its own folder, `ports` its ports by name (`main` is the one that
    clients use), `settings` what its caller asked for beyond the defaults.
    """

    program: Path
    data: Path
    ports: Mapping[str, int]
    settings: Mapping[str, str]

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.ports["main"]


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that runs in the foreground, and what it needs in its environment beyond the present one."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Component:
    """One row of the table.

    `obtain` brings the program into the given folder, or does nothing where it is there; `launch` prepares a
    site's data folder and says what to run; `ready` is whether the server answers as itself, not just whether
    its port is open. `url` and `env` are templates over `port` and the other ports' names.
    """

    name: str
    version: str
    origin: str
    about: str
    obtain: Callable[[Path], Path]
    launch: Callable[[Site], Launch]
    ready: Callable[[Site], bool]
    url: str
    env: Mapping[str, str]
    ports: tuple[str, ...] = ("main",)
    stop: signal.Signals = signal.SIGTERM
    start_seconds: float = 60.0
    stop_seconds: float = 15.0
    on_request: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A server that runs. `born` is its process's start in clock ticks since boot: with `pid` it names one
    process for ever. `kept` ones outlive the sessions that use them, until `down`."""

    name: str
    instance: str
    version: str
    port: int
    ports: Mapping[str, int]
    url: str
    env: Mapping[str, str]
    settings: Mapping[str, str]
    pid: int
    born: int
    data: str
    log: str
    kept: bool
    host: str = HOST

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"
