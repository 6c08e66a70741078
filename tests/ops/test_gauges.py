"""What a process tells of its servers: counters held against a count, tokens that end, labels that are bounded."""

from __future__ import annotations

import base64
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import cli, metrics
from pipeline.app import App
from pipeline.app.credentials import expiries
from pipeline.app.gauges import COUNT_AT_HOUR, Gauges
from pipeline.config import Config, load
from pipeline.metrics import TABLE, Metrics
from tests.faults.installation import Installation, until

NIGHT = datetime(2026, 5, 2, COUNT_AT_HOUR, 30, tzinfo=UTC)
LABELS = {
    "source", "project", "delivery", "state", "stage", "code", "reason", "effect", "outcome", "operation",
    "discovered_by", "cause", "why", "rule", "role", "part", "place", "server", "partition", "version", "of",
}  # fmt: skip
"""Names and words of the configuration and of the program: never a key, a URI or an exception's text."""


@pytest.fixture
def opened(embedded: Installation) -> Iterator[App]:
    """An installation of three imported objects whose counters are off by one."""
    embedded.put(3)
    assert cli.run(["run", "--once", "--config", str(embedded.config)]) == 0
    with closing(sqlite3.connect(Path(embedded.folder) / "labelfeed.db")) as connection, connection:
        connection.execute("UPDATE source_counts SET n = n + 1 WHERE state = 'done'")
    with App.open(load(embedded.config)) as app:
        yield app


def gauges(app: App, *roles: str) -> Gauges:
    """The gauges of a process in these roles."""
    return Gauges(app.config, app._data, None, app.metrics, frozenset(roles))


def test_nightly_count(opened: App) -> None:
    """At night, once, counters are held against a count; one that is off is a concern until it is put right."""
    of_night = gauges(opened, "dispatch")
    of_night.count(NIGHT - timedelta(hours=1))
    before = of_night.concerns()
    of_night.count(NIGHT)
    found = of_night.concerns()
    off = opened.metrics.value("miscounted_objects", source="bucket")
    opened.ledger.reports().recount()
    of_night.count(NIGHT + timedelta(minutes=5))
    same_night = of_night.concerns()
    of_night.count(NIGHT + timedelta(days=1))

    assert before == []
    assert found == same_night == ["the counters of bucket are not what a count gives: labelfeed verify bucket"]
    assert off == 1
    assert of_night.concerns() == []
    assert opened.metrics.value("miscounted_objects", source="bucket") == 0


def test_verify_tells_counters(opened: App, capsys: pytest.CaptureFixture[str]) -> None:
    """`labelfeed verify` exits 1 where a counter is off, puts it right when asked, and is content then."""
    config = str(opened.config.folder / "labelfeed.yaml")
    codes = [cli.run(["verify", "--config", config, *options]) for options in ([], ["--recount"], [])]

    assert codes == [1, 0, 0]
    assert "the counter done of bucket says 4, a count gives 3" in capsys.readouterr().err


def test_other_roles_ask_less(opened: App) -> None:
    """A worker asks for clocks and disks; the ledger's gauges are told by `dispatch`."""
    gauges(opened, "work").read()
    of_work = opened.metrics.value("objects", source="bucket", state="done")
    gauges(opened, "dispatch").read()

    assert of_work == 0
    assert opened.metrics.value("objects", source="bucket", state="done") == 4
    assert opened.metrics.value("disk_free_bytes", place="database") > 0


def test_what_was_asked_too_long_ago_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gauge of a server is absent once it was not told for a while; one of the process itself stays."""
    told = Metrics()
    told.set("ready_objects", 3, source="inbox")
    told.set("leader", 1, source="inbox")
    monkeypatch.setattr(metrics, "FRESH_SECONDS", -1.0)
    names = {family.name for family in told.registry.collect() if family.samples}

    assert "labelfeed_ready_objects" not in names
    assert "labelfeed_leader" in names


def test_counters_begin_at_zero() -> None:
    """What a role will count of its sources is there from the start, so that its first increase is seen."""
    told = Metrics()
    told.begin({"watch"}, ["inbox"])
    samples = {
        (sample.name, *sample.labels.values())
        for family in told.registry.collect()
        for sample in family.samples
        if not sample.value
    }

    assert ("labelfeed_passes_total", "inbox", "failed") in samples
    assert not any(name == "labelfeed_imported_objects_total" for name, *_ in samples)


def test_labels_are_bounded() -> None:
    """No metric has a label that could hold a key, a URI or an exception's text."""
    assert {label for metric in TABLE for label in metric.labels} <= LABELS


def test_tokens_that_end() -> None:
    """A JSON Web Token of the configuration says when it ends; other secrets say nothing."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_800_000_000}).encode()).decode().rstrip("=")
    far = base64.urlsafe_b64encode(json.dumps({"exp": 1_800_000_000_000}).encode()).decode().rstrip("=")
    remote = {"url": "http://127.0.0.1:9", "project": 1}
    config = Config.model_validate({
        "projects": {
            "ends": {"deliveries": [{"label_studio": remote | {"token": f"e30.{claims}.sig"}}]},
            "stays": {"deliveries": [{"label_studio": remote | {"token": "0123456789abcdef"}}]},
            "milliseconds": {"deliveries": [{"label_studio": remote | {"token": f"e30.{far}.sig"}}]},
            "odd": {"deliveries": [{"label_studio": remote | {"token": "not.json.web"}}]},
        },
        "sources": [],
    })  # fmt: skip

    assert expiries(config) == {"projects.ends.deliveries.0.label_studio.token": 1_800_000_000.0}


def test_no_key_is_a_label(embedded: Installation) -> None:
    """However many files there are, and whatever their names and errors: no series more, and no name in /metrics."""
    run = embedded.start("run")
    sizes = []
    for word in ("opossum", "koala"):
        embedded.put(10)
        embedded.place.put(f"{word}.exe", b"\x7fELF")
        for number in range(20):
            embedded.place.put(f"{word}-{number}.json", f'{{"{word}": '.encode())
        embedded.imported(failed=20 * (len(sizes) + 1), skipped=len(sizes) + 1)
        until(lambda: run.metric("imported_objects_total") == 31 * (len(sizes) + 1), what="all counted")
        with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sizes.append(text.count("\nlabelfeed_errors_total{"))
        assert word not in text
        assert "file:" not in text
    run.end()

    assert sizes == [2, 2]
    assert 'labelfeed_errors_total{code="syntax",stage="import"} 40.0' in text
