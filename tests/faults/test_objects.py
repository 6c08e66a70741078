"""Objects that change, go, and kill, while their notifications come twice and in the wrong order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from urllib.parse import quote_plus

import psycopg
import pytest

from deploy.services import Service
from deploy.services.obtain import debian
from tests.faults.conftest import Make
from tests.faults.installation import Installation, until
from tests.servers import sqs_client

ROWS = 12_000
"""More than are kept in memory: they are staged in pieces."""
HEALTHY, DEADLY = (20_000, 50) if "LABELFEED_SOAK" in os.environ else (80, 2)
"""Files, and files among them that kill whoever reads them."""


@pytest.mark.parametrize("sequenced", [True, False])
def test_notifications_twice_and_reversed(make: Make, elasticmq: Service, unique: str, sequenced: bool) -> None:
    """Every notification comes twice, the newest first: each object is imported once, as it is at the end; and where
    they bear a sequencer, what is older than what was heard before is known for stale."""
    client = sqs_client(elasticmq)
    url = client.create_queue(QueueName=unique)["QueueUrl"]
    installation = make(
        source={"poll": "1h", "on_change": "replace", "on_delete": "archive", "notifications": url},
        env={"AWS_ENDPOINT_URL_SQS": elasticmq.url},
    )
    installation.start("watch", "dispatch", "work")
    until(lambda: installation.roles[0].lines("pass_finished"), what="the first pass")
    keys = installation.put(40)
    told = [("ObjectCreated:Put", key, f"text of {key}") for key in keys]
    for key in keys[:10]:
        installation.overwrite(key, "newer")
        told.append(("ObjectCreated:Put", key, "newer"))
    for key in keys[10:15]:
        installation.delete(key)
        told.append(("ObjectRemoved:Delete", key, ""))
    bodies = [
        _notification(unique, name, key, text, f"{number:016X}" if sequenced else None)
        for number, (name, key, text) in enumerate(told)
    ]
    for body in [*reversed(bodies), *bodies]:
        client.send_message(QueueUrl=url, MessageBody=body)
    left = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    until(
        lambda: (
            not sum(
                int(count)
                for count in client.get_queue_attributes(QueueUrl=url, AttributeNames=left)["Attributes"].values()
            )
        ),
        what="an empty queue",
    )
    until(lambda: installation.roles[1].metric("received_events_total") >= len(told) * 2, what="all events")
    # Of what is recorded together the newest alone counts: one more comes by itself.
    client.send_message(QueueUrl=url, MessageBody=bodies[0])
    until(lambda: installation.roles[1].metric("received_events_total") > len(told) * 2, what="the last event")
    installation.imported()
    installation.exactly_once()

    def stale() -> float:
        return installation.roles[1].metric("recorded_events_total", effect="stale")

    if sequenced:
        until(stale, what=lambda: f"a stale event: {installation.explain()}")
    else:
        assert stale() == 0, installation.explain()


def _notification(bucket: str, name: str, key: str, text: str, sequencer: str | None) -> str:
    etag = hashlib.md5(json.dumps({"text": text}).encode()).hexdigest()
    told = {"key": quote_plus(key)} | ({"eTag": etag} if text else {})
    told |= {} if sequencer is None else {"sequencer": sequencer}
    return json.dumps({"Records": [{"eventName": name, "s3": {"bucket": {"name": bucket}, "object": told}}]})


def test_overwritten_while_read(make: Make) -> None:
    """A large object that is overwritten while a worker reads it is imported as it is at the end, once."""
    installation = make(source={"on_change": "replace"})
    old, new = (_rows(text) for text in ("old", "new"))
    installation.place.put("big.jsonl", old)
    installation.start("watch", "dispatch")
    reader = installation.start("work", fault="worker.staged:1:STOP")
    reader.stopped()
    installation.place.put("big.jsonl", new)
    reader.resume()
    installation.imported(1)
    installation.rows = [("big.jsonl", f"new {number} {'x' * 200}") for number in range(ROWS)]
    # The reader may have come to the old version's end before it was stopped: then that is there for a while.
    until(lambda: sorted(installation.tasks()) == sorted(installation.rows), what="the new version")
    installation.exactly_once()


def _rows(text: str) -> bytes:
    return b"".join(json.dumps({"text": f"{text} {number} {'x' * 200}"}).encode() + b"\n" for number in range(ROWS))


def test_deleted_before_it_is_read(distributed: Installation) -> None:
    """Objects that are deleted after their worker was told of them are gone, and become no task."""
    keys = distributed.put(40)
    distributed.start("watch", "dispatch")
    reader = distributed.start("work", fault="worker.started:1:STOP")
    reader.stopped()
    for key in keys[:5]:
        distributed.delete(key)
    reader.resume()
    distributed.imported(gone=5)
    distributed.exactly_once()


@pytest.mark.timeout(3600)
def test_files_that_kill_their_worker(make: Make) -> None:
    """Files that kill whoever reads them end as `failed: worker_lost`; their neighbours are all imported."""
    installation = make(limits={"batch_objects": 20, "lease": "4s"})
    installation.put(HEALTHY)
    for number in range(DEADLY):
        installation.place.put(f"o/{number * HEALTHY // DEADLY:05}-deadly.json", b'{"text": "never"}')
    installation.start("watch", "dispatch")
    workers = [installation.start("work", fault="worker.parsing@deadly")]

    def ended() -> bool:
        if not workers[-1].alive:
            assert workers[-1].process.returncode == -signal.SIGKILL
            workers.append(installation.start("work", fault="worker.parsing@deadly"))
        counts = installation.counts()
        return (counts.get("done"), counts.get("failed")) == (HEALTHY, DEADLY)

    until(ended, 60.0 + 30.0 * DEADLY, what=installation.explain)
    installation.exactly_once()


def test_clock_ahead(distributed: Installation) -> None:
    """A worker and a dispatcher whose clocks are 90 seconds ahead take nothing from the others, and double nothing."""
    faketime = str(debian(("faketime",), "faketime"))
    library = subprocess.run(
        [faketime, "-f", "+90s", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    ahead = {"LD_PRELOAD": library, "FAKETIME": "+90s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    distributed.start("run")
    late = [distributed.start(role, env=ahead) for role in ("dispatch", "work")]
    for _ in range(4):
        distributed.put(50)
        distributed.imported()
    for role in distributed.roles:
        until(lambda role=role: role.ready()[0] == 200, what=f"{role.name}")

    assert sum(role.metric("duplicates_avoided_total") for role in distributed.roles) == 0
    assert sum(role.metric("leases_ended_total") for role in distributed.roles) == 0
    assert all(role.alive for role in late)
    distributed.exactly_once()


def test_database_restored_from_a_backup(distributed: Installation, postgres: Service) -> None:
    """With the database as it was before, and Kafka ahead of it, what came since is read from there and imported
    again, once: nobody lists the bucket."""
    distributed.put(50)
    distributed.start("run")
    distributed.imported()
    assert distributed.roles[-1].end() == 0
    name = distributed.database.rpartition("/")[2]
    _sql(postgres, f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    try:
        distributed.start("run")
        distributed.put(50)
        distributed.imported()
        assert distributed.roles[-1].end() == 0
        _sql(postgres, f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {name}_backup")
    finally:
        _sql(postgres, f"DROP DATABASE {name}_backup WITH (FORCE)")
    assert len(distributed.tasks()) == 50
    distributed.start("dispatch", "work")
    distributed.imported()
    assert distributed.roles[-2].metric("recorded_events_total", effect="new") == 50
    distributed.exactly_once()


def _sql(postgres: Service, *statements: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
