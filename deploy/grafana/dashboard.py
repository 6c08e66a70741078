"""Makes labelfeed.json, a dashboard for Grafana: an overview, then a row for each role with all of its metrics.

The rows of the roles come from the table of metrics itself. `make dashboard` runs this; `python -m
deploy.grafana.dashboard --check` exits 1 if the file is not current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.metrics import PREFIX, ROLES, Metric, Role

FILE = Path(__file__).parent / "labelfeed.json"
RANGE = "$__rate_interval"
SOURCE = "$source"
WIDTH, HEIGHT, COLUMNS = 8, 7, 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TITLES: dict[Role, str] = {
    "watch": "watch: notice and publish",
    "dispatch": "dispatch: record and schedule",
    "work": "work: import",
    "deliver": "deliver",
    "process": "each process",
}
OF_PROCESSES = frozenset({"up", "disk_free_bytes", "disk_size_bytes", "clock_skew_seconds"})
"""Gauges that each process tells of itself."""


class Panel(NamedTuple):
    """One graph: its title, unit, and queries with the names of what they give."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    about: str = ""


OVERVIEW = (
    Panel(
        "Flow: objects",
        "ops",
        [(f'sum by (source) (rate(labelfeed_imported_objects_total{{source=~"{SOURCE}"}}[{RANGE}]))', "{{source}}")],
        "Objects that ended, a second.",
    ),
    Panel(
        "Flow: tasks",
        "ops",
        [(f'sum by (source) (rate(labelfeed_written_tasks_total{{source=~"{SOURCE}"}}[{RANGE}]))', "{{source}}")],
        "Tasks committed, a second.",
    ),
    Panel(
        "From change to task",
        "s",
        [
            (
                (
                    f"histogram_quantile({part}, sum by (le) (rate(labelfeed_end_to_end_seconds_bucket"
                    f'{{source=~"{SOURCE}"}}[{RANGE}])))'
                ),
                name,
            )
            for part, name in ((0.5, "p50"), (0.99, "p99"))
        ],
        "Time from an object's last change to the commit of its tasks.",
    ),
    Panel(
        "Backlog",
        "short",
        [
            (
                (
                    "sum by (source) (max by (source, state)"
                    f' (labelfeed_objects{{state=~"ready|claimed",source=~"{SOURCE}"}}))'
                ),
                "{{source}}",
            )
        ],
        "Objects that wait or are under way.",
    ),
    Panel(
        "Backlog: age",
        "s",
        [(f'max by (source) (labelfeed_oldest_waiting_seconds{{source=~"{SOURCE}"}})', "{{source}}")],
        "How long the oldest of them has been due.",
    ),
    Panel(
        "Failures",
        "ops",
        [
            (
                (
                    "sum by (source, state)"
                    f' (rate(labelfeed_imported_objects_total{{state=~"failed|skipped",source=~"{SOURCE}"}}[{RANGE}]))'
                ),
                "{{source}} {{state}}",
            ),
            (f"sum(rate(labelfeed_dead_letters_total[{RANGE}]))", "dead letters"),
        ],
        "Objects that ended badly and events that could not be recorded, a second.",
    ),
    Panel(
        "Throttle",
        "percentunit",
        [
            (
                f'sum by (source, cause) (rate(labelfeed_throttle_wait_seconds_total{{source=~"{SOURCE}"}}[{RANGE}]))',
                "{{source}} {{cause}}",
            )
        ],
        "The part of the time in which a source had objects ready and the throttle let none start, by cause.",
    ),
    Panel(
        "What sources wait for",
        "short",
        [(f'max by (source, why) (labelfeed_source_waits{{source=~"{SOURCE}"}})', "{{source}} {{why}}")],
    ),
    Panel("Roles", "bool_on_off", [("min by (role, instance) (labelfeed_up)", "{{role}} {{instance}}")]),
)


def panels(role: Role) -> list[Panel]:
    """A panel for each metric of a role."""
    return [_panel(metric) for metric in ROLES[role]]


def _panel(metric: Metric) -> Panel:
    title = metric.name.removesuffix("_total").replace("_", " ")
    chosen = f'{{source=~"{SOURCE}"}}' if "source" in metric.labels else ""
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or title
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    name = PREFIX + metric.name
    if metric.kind == "counter":
        return Panel(title, "ops", [(f"sum{by} (rate({name}{chosen}[{RANGE}]))", legend)], metric.help)
    if metric.kind == "histogram":
        return Panel(title, "s", list(_quantiles(metric, name + "_bucket" + chosen)), metric.help)
    if metric.name in OF_PROCESSES:
        by, legend = by[:-1] + ", instance)", legend + " {{instance}}"
    return Panel(title, _unit(metric.name), [(f"max{by} ({name}{chosen})", legend)], metric.help)


def _quantiles(metric: Metric, series: str) -> Iterator[tuple[str, str]]:
    by = ", ".join(("le", *metric.labels))
    legend = "".join(f"{{{{{label}}}}} " for label in metric.labels)
    for part in ("0.5", "0.99"):
        yield f"histogram_quantile({part}, sum by ({by}) (rate({series}[{RANGE}])))", f"{legend}p{part[2:]:0<2}"


def _unit(name: str) -> str:
    if name.endswith("timestamp_seconds"):
        return "dateTimeFromNow"
    return next((unit for end, unit in (("_seconds", "s"), ("_bytes", "bytes")) if name.endswith(end)), "short")


def dashboard() -> dict[str, Any]:
    """The dashboard, in Grafana's form."""
    return {
        "uid": "labelfeed",
        "title": "Labelfeed",
        "tags": ["labelfeed"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_placed()),
    }


def _variables() -> list[dict[str, Any]]:
    query = f"label_values({PREFIX}objects, source)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "source", "type": "query", "datasource": DATASOURCE, "refresh": 2, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            "query": {"query": query, "refId": "source"}, "definition": query,
        },
    ]  # fmt: skip


def _placed() -> Iterator[dict[str, Any]]:
    rows: list[tuple[str, Sequence[Panel]]] = [("Overview", OVERVIEW)]
    rows += [(TITLES.get(role, role), panels(role)) for role in ROLES]
    top = number = 0
    for title, row in rows:
        number += 1
        where = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": where, "panels": []}
        top += 1
        for index, panel in enumerate(row):
            number += 1
            x, y = index % (COLUMNS // WIDTH) * WIDTH, top + index // (COLUMNS // WIDTH) * HEIGHT
            yield _drawn(panel, number, {"h": HEIGHT, "w": WIDTH, "x": x, "y": y})
        top += -(-len(row) // (COLUMNS // WIDTH)) * HEIGHT


def _drawn(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": None if panel.unit == "s" else 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def main() -> int:
    """Write or check the file; gives the exit code."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" not in sys.argv:
        FILE.write_text(text)
        return 0
    current = FILE.exists() and FILE.read_text() == text
    if not current:
        print("labelfeed.json is not current; make dashboard")
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())
