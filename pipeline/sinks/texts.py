"""What both databases keep as JSON text: entries of an object's history, and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from pipeline.errors import DataRefused
from pipeline.events import ObjectEvent
from pipeline.ledger import Change, Outcome, Reason, Standing


def text_of(value: Any) -> str:
    """JSON text.

    Raises:
        DataRefused: a string in it is no valid text (half of a surrogate pair).
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise DataRefused(f"the database refuses the data: {error}") from None


def event_text(event: ObjectEvent, change: Change) -> str:
    """An event that did something, as the history keeps it."""
    return text_of({
        "event": event.kind, "effect": change.effect, "version": event.version, "discovered_by": event.discovered_by,
        "event_id": event.id, "traceparent": event.traceparent,
    })  # fmt: skip


def attempt_text(lease: int, outcome: Outcome) -> str:
    """An attempt, as the history keeps it."""
    return text_of({
        "lease": lease, "state": outcome.state, "mode": outcome.mode, "version": outcome.version,
        "tasks": outcome.task_count, "reason": asdict(outcome.reason) if outcome.reason else None,
        "retry_after": outcome.retry_after, "seconds": outcome.seconds,
    })  # fmt: skip


def reason_text(reason: Reason) -> str:
    """Why an object ended as it did, without what is not known."""
    return text_of({name: value for name, value in asdict(reason).items() if value is not None})


def worker_lost(died: int) -> Reason:
    """The reason of an object whose child process has died too often."""
    return Reason(
        "worker_lost",
        f"the process that imported it died {died} times",
        hint="it may need more memory or time than limits.child_memory and limits.child_time give;"
        " then `labelfeed retry`",
    )


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[int, int]]]:
    """What the reports say of counters (`source`, `name`, `kept`, `counted`) that are not what a count gave."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        found.setdefault(row["source"], {})[row["name"]] = (row["kept"], row["counted"])
    return found


def paused_of(standing: Standing | None) -> dict[str, Any] | None:
    """What the reports say of a source that is paused; None if it is not."""
    if standing is None or standing.paused is None:
        return None
    return {
        "by": standing.paused, "since": standing.since, "failing": standing.failing, "code": standing.code,
    }  # fmt: skip
