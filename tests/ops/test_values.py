"""What the metrics of a run say is what happened in it, to the byte and to the row."""

from __future__ import annotations

import base64
import json
import re
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline import cli
from pipeline.app import App, gauges
from pipeline.app import installation as installation_module
from pipeline.app.gauges import Gauges
from pipeline.app.parts import disks
from pipeline.config import load
from pipeline.consumers import redis_queue
from tests.faults.installation import Installation, until

GOOD, MOST = 10, 12
TABLE = b"text,n\none,1\ntwo,2\nthree,3,too many\n"
BROKEN = b'{"text": '
AHEAD_SECONDS = 100.0


def change(installation: Installation, **throttle: Any) -> None:
    """Give the installation's project a throttle."""
    document = yaml.safe_load(installation.config.read_text())
    document["projects"]["p"]["throttle"] = throttle
    installation.config.write_text(yaml.safe_dump(document))


def test_values_of_a_run(embedded: Installation) -> None:
    """Events, objects, bytes, tasks, rejected rows and times are counted once each; while a project is full the time
    that its source waits is counted, by its cause, and not as waiting for anything else."""
    change(embedded, max_tasks=MOST)
    embedded.put(GOOD)
    embedded.place.put("table.csv", TABLE)
    embedded.place.put("broken.json", BROKEN)
    begun = time.monotonic()
    run = embedded.start("run")
    embedded.imported(GOOD + 1, failed=1)
    embedded.put(5)
    until(lambda: run.metric("throttle_wait_seconds_total", source="bucket", cause="full") > 1, what="a wait")
    lasted = time.monotonic() - begun
    waited = run.metric("throttle_wait_seconds_total", cause="full")
    size = sum(path.stat().st_size for path in (embedded.folder / "inbox").glob("o/0000?.json"))
    known = GOOD + 2

    assert waited <= lasted
    assert run.metric("throttle_wait_seconds_total") == pytest.approx(waited, abs=2)
    assert run.metric("project_waits", project="p", why="full") == 1
    assert run.metric("project_waits") == run.metric("source_waits") == 1
    assert until(lambda: run.metric("tasks", project="p"), what="gauges") == run.metric("tasks_limit") == MOST
    assert run.metric("sent_events_total") == run.metric("received_events_total") >= known + 5
    assert run.metric("recorded_events_total", effect="new") == known + 5
    assert run.metric("discarded_events_total") == run.metric("received_events_total") - (known + 5)
    assert run.metric("claimed_objects_total", source="bucket") == known
    assert run.metric("imported_objects_total", state="done") == GOOD + 1
    assert run.metric("errors_total", stage="import", code="syntax") == 1
    assert run.metric("written_tasks_total") == MOST
    assert run.metric("rejected_rows_total") == 1 + 1
    assert run.metric("read_bytes_total") == size + len(TABLE) + len(BROKEN)
    assert run.metric("store_requests_total", operation="get") == known
    assert 1 <= run.metric("end_to_end_seconds_count", source="bucket") <= GOOD + 1
    assert run.metric("end_to_end_seconds_sum") <= lasted * (GOOD + 1)
    for name in ("commit_duration_seconds", "claim_duration_seconds", "record_duration_seconds"):
        assert run.metric(f"{name}_count") >= 1
        assert 0 < run.metric(f"{name}_sum") < lasted * 3
    assert 0 < run.metric("busy_seconds_total") < 2 * lasted
    assert abs(run.metric("clock_skew_seconds", server="database")) < 1


def checked(installation: Installation, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """What `labelfeed check` exits with and finds, by component."""
    capsys.readouterr()
    code = cli.run(["check", "--json", "--config", str(installation.config)])
    return code, {row["component"]: row for row in json.loads(capsys.readouterr().out)}


def test_check_tells_clocks(
    distributed: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` says how far the clocks of the database and of Redis are from this machine's."""
    well = checked(distributed, capsys)[1]["clocks"]
    behind = SimpleNamespace(time=lambda: time.time() - AHEAD_SECONDS, monotonic=time.monotonic)
    for module in (installation_module, redis_queue):
        monkeypatch.setattr(module, "time", behind)
    off = checked(distributed, capsys)[1]["clocks"]

    clocks = re.compile(r"database ([+-][\d.]+) s, Redis ([+-][\d.]+) s beside this machine's")
    for found, skew in ((well, 0), (off, AHEAD_SECONDS)):
        assert found["ok"]
        told = clocks.fullmatch(found["found"])
        assert told
        assert [abs(float(number) - skew) < 1 for number in told.groups()] == [True, True], found


def test_check_tells_what_is_free(
    embedded: Installation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` says how much is free where the database's file and large files are, and fails where a disk is gone."""
    spool, well = tempfile.gettempdir(), checked(embedded, capsys)[1]["disks"]
    monkeypatch.setattr(tempfile, "tempdir", str(embedded.folder / "away"))
    code, rows = checked(embedded, capsys)

    assert well["ok"]
    told = re.findall(r"(\w+) \d+% of [\d,.]+ GB free, in ([^;]+)", well["found"])
    assert told == [("spool", spool), ("database", str(embedded.folder))]
    assert (code, rows["disks"]["ok"], "away" in rows["disks"]["found"]) == (1, False, True)


def test_the_disk_of_a_log_beside_a_server_is_known(embedded: Installation) -> None:
    """Where the database is on a server, the embedded event log's file is what may fill a disk."""
    config = load(embedded.config).model_copy(update={"database": "postgresql://server/name"})
    assert disks(config) == {"spool": Path(tempfile.gettempdir()), "events": config.folder}


@pytest.mark.parametrize(("ends_in", "ok"), [(86_400, True), (-60, False)])
def test_check_tells_when_tokens_end(
    embedded: Installation, capsys: pytest.CaptureFixture[str], ends_in: float, ok: bool
) -> None:
    """`check` says when a token ends that says so itself, names no other one, and fails where one has ended."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + ends_in}).encode()).decode().rstrip("=")
    document = yaml.safe_load(embedded.config.read_text())
    document["server"] = {"listen": "127.0.0.1:0", "token": f"e30.{claims}.sig"}
    document["links"] = {"base_url": "http://127.0.0.1:9", "key": "k" * 32}
    embedded.config.write_text(yaml.safe_dump(document))
    code, rows = checked(embedded, capsys)
    (name,) = [component for component in rows if component.startswith("token ")]

    assert (name, rows[name]["ok"], code) == ("token server.token", ok, 0 if ok else 1)
    assert re.fullmatch(r"ends at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", rows[name]["found"])
    assert claims not in str(rows)


def test_skew_of_clocks(distributed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this process's clock is behind, those of the database and of Redis are told to be ahead by just that."""
    assert cli.run(["check", "--config", str(distributed.config)]) == 0
    with App.open(load(distributed.config)) as app, closing(redis_queue.RedisQueue(distributed.queue)) as jobs:
        of_process = Gauges(app.config, app._data, jobs, app.metrics, frozenset({"work"}))
        of_process.read()
        now = {server: app.metrics.value("clock_skew_seconds", server=server) for server in ("database", "redis")}
        behind = SimpleNamespace(time=lambda: time.time() - AHEAD_SECONDS, monotonic=time.monotonic)
        for module in (gauges, redis_queue):
            monkeypatch.setattr(module, "time", behind)
        of_process.read()
        then = {server: app.metrics.value("clock_skew_seconds", server=server) for server in now}

    assert all(abs(skew) < 1 for skew in now.values()), now
    assert all(abs(skew - AHEAD_SECONDS) < 1 for skew in then.values()), then
