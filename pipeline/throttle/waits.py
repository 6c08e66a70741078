"""What a source or a project waits for, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

Why = Literal[
    "paused", "failing", "full", "enough", "uncounted", "undelivered", "throttled", "in_flight", "share", "back_off",
    "workers", "database", "queue",
]  # fmt: skip
"""A person paused it; its failures did; the project has `max_tasks`; it has `open_tasks` without annotations; nobody
knows yet how many of these Label Studio has; too many are not delivered yet; a rate; what may be in flight; others'
fair share; nothing is due before its back-off ends; no worker lives; the database is under pressure; the work queue
does not answer."""
WHYS: tuple[Why, ...] = get_args(Why)
HELD: frozenset[Why] = frozenset({"paused", "full", "enough", "uncounted"})
"""Time alone ends none of these."""

ENOUGH: frozenset[Why] = frozenset({"full", "enough", "uncounted", "undelivered"})
"""What holds up only that which brings a project more tasks."""


class Wait(NamedTuple):
    """Why nothing more begins: until when (seconds since 1970) where that is known, behind whom, at how much of how
    much."""

    why: Why
    until: float | None = None
    behind: str | None = None
    at: float | None = None
    of: float | None = None

    @classmethod
    def parse(cls, fields: list[Any]) -> Wait:
        """What `list` made of one."""
        return cls(*fields)


def told(wait: Wait, now: float) -> str:
    """A wait for a person."""
    left = _seconds(max(0.0, (wait.until or now) - now))
    amount = f"{wait.at or 0:,.0f} of {wait.of or 0:,.0f}"
    over = (wait.at or 0) - (wait.of or 0)
    text = _TOLD[wait.why].format(amount=amount, behind=wait.behind)
    if wait.until is not None:
        text += f": next {_NEXT.get(wait.why, 'try')} in {left}"
    return text + (f", {over:,.0f} too many" if over >= 1 else "")


_TOLD: Mapping[Why, str] = {
    "paused": "paused",
    "failing": "paused by its failures",
    "full": "full: {amount}",
    "enough": "enough for the labellers: {amount}",
    "uncounted": "Label Studio has not told yet how many tasks are open there",
    "undelivered": "deliveries are behind: {amount}",
    "throttled": "throttled",
    "in_flight": "as much is under way as may be: {amount}",
    "share": "waiting for a fair share behind {behind}",
    "back_off": "backing off",
    "workers": "no worker is alive",
    "database": "the database is under pressure",
    "queue": "Redis does not answer",
}
_NEXT: Mapping[Why, str] = {"throttled": "import"}


def _seconds(seconds: float) -> str:
    """12 s, 5 min, 3 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
