"""Several processes of each role at once."""

from __future__ import annotations

import time

from tests.faults.conftest import Make
from tests.faults.installation import HANDOVER_SECONDS, Role, until


def test_scale_out(make: Make, kafka_url: str, unique: str) -> None:
    """Two watchers, two dispatchers and four workers handle each event once; when the leader of the source, a
    dispatcher and two workers are killed, the others take over within 15 seconds, with Kafka's session as it is when
    nobody sets it."""
    distributed = make(events=f"{kafka_url}?partitions=4&group={unique}")
    watchers = [distributed.start("watch") for _ in range(2)]
    dispatchers = [distributed.start("dispatch") for _ in range(2)]
    workers = [distributed.start("work") for _ in range(4)]
    for role in distributed.roles:
        until(lambda role=role: role.said("started"))
    distributed.put(300)
    distributed.imported()
    leaders = [role for role in watchers if role.metric("leader")]

    assert len(leaders) == 1
    assert _sum(dispatchers, "received_events_total") == 300
    assert _sum(dispatchers, "recorded_events_total", effect="new") == 300
    assert _sum(workers, "imported_objects_total", state="done") == 300
    assert _sum(workers, "duplicates_avoided_total") == 0
    assert sum(role.metric("imported_objects_total") > 0 for role in workers) > 1

    received = dispatchers[1].metric("received_events_total")
    for role in (*leaders, dispatchers[0], *workers[:2]):
        role.kill()
    killed = time.monotonic()
    distributed.put(100)
    (standby,) = [role for role in watchers if role.alive]
    until(lambda: standby.metric("leader"), killed + HANDOVER_SECONDS - time.monotonic(), "the next leader")
    until(
        lambda: dispatchers[1].metric("received_events_total") >= received + 100,
        killed + HANDOVER_SECONDS - time.monotonic(),
        "all events at the other dispatcher",
    )
    distributed.imported()

    assert time.monotonic() - killed < 2 * HANDOVER_SECONDS
    assert [role.end() for role in distributed.roles if role.alive] == [0, 0, 0, 0]
    distributed.exactly_once()


def _sum(roles: list[Role], metric: str, **labels: str) -> float:
    return sum(role.metric(metric, **labels) for role in roles)
