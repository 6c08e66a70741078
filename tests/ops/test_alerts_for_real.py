"""Alerts that fire because what they watch is really broken, against a Prometheus and an Alertmanager that run.

The rules are those of deploy/prometheus, with windows of 15 seconds and conditions that hold for one.
"""

from __future__ import annotations

from pathlib import Path

import redis

from deploy.services.model import Service
from pipeline import cli
from tests.faults.installation import Installation, until
from tests.ops.watching import watched

SECONDS = 60.0


def test_three_alerts(distributed: Installation, redis_server: Service, tmp_path: Path, unique: str) -> None:
    """Files that are all broken, a Redis that is told to evict, and the death of the only worker each raise their
    alert, which comes to the webhook with the commands that help; what is mended ends its alert."""
    watch, dispatch, work = (distributed.start(name) for name in ("watch", "dispatch", "work"))
    roles = [watch, dispatch, work]
    for role in roles:
        until(lambda role=role: role.said("started"))
    distributed.put(20)
    distributed.imported()
    with watched(unique, tmp_path, roles) as (prometheus, heard), redis.Redis.from_url(redis_server.url) as client:
        until(lambda: prometheus.targets_up() == len(roles), what="three targets")
        quiet = set(prometheus.firing()) & {
            "LabelfeedSourceFailing",
            "LabelfeedRedisEvicts",
            "LabelfeedNothingImported",
        }

        for number in range(40):
            distributed.place.put(f"broken-{number}.json", b"{")
        failing = until(lambda: heard.alerts.get(("LabelfeedSourceFailing", "firing")), SECONDS, "failing files' alert")

        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            evicts = until(lambda: heard.alerts.get(("LabelfeedRedisEvicts", "firing")), SECONDS, "eviction's alert")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        until(lambda: heard.alerts.get(("LabelfeedRedisEvicts", "resolved")), SECONDS, "its end")

        assert cli.run(["resume", "bucket", "--config", str(distributed.config)]) == 0
        work.kill()
        distributed.put(50)
        nothing = until(lambda: heard.alerts.get(("LabelfeedNothingImported", "firing")), SECONDS, "the worker's alert")

    assert not quiet
    assert failing["diagnose"] == "labelfeed objects --source bucket --state failed"
    assert (evicts["severity"], evicts["diagnose"]) == ("critical", "labelfeed check")
    assert (nothing["source"], nothing["mend"]) == ("bucket", "labelfeed work")
