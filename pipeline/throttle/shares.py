"""Fair share: weighted deficit round-robin over sources, in classes of priority that age.

Each source with work gets its part of what may be claimed, by weight; what one cannot use goes to the others;
what rounding took from one, the next turn gives back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

DEFICIT_LIMIT = 1000.0
"""Objects that a source may be owed, or owe, from one turn to the next."""
QUANTUM = 25
"""Objects that a source gets at a time, if it has so many: every claim costs a commit, however small it is."""
PRIORITIES: Mapping[str, int] = {"low": 0, "normal": 1, "high": 2}
"""A higher class is served before a lower one."""
AGE_SECONDS = 10.0
"""A source that others go before rises by one class after each such time, until it is served."""

_EPSILON = 1e-9


class Waiting(NamedTuple):
    """A source in one round: objects that it could be given, its weight, and what it is owed."""

    id: int
    ready: int
    weight: float
    deficit: float


class Share(NamedTuple):
    """What a source gets in one round: whole objects, and the fair part that they stand for."""

    quota: int
    fair: float


def share(waiting: Sequence[Waiting], capacity: int) -> dict[int, Share]:
    """Divide `capacity` objects among sources: never more than it, never more than a source has ready, and
    all of it while there is enough ready."""
    able = [source for source in waiting if source.ready > 0]
    total = min(capacity, sum(source.ready for source in able))
    if total <= 0:
        return {source.id: Share(0, 0.0) for source in waiting}
    fair = _fair(able, total)
    credit = {source.id: source.deficit + fair[source.id] for source in able}
    quota = {source.id: max(0, min(source.ready, math.floor(credit[source.id] + _EPSILON))) for source in able}
    _settle(able, quota, credit, total)
    quota = _gathered(able, quota, credit, total)
    return {source.id: Share(quota.get(source.id, 0), fair.get(source.id, 0.0)) for source in waiting}


def _fair(able: Sequence[Waiting], total: int) -> dict[int, float]:
    """Real-numbered shares by weight, where nobody gets more than it has ready."""
    fair: dict[int, float] = {}
    left, weights = float(total), sum(source.weight for source in able)
    # Who needs least for its weight is filled first; what it leaves raises everybody else's part.
    for source in sorted(able, key=lambda source: source.ready / source.weight):
        part = min(float(source.ready), left * source.weight / weights)
        fair[source.id] = part
        left -= part
        weights -= source.weight
    return fair


def _settle(able: Sequence[Waiting], quota: dict[int, int], credit: Mapping[int, float], total: int) -> None:
    """Move whole objects until the quotas add up to `total`: to whom most is owed, from whom least is."""
    over = sum(quota.values()) - total
    while over:
        step = -1 if over > 0 else 1
        able_to = [source for source in able if (quota[source.id] > 0 if step < 0 else quota[source.id] < source.ready)]
        able_to.sort(key=lambda source: step * (quota[source.id] - credit[source.id]))
        for source in able_to[: abs(over)]:
            bound = _movable(source, quota, abs(over), len(able_to), step)
            quota[source.id] += step * bound
            over += step * bound
            if not over:
                return


def _gathered(
    able: Sequence[Waiting], quota: Mapping[int, int], credit: Mapping[int, float], total: int
) -> dict[int, int]:
    """Give crumbs together, to whom most is owed: the others' turn comes by what they are owed then. First come those
    whose part is all that they have."""
    gathered: dict[int, int] = {}
    for source in sorted(able, key=lambda source: (quota[source.id] < source.ready, -credit[source.id])):
        gathered[source.id] = min(source.ready, total, max(quota[source.id], QUANTUM))
        total -= gathered[source.id]
    return gathered


def _movable(source: Waiting, quota: Mapping[int, int], over: int, among: int, step: int) -> int:
    space = quota[source.id] if step < 0 else source.ready - quota[source.id]
    return max(1, min(space, over // among)) if space else 0


def owed(source: Waiting, fair: float, served: int) -> float:
    """What a source is owed after a turn that gave it `served` objects. Nothing if it has no more work."""
    if served >= source.ready:
        return 0.0
    return max(-DEFICIT_LIMIT, min(DEFICIT_LIMIT, source.deficit + fair - served))


def rank(priority: str, passed_over: float, now: float) -> int:
    """The class in which a source stands now, `passed_over` since when others go before it, 0 if they don't."""
    own = PRIORITIES[priority]
    if passed_over <= 0:
        return own
    return min(max(PRIORITIES.values()), own + int(max(0.0, now - passed_over) / AGE_SECONDS))
