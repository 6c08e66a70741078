"""Alerts that fire because what they watch is really broken, against a Prometheus and an Alertmanager that run.

The rules are those of deploy/prometheus, with windows of 15 seconds and conditions that hold for one.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import redis

from deploy.services.model import Service
from tests.faults.installation import COMMAND, Installation, until
from tests.ops.watching import watched

SECONDS = 90.0
FAILING, EVICTS, NOTHING = "LabelfeedSourceFailing", "LabelfeedRedisEvicts", "LabelfeedNothingImported"


def typed(line: str, installation: Installation, server: Service) -> str:
    """Type an alert's command as a person would, with the installation's configuration; gives what it printed."""
    shown = ""
    for part in line.split(";"):
        program, *words = shlex.split(part)
        ours = [*COMMAND, *words, "--config", str(installation.config)]
        command = ours if program == "labelfeed" else [program, "-p", str(server.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, f"{part}: {done.stdout}{done.stderr}"
        shown += done.stdout
    return shown


@pytest.mark.timeout(600)
def test_three_alerts(distributed: Installation, redis_server: Service, tmp_path: Path, unique: str) -> None:
    """Files that are all broken, a Redis that is told to evict, and the death of the only worker each raise their
    alert, which comes to the webhook; its first command shows what is wrong, and its second one ends the alert."""
    roles = [distributed.start(name) for name in ("watch", "dispatch", "work")]
    for role in roles:
        until(lambda role=role: role.said("started"))
    distributed.put(20)
    distributed.imported()
    with watched(unique, tmp_path, roles) as (prometheus, heard), redis.Redis.from_url(redis_server.url) as client:

        def fires(alert: str) -> dict[str, str]:
            return dict(until(lambda: heard.alerts.get((alert, "firing")), SECONDS, alert))

        def ends(alert: str) -> None:
            until(lambda: heard.alerts.get((alert, "resolved")), SECONDS, f"the end of {alert}")

        until(lambda: prometheus.targets_up() == len(roles), what="three targets")
        quiet = set(prometheus.firing()) & {FAILING, EVICTS, NOTHING}

        for number in range(40):
            distributed.place.put(f"broken-{number}.json", b"{")
        failing = fires(FAILING)
        listed = typed(failing["diagnose"], distributed, redis_server)
        for number in range(40):
            distributed.put(**{f"broken-{number}": f"mended {number}"})
        typed(failing["mend"], distributed, redis_server)
        ends(FAILING)

        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            evicts = fires(EVICTS)
            told = typed(evicts["diagnose"], distributed, redis_server)
            typed(evicts["mend"], distributed, redis_server)
            ends(EVICTS)
        finally:
            client.config_set("maxmemory-policy", "noeviction")

        roles[-1].kill()
        distributed.put(50)
        nothing = fires(NOTHING)
        shown = typed(nothing["diagnose"], distributed, redis_server)
        distributed.start(*nothing["mend"].removeprefix("labelfeed ").split())
        ends(NOTHING)
        distributed.imported()

    assert not quiet
    assert "broken-" in listed
    assert (evicts["severity"], "evict" in told) == ("critical", True)
    assert (nothing["source"], nothing["mend"], "bucket" in shown) == ("bucket", "labelfeed work", True)
    distributed.exactly_once()
