"""What is wrong around a process is said once in the log, in /readyz and in `check`, and nothing false in /metrics."""

from __future__ import annotations

import io
import json
import logging
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient

from deploy import services
from deploy.services.model import Service
from pipeline import cli, logs, metrics
from pipeline.app import gauges, serve
from pipeline.config import load
from tests.faults.installation import Installation, until

ALL = frozenset({"watch", "dispatch", "work"})


class Serving:
    """A process's roles, in threads of the test's own process."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def said(self, event: str) -> list[logging.LogRecord]:
        """What it has logged of an event."""
        return [record for record in self._caplog.records if record.getMessage() == event]

    def get(self, path: str) -> tuple[int, str]:
        """What its HTTP server answers."""
        (listening,) = until(lambda: self.said(logs.LISTENING), what="a port")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{listening.port}{path}", timeout=5) as answer:  # type: ignore[attr-defined]
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def concerns(self) -> list[str]:
        """What /readyz says should be mended."""
        return list(json.loads(self.get("/readyz")[1]).get("concerns", ()))

    def codes(self) -> list[Any]:
        """The concerns that were logged, one for each line."""
        return sorted(vars(record)["code"] for record in self.said(logs.CONCERN))


@contextmanager
def serving(installation: Installation, roles: frozenset[str], caplog: pytest.LogCaptureFixture) -> Iterator[Serving]:
    """These roles at work, asking their servers five times a second how they do, and telling it for two seconds."""
    config = load(installation.config)
    config = config.model_copy(update={"server": config.server.model_copy(update={"listen": "127.0.0.1:0"})})
    logs.set_up(stream=io.StringIO())  # a command that ran before may have had a stream that is closed now
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(config, roles, stop))
    with caplog.at_level(logging.INFO, "pipeline"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gauges, "READ_SECONDS", 0.2)
        patch.setattr(metrics, "FRESH_SECONDS", 2.0)
        thread.start()
        try:
            yield Serving(caplog)
        finally:
            stop.set()
            thread.join(30)


def checked(installation: Installation, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What `labelfeed check` finds, by component."""
    capsys.readouterr()
    cli.run(["check", "--json", "--config", str(installation.config)])
    return {row["component"]: row for row in json.loads(capsys.readouterr().out)}


def test_port_is_taken(
    embedded: Installation, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A port that another program has ends the process with 2 and one line in the log; `check` says who is there."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        embedded.config.write_text(embedded.config.read_text() + f"server: {{listen: '{listen}'}}\n")
        with caplog.at_level(logging.INFO, "pipeline"):
            code = cli.run(["run", "--config", str(embedded.config), "--log-format", "json"])
        told = capsys.readouterr().err
        server = checked(embedded, capsys)["server"]
    free = checked(embedded, capsys)["server"]
    run = embedded.start("run")
    until(lambda: run.said("listening"))
    embedded.config.write_text(embedded.config.read_text().replace(listen, f"127.0.0.1:{run.port}"))

    assert code == 2
    assert len([record for record in caplog.records if record.getMessage() == logs.NOT_LISTENING]) == 1
    assert f"error: cannot listen on {listen}: address already in use" in told
    assert (server["ok"], "another program" in server["found"]) == (False, True)
    assert (free["ok"], free["found"]) == (True, f"{listen} is free")
    assert checked(embedded, capsys)["server"]["found"] == f"a Labelfeed process listens on 127.0.0.1:{run.port}"


def test_scrape_while_the_database_is_down(
    embedded: Installation,
    postgres: Service,
    unique: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """/metrics answers without the database: what the process counts is there, what only the database knows is absent
    and not zero, until it is back; /readyz, `check` and one line of each role say so."""
    del postgres  # it can be had; this test needs one of its own
    with services.using("postgres", unique) as server:
        embedded.database = server.url
        embedded.write()
        embedded.put(5)
        with serving(embedded, ALL, caplog) as process:
            until(lambda: 'labelfeed_objects{source="bucket",state="done"} 5.0' in process.get("/metrics")[1])
            services.kill(server)
            until(lambda: process.get("/readyz")[0] == 503, what="not ready")
            database = checked(embedded, capsys)["database"]
            until(lambda: "labelfeed_objects{" not in process.get("/metrics")[1], what="the gauges' end")
            status, text = process.get("/metrics")
            until(lambda: "labelfeed_ready_objects{" not in process.get("/metrics")[1], what="the scheduler's end")
            services.restart(server)
            until(lambda: "labelfeed_objects{" in process.get("/metrics")[1], what="the gauges' return")

    assert status == 200
    assert (database["ok"], "does not answer" in database["found"]) == (False, True), database
    assert 'labelfeed_errors_total{code="unavailable",stage="schedule"}' in text
    assert 'labelfeed_imported_objects_total{source="bucket",state="done"} 5.0' in text
    for name in ("objects", "oldest_waiting_seconds", "tasks", "log_lag_records"):
        assert f"\nlabelfeed_{name}{{" not in text
    assert 'clock_skew_seconds{server="database"}' not in text
    roles = [vars(record).get("role") for record in process.said(logs.WAITING)]
    assert len(roles) == len(set(roles)), roles


def test_redis_that_evicts_and_keeps_nothing(
    embedded: Installation,
    redis_server: Service,
    unique: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A Redis that may lose messages is told in the log once, in /readyz, which stays 200, and in `check`, until it is
    mended."""
    del redis_server  # it can be had; this test needs one of its own
    with services.using("redis", unique, settings={"maxmemory-policy": "allkeys-lru"}) as server:
        embedded.queue = server.url
        embedded.write()
        with serving(embedded, ALL, caplog) as process, redis.Redis.from_url(server.url) as client:
            told = until(process.concerns)
            status = process.get("/readyz")[0]
            found = checked(embedded, capsys)["work queue"]
            scraped = process.get("/metrics")[1]
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory-policy", "noeviction")
            until(lambda: not process.concerns(), what="the end of both")
            until(lambda: len(process.said(logs.CONCERN_MENDED)) == 2, what="a line for each")

    assert ["evicts" in text for text in told] == [True, False]
    assert status == 200
    assert found["ok"]
    assert all(text in found["found"] for text in told)
    assert 'labelfeed_concern{code="redis_evicts"} 1.0' in scraped
    assert process.codes() == ["redis_evicts", "redis_not_persistent"]


def test_topic_with_few_partitions(
    embedded: Installation,
    kafka: Service,
    unique: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A topic with fewer partitions than the configuration asks for is told once, everywhere, until it has them."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    with closing(admin):
        admin.create_topics({unique: {"num_partitions": 1, "replication_factor": 1}})
        embedded.events = f"{kafka.url}/{unique}?partitions=3"
        embedded.write()
        with serving(embedded, frozenset({"watch"}), caplog) as process:
            (told,) = until(process.concerns)
            found = checked(embedded, capsys)["event log"]
            admin.create_partitions({unique: 3})
            until(lambda: not process.concerns(), what="its end")

    assert f"the topic {unique} has 1 partitions, 3 are configured" in told
    assert told in found["found"]
    assert process.codes() == ["few_partitions"]


def test_newer_schema(embedded: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that is newer than the program is told by `check`, by one line of the role's log, and by /readyz."""
    embedded.put(1)
    cli.run(["run", "--once", "--config", str(embedded.config)])
    with closing(sqlite3.connect(Path(embedded.folder) / "labelfeed.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    capsys.readouterr()
    code = cli.run(["check", "--config", str(embedded.config)])
    told = capsys.readouterr().err
    run = embedded.start("run")
    until(lambda: run.said("waiting"))
    status, roles = run.ready()
    # By then it has tried a second time, and said nothing of it.
    until(lambda: run.metric("errors_total", stage="start", code="newer_schema") >= 2, what="another try")

    assert (code, status) == (2, 503)
    assert "schema 99" in told
    assert all("schema 99" in str(why) for why in roles.values())
    assert len(run.lines("waiting")) == 1
    assert run.end() == 0
