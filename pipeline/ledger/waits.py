"""What deliveries wait for, as `status` and the metric `delivery_waits` say it, by what is told of them
(`Deliveries.report`) and in the order in which `next_steps` decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

DeliveryWhy = Literal["", "paused", "failing", "workers", "unsure", "share", "throttled"]
"""Nothing, or a turn of the scheduler; a person paused it, or its project; its last attempt failed; no worker lives;
nobody knows whether a batch has arrived; another delivery of its project has an import under way; `imports_every`."""
AT_WORK, WAITING = "at work", "waiting"


class DeliveryWait(NamedTuple):
    """Why nothing more begins, and in a few words; these are empty where there is nothing to do."""

    why: DeliveryWhy
    text: str


def delivery_waits(
    rows: Sequence[Mapping[str, Any]], now: float, every: Mapping[str, float], *, workers: bool
) -> dict[str, DeliveryWait]:
    """What each delivery waits for. `rows` are all that the ledger has: the imports of those that are retired count,
    too. `every` is by project how many seconds lie between two imports, `workers` whether any lives."""
    ended: dict[str, float] = {}
    importing: dict[str, str] = {}
    for row in rows:
        ended[row["project"]] = max(row["ended_at"], ended.get(row["project"], 0.0))
        if row["granted"] and row["what"] == "import":
            importing[row["project"]] = row["name"]
    return {
        row["name"]: _held(row, now, workers=workers)
        or _turn(row, now, ended[row["project"]] + seconds, importing.get(row["project"]) if seconds else None)
        for row in rows
        for seconds in [every.get(row["project"], 0.0)]
    }


def _held(row: Mapping[str, Any], now: float, *, workers: bool) -> DeliveryWait | None:
    """What keeps a delivery from anything at all."""
    if row["paused_at"] is not None:
        return DeliveryWait("paused", "paused")
    if row["due"] > now and row["failing"]:
        return DeliveryWait("failing", f"{row['code']}: next attempt in {row['due'] - now:.0f} s")
    if not workers and (row["waiting_tasks"] or row["changes"]):
        return DeliveryWait("workers", "no worker is alive")
    return None


def _turn(row: Mapping[str, Any], now: float, due: float, importing: str | None) -> DeliveryWait:
    """What it waits for among the deliveries of its project, of which one is `importing` now, and the next import is
    `due` at a time."""
    if row["batch"] == "unsure":
        return DeliveryWait("unsure", "asks whether a batch has arrived")
    if row["granted"]:
        return DeliveryWait("", AT_WORK)
    if row["waiting_tasks"] and importing is not None:
        return DeliveryWait("share", f"waiting for the end of an import behind {importing}")
    if row["waiting_tasks"] and due > now:
        return DeliveryWait("throttled", f"throttled: next import in {due - now:.0f} s")
    return DeliveryWait("", WAITING if row["waiting_tasks"] or row["changes"] else "")
