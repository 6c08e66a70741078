"""Named places where a test may kill the process: `LABELFEED_FAULT=worker.before_commit:3` ends it by SIGKILL
when it comes to that place for the third time. With `worker.started:1:STOP` it is suspended there instead, so
that the world can be changed around it before it is continued. Without the variable a place costs one empty call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count

VARIABLE = "LABELFEED_FAULT"

POINTS = frozenset({
    "watcher.published", "watcher.taken", "watcher.recorded",
    "dispatcher.recorded", "scheduler.claimed", "worker.before_start", "worker.started",
    "worker.parsing", "worker.staged", "worker.before_commit", "worker.committing", "worker.committed",
    "deliverer.taken", "deliverer.filled", "deliverer.sending", "deliverer.sent", "deliverer.remembered",
    "deliverer.changed", "scheduler.granted",
})  # fmt: skip
"""Every place that calls `reached`."""

_ACTIONS = {"": signal.SIGKILL, "KILL": signal.SIGKILL, "STOP": signal.SIGSTOP}


def _nothing(_point: str, _subject: str = "") -> None:
    """The place is passed."""


def armed(setting: str) -> Callable[..., None]:
    """What `reached` is for a setting `point`, `point:n` or `point:n:STOP`; n counts from 1. `point@text` strikes
    every time, but only for a subject (an object's key) that has the text in it.

    Raises:
        ValueError: there is no such point or no such action, or n is no positive number.
    """
    if not setting:
        return _nothing
    place, _, rest = setting.partition(":")
    point, _, text = place.partition("@")
    number, _, action = rest.partition(":")
    if point not in POINTS:
        raise ValueError(f"{VARIABLE} names no point: {point!r}")
    last = int(number or 1)
    if last < 1:
        raise ValueError(f"{VARIABLE} counts from 1")
    if action not in _ACTIONS:
        raise ValueError(f"{VARIABLE} names no action: {action!r}")
    passed = count(1)

    def strike(here: str, subject: str = "") -> None:
        if here == point and (text in subject if text else next(passed) == last):
            # To this very thread: any other would let it go on for a moment.
            signal.raise_signal(_ACTIONS[action])

    return strike


reached = armed(os.environ.get(VARIABLE, ""))
"""Call it at a point, by the point's name, and by the subject where there is one."""
