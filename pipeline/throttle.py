"""What may start now: the scheduler's arithmetic, as pure functions on values. No clock, no database, no chance.

Fair share is weighted deficit round-robin: each source with work gets its part of what may be claimed, by
weight; what one cannot use goes to the others; what rounding took from one, the next turn gives back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

RECENT_SECONDS = 0.5
"""What is claimed but not started is bounded by what the workers finished in this time ..."""
BATCHES_PER_IDLE_THREAD = 2
"""... and is at least so many batches for each thread that has nothing to do."""
SMALL_BATCH_OBJECTS = 25
"""A claim is not cut smaller than this to spread it over idle threads: a commit for each object is slow."""
BATCH_BYTES = 16 * 1024 * 1024
"""A claim of several objects holds no more than this, by the sizes that their events told."""
DEFICIT_LIMIT = 1000.0
"""Objects that a source may be owed, or owe, from one turn to the next."""
BURST_SECONDS = 1.0
"""A project's bucket holds what its rate gives in this time, and at least one task."""

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


class Room(NamedTuple):
    """How much may be claimed in one turn: objects, and batches that hold them."""

    objects: int
    batches: int


def room(*, in_flight: int, unstarted: int, waiting: int, recent: int, idle: int, batch: int, ceiling: int) -> Room:
    """How much may be claimed now.

    `in_flight` objects are claimed or running, `unstarted` of them are not started and lie in `waiting`
    batches, `recent` ended in the last RECENT_SECONDS, `idle` threads have nothing to do, `batch` objects
    make a full batch, and `ceiling` is the most that may be in flight.
    """
    for_idle = BATCHES_PER_IDLE_THREAD * idle
    objects = min(max(recent, for_idle * batch) - unstarted, ceiling - in_flight)
    batches = max(math.ceil(recent / batch), for_idle) - waiting
    if objects <= 0 or batches <= 0:
        return Room(0, 0)
    return Room(objects, batches)


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


def _movable(source: Waiting, quota: Mapping[int, int], over: int, among: int, step: int) -> int:
    space = quota[source.id] if step < 0 else source.ready - quota[source.id]
    return max(1, min(space, over // among)) if space else 0


def owed(source: Waiting, fair: float, served: int) -> float:
    """What a source is owed after a turn that gave it `served` objects. Nothing if it has no more work."""
    if served >= source.ready:
        return 0.0
    return max(-DEFICIT_LIMIT, min(DEFICIT_LIMIT, source.deficit + fair - served))


T = TypeVar("T")


def batches(items: Iterable[T], size_of: Callable[[T], int], most: int, parts: int) -> list[list[T]]:
    """Cut candidates into claims, in their order.

    A claim holds at most `most` objects and BATCH_BYTES bytes (one larger object is a claim of its own).
    They are spread over `parts` claims as evenly as SMALL_BATCH_OBJECTS allows.
    """
    items = list(items)
    parts = max(1, min(parts, len(items) // SMALL_BATCH_OBJECTS))
    length = min(most, math.ceil(len(items) / parts))
    cut: list[list[T]] = []
    bytes_in = 0
    for item in items:
        size = size_of(item)
        if not cut or len(cut[-1]) >= length or bytes_in + size > BATCH_BYTES:
            cut.append([])
            bytes_in = 0
        cut[-1].append(item)
        bytes_in += size
    return cut


def cost(objects: int, size: int, batch: int) -> float:
    """The part of a full batch that a claim of so many objects and bytes is. Many small claims are no more work
    than few full ones; a large file is a batch by itself."""
    return max(objects / batch, size / BATCH_BYTES)


class Bucket(NamedTuple):
    """A project's token bucket, told as a total: how many tasks the project may have, as of a time.

    Counting tasks that are really there corrects every wrong guess of how many an object would give.
    """

    allowed: float
    at: float


def refill(bucket: Bucket, now: float, rate: float, tasks: int) -> Bucket:
    """The bucket at `now` for `rate` tasks a second, in a project that has `tasks`."""
    burst = max(1.0, rate * BURST_SECONDS)
    full = tasks + burst
    if bucket.at <= 0:
        return Bucket(full, now)
    return Bucket(min(full, bucket.allowed + rate * max(0.0, now - bucket.at)), max(now, bucket.at))


def project_room(*, tasks: int, in_flight: int, bucket: Bucket | None, max_tasks: int) -> int | None:
    """How many objects a project may be given, at one task an object; None for no bound.

    `in_flight` objects of it are under way and will give tasks; `max_tasks` 0 is no limit.
    """
    bounds = []
    if bucket is not None:
        bounds.append(math.floor(bucket.allowed - tasks + _EPSILON) - in_flight)
    if max_tasks:
        bounds.append(max_tasks - tasks - in_flight)
    return max(0, min(bounds)) if bounds else None
