"""The servers that development and tests need, without containers: got, started, reused and stopped.

`ensure` gives a running service, starting it (and installing it) where needed; `using` does so for as long
as a block runs; `down` stops. Everything is in one folder, `.services/` beside this repository's `deploy/`, or
where LABELFEED_SERVICES says: `programs/` stays, `data/` is new at each start (not at a `restart`).
Works on Linux; safe to call from several processes at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from deploy.services import processes
from deploy.services.components import BY_NAME, TABLE, program_home
from deploy.services.model import HOST, Component, Service, ServiceError, Site
from deploy.services.processes import alive

__all__ = [
    "HOST",
    "TABLE",
    "Service",
    "ServiceError",
    "alive",
    "down",
    "ensure",
    "kill",
    "obtained",
    "restart",
    "running",
    "using",
]

START_ATTEMPTS = 3
"""A start is tried again with other ports: somebody may have taken one of ours meanwhile."""
LOG_TAIL = 800
"""Characters of a server's log that the error of its failed start shows."""


def ensure(
    name: str, instance: str = "main", *, keep: bool = False, settings: Mapping[str, str] | None = None
) -> Service:
    """A service that runs: the one that does already, else a new one with an empty data folder.

    Each `instance` of a component is a server of its own. `settings` are the component's (see its `launch`).
    With `keep` it stays until `down`, otherwise until the last `using` of it ends.

    Raises:
        ServiceError: it can't be had here, or it runs with other settings or in another version.
    """
    component = _component(name)
    with _locked(f"{name}-{instance}"):
        service = _recorded(name, instance)
        if service is None or not alive(service):
            service = _start_new(component, instance, dict(settings or {}))
        elif service.version != component.version:
            raise ServiceError(
                f"{name} {instance} runs in version {service.version}, and {component.version} is wanted; stop it"
                f' first: make services ARGS="down {name}"'
            )
        elif settings is not None and dict(settings) != service.settings:
            raise ServiceError(f"{name} {instance} runs with other settings; stop it first, or name another instance")
        elif not _answers(component, service):
            raise ServiceError(
                f"{name} {instance} runs (pid {service.pid}) and doesn't answer; its log is {service.log}"
            )
        if keep and not service.kept:
            service = replace(service, kept=True)
            _record(service)
        return service


@contextmanager
def using(name: str, instance: str = "main", *, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A running service for as long as the block runs. The last user stops it, unless it is to be kept."""
    users = _folder("run") / f"{name}-{instance}.users"
    with users.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        try:
            yield ensure(name, instance, settings=settings)
        finally:
            fcntl.flock(held, fcntl.LOCK_UN)
            _stop_if_unused(name, instance, users)


def restart(service: Service, *, hard: bool = False) -> Service:
    """Stop a service (or with `hard` kill it) and start it on the same ports and data."""
    component = _component(service.name)
    with _locked(f"{service.name}-{service.instance}"):
        if hard:
            processes.kill(service)
        else:
            processes.stop(service, component.stop, component.stop_seconds)
        return _start(component, service)


def kill(service: Service) -> None:
    """End a service's process at once; `restart` starts it again on its data."""
    processes.kill(service)


def down(names: list[str] | None = None) -> list[Service]:
    """Stop every instance of these components (of all, without names) that this tool started; gives them."""
    stopped = []
    for service in running():
        if not names or service.name in names:
            with _locked(f"{service.name}-{service.instance}"):
                _stop(service)
            stopped.append(service)
    return stopped


def running() -> list[Service]:
    """Every service that this tool started and that still lives."""
    records = sorted(_folder("run").glob("*.json"))
    services = (Service(**json.loads(record.read_text())) for record in records)
    return [service for service in services if alive(service)]


def obtained(name: str) -> bool:
    """Whether a component's program was got here before, so that it starts without waiting for that."""
    return any(program_home(_folder("programs"), _component(name)).glob("*"))


def install(name: str) -> Path:
    """Get a component's program, where it is not there yet, and tell where it is; raises ServiceError."""
    component = _component(name)
    home = program_home(_folder("programs"), component)
    with _locked(home.name):
        return component.obtain(home)


def _component(name: str) -> Component:
    try:
        return BY_NAME[name]
    except KeyError:
        raise ServiceError(f"there is no component {name!r}; there are {', '.join(BY_NAME)}") from None


def _start_new(component: Component, instance: str, settings: dict[str, str]) -> Service:
    last = ServiceError("")
    for _ in range(START_ATTEMPTS):
        ports = processes.free_ports(component.ports)
        identity = f"{component.name}-{instance}"
        data = _folder("data") / identity
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        log = _folder("logs") / f"{identity}.log"
        log.write_bytes(b"")
        fresh = Service(
            name=component.name,
            instance=instance,
            version=component.version,
            port=ports["main"],
            ports=ports,
            url=processes.formatted({"url": component.url}, ports)["url"],
            env=processes.formatted(component.env, ports),
            settings=settings,
            pid=0,
            born=0,
            data=str(data),
            log=str(log),
            kept=False,
        )
        try:
            return _start(component, fresh)
        except ServiceError as error:
            last = error
            if all(processes.port_free(port) for port in ports.values()):
                break
    raise last


def _start(component: Component, service: Service) -> Service:
    site = _site(component, service)
    pid = processes.spawn(component.launch(site), Path(service.log))
    started = replace(service, pid=pid, born=processes.born(pid) or 0)
    _record(started)
    processes.wait_until(lambda: not alive(started) or component.ready(site), component.start_seconds)
    if alive(started) and component.ready(site):
        return started
    processes.kill(started)
    tail = Path(service.log).read_text(errors="replace")[-LOG_TAIL:].strip()
    raise ServiceError(f"{component.name} did not start; its log {service.log} ends: {tail}")


def _answers(component: Component, service: Service) -> bool:
    site = _site(component, service)
    return processes.wait_until(lambda: component.ready(site), component.start_seconds)


def _site(component: Component, service: Service) -> Site:
    home = program_home(_folder("programs"), component)
    with _locked(home.name):
        program = component.obtain(home)
    return Site(program=program, data=Path(service.data), ports=service.ports, settings=service.settings)


def _stop_if_unused(name: str, instance: str, users: Path) -> None:
    with _locked(f"{name}-{instance}"), users.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        service = _recorded(name, instance)
        if service is not None and not service.kept:
            _stop(service)


def _stop(service: Service) -> None:
    component = _component(service.name)
    processes.stop(service, component.stop, component.stop_seconds)
    _record_of(service.name, service.instance).unlink(missing_ok=True)


def _folder(name: str) -> Path:
    root = os.environ.get("LABELFEED_SERVICES") or Path(__file__).parents[2] / ".services"
    folder = Path(root).absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _record_of(name: str, instance: str) -> Path:
    return _folder("run") / f"{name}-{instance}.json"


def _recorded(name: str, instance: str) -> Service | None:
    try:
        return Service(**json.loads(_record_of(name, instance).read_text()))
    except FileNotFoundError:
        return None


def _record(service: Service) -> None:
    record = _record_of(service.name, service.instance)
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(service), indent=1))
    fresh.replace(record)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with (_folder("run") / f"{name}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
