"""The dashboard is made from the table of metrics, and each of its queries gives data of a real run."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.grafana.dashboard import FILE, SOURCE, dashboard
from pipeline.metrics import PREFIX, ROLES, TABLE
from tests.faults.installation import Installation, until
from tests.ops.watching import ROOT, WINDOW, Prometheus, watched


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the file, with its panel."""
    for panel in json.loads(FILE.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_current() -> None:
    """The file is what the table of metrics gives now (make dashboard)."""
    command = [sys.executable, "-m", "deploy.grafana.dashboard", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout


def test_every_metric_is_drawn() -> None:
    """Every metric of the table is in some panel, and there is an overview and a row for each role."""
    text = " ".join(query for _, query in queries())

    assert [metric.name for metric in TABLE if PREFIX + metric.name not in text] == []
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert len(rows) == 1 + len(ROLES)
    places = [tuple(panel["gridPos"].values()) for panel in dashboard()["panels"]]
    assert len(places) == len(set(places))


def at_three() -> str:
    """A time zone in which it is between three and four at night, when counters are held against a count."""
    ahead = (3 - time.gmtime().tm_hour) % 24
    return f"NIGHT{-ahead if ahead < 13 else 24 - ahead}"


@pytest.mark.timeout(180)
def test_every_query_gives_data(distributed: Installation, tmp_path: Path, unique: str) -> None:
    """Each query of the dashboard gives data from a Prometheus that scraped a run in which all of it happened."""
    configure(distributed)
    roles = [distributed.start(name, env={"TZ": at_three()}) for name in ("watch", "dispatch", "work", "serve")]
    with watched(unique, tmp_path, roles) as (prometheus, _):
        distributed.put(200)
        distributed.place.put("left.out", b"")
        empty: dict[tuple[str, str], str] = dict.fromkeys(queries(), "")

        def all_there() -> bool:
            distributed.put(5)
            distributed.place.put(f"{time.monotonic()}.json", b"{")
            for title, query in list(empty):
                if gives_data(prometheus, query):
                    del empty[title, query]
            return not empty

        until(all_there, 60.0, lambda: f"data of {sorted(empty)}")


def configure(installation: Installation) -> None:
    """Bounds that are felt, one delivery that works, and one that cannot, whose token expires."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 86400}).encode()).decode()
    remote = {"url": "http://127.0.0.1:9", "project": 1, "token": f"e30.{claims}.none"}
    document = yaml.safe_load(installation.config.read_text())
    document["projects"]["p"] |= {
        "throttle": {"max_tasks": 100_000, "tasks_per_second": 20, "imports_every": "1s"},
        "deliveries": [{"jsonl": {"url": "./delivered"}}, {"label_studio": remote}],
    }
    document["sources"][0] |= {"exclude": ["*.out"], "links": "durable"}
    document["links"] = {"base_url": "http://127.0.0.1:9", "key": "k" * 32}
    installation.config.write_text(yaml.safe_dump(document))


def gives_data(prometheus: Prometheus, query: str) -> bool:
    """Whether a query gives a number."""
    asked = query.replace("$__rate_interval", WINDOW).replace(SOURCE, ".*")
    return any(sample["value"][1] != "NaN" for sample in prometheus.query(asked))
