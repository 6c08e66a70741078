"""What sources and projects wait for, as `status` says it: what the schedulers last said, and what the rows tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.throttle import Wait, told

FRESH_SECONDS = 10.0
"""What a scheduler said longer ago counts for nothing: none may be at work."""
UNHEARD_SECONDS = 5.0
"""An object that waits for this long, with no scheduler heard of, is told as such."""
UNSCHEDULED = {"why": "unscheduled", "text": "no `labelfeed run` or `labelfeed dispatch` is at work", "until": None}


def add(
    sources: list[dict[str, Any]], projects: list[dict[str, Any]], scheduling: Mapping[str, Any], now: float
) -> None:
    """Give every row its `waits`: None, or a dict of `why, text, until`."""
    fresh = now - scheduling["at"] < FRESH_SECONDS
    by_name = {row["name"]: row for row in projects}
    for row in projects:
        row["waits"] = _shown(_of_project(row, scheduling["projects"] if fresh else {}), now)
    for row in sources:
        wait = _of_source(row, by_name.get(row["project"], {}), scheduling["sources"] if fresh else {})
        row["waits"] = None if row["retired"] else _shown(wait, now)
        unheard = not fresh and row["ready"] and (row["oldest_waiting_seconds"] or 0.0) >= UNHEARD_SECONDS
        if row["waits"] is None and unheard and not row["retired"]:
            row["waits"] = UNSCHEDULED


def _of_project(row: Mapping[str, Any], said: Mapping[str, Any]) -> Wait | None:
    if row.get("paused"):
        return Wait("paused")
    most, tasks = row.get("max_tasks", 0), row["tasks"]
    if most and tasks >= most:
        return Wait("full", at=tasks, of=most)
    return Wait.parse(said[row["name"]]) if row["name"] in said else None


def _of_source(row: Mapping[str, Any], project: Mapping[str, Any], said: Mapping[str, Any]) -> Wait | None:
    if project.get("paused") or (row["paused"] or {}).get("by") == "hand":
        return Wait("paused")
    if row["ready"] and (project.get("waits") or {}).get("why") == "full":
        return Wait("full", at=project["tasks"], of=project["max_tasks"])
    if row["ready"] and row["name"] in said:
        return Wait.parse(said[row["name"]])
    return Wait("failing") if row["paused"] else None


def _shown(wait: Wait | None, now: float) -> dict[str, Any] | None:
    return None if wait is None else {"why": wait.why, "text": told(wait, now), "until": wait.until}
