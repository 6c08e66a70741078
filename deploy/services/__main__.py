"""`python -m deploy.services up|down|status|env`: the servers that development and tests need."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from deploy import services
from deploy.services.model import Service, ServiceError

USAGE = """\
up [NAME…]    install and start these (all but those on request), and leave them running until `down`
down [NAME…]  stop these (all that this tool started)
status        what runs, as a table or --json
env           shell lines that export where the running ones are
"""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; gives the exit code: 0, or 1 if a server can't be had."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.services", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("up", "down", "status", "env"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(row.name for row in services.TABLE))
    parser.add_argument("--json", action="store_true", help="status as JSON")
    arguments = parser.parse_args(argv)
    if arguments.verb == "up":
        return _up(arguments.names)
    if arguments.verb == "down":
        for service in services.down(arguments.names):
            print(f"stopped {service.name} {service.instance} (pid {service.pid})")
    elif arguments.verb == "status":
        _status(as_json=arguments.json)
    else:
        for name, value in _environment().items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _up(names: list[str]) -> int:
    wanted = names or [row.name for row in services.TABLE if not row.on_request]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return max(pool.map(_up_one, wanted))


def _up_one(name: str) -> int:
    started = time.monotonic()
    try:
        service = services.ensure(name, keep=True)
    except ServiceError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"{_line(service)}  ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


def _line(service: Service) -> str:
    return f"{service.name:<12} {service.version:<10.10} {service.instance:<8} pid {service.pid:<8} {service.url}"


def _status(*, as_json: bool) -> None:
    running = services.running()
    if as_json:
        print(json.dumps([asdict(service) for service in running], indent=1))
        return
    for service in running:
        print(_line(service))
    for row in services.TABLE:
        if all(service.name != row.name for service in running):
            print(f"{row.name:<12} {row.version:<10.10} not running: {row.about}")


def _environment() -> dict[str, str]:
    found: dict[str, str] = {}
    for service in services.running():
        if service.instance == "main":
            found |= service.env
    return found


if __name__ == "__main__":
    sys.exit(main())
