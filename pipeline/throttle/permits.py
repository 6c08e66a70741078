"""What limits still allow: token buckets, ceilings, and what objects are expected to cost of them.

Nobody knows how many tasks an object holds before it was read. So a claim spends what its objects are expected to
give, by what their source gave so far; what they really gave replaces that as soon as they are committed, and a
wrong guess is paid for or given back by that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.throttle.waits import Wait, Why

BURST_SECONDS = 1.0
"""A bucket holds what its rate gives in this time, and at least one task or byte."""
FLIGHT_SECONDS = 10.0
"""No more than a rate gives in this time is under way: workers that stand still must not save up a flood."""
SET_BACK_SECONDS = 1.0
"""A bucket that is from further ahead is from before the clock was set back. From less ahead it may be another turn's
that began later and ended sooner: the time between must not be counted twice."""
FIRST_TASKS_PER_BYTE = 0.01
"""What a source is expected to give of which nothing was read yet."""

_EPSILON = 1e-9

Unit = Literal["objects", "tasks", "bytes"]


class History(NamedTuple):
    """What was ever read of a source, and the tasks that came of it."""

    objects: int = 0
    tasks: int = 0
    bytes: int = 0


class Cost(NamedTuple):
    """What objects are expected to cost."""

    objects: int
    tasks: float
    bytes: float


def expected(history: History, size: int) -> Cost:
    """What an object of so many bytes (0: nobody knows) is expected to cost: at least a task, by the tasks for each
    byte of its source so far."""
    read = max(1, history.objects)
    if not history.objects:
        tasks = size * FIRST_TASKS_PER_BYTE
    elif history.tasks <= history.objects:
        tasks = 1.0
    elif size and history.bytes:
        tasks = size * history.tasks / history.bytes
    else:
        tasks = history.tasks / read
    return Cost(1, max(1.0, tasks), float(size or history.bytes / read))


class Bucket(NamedTuple):
    """A token bucket, told as a total: how much may ever have been used, as of a time.

    What is used counts what is done and what is under way, so that every wrong guess corrects itself.
    """

    allowed: float
    at: float


def burst(rate: float) -> float:
    """What a bucket of so much a second holds."""
    return max(1.0, rate * BURST_SECONDS)


def refill(bucket: Bucket, now: float, rate: float, used: float) -> Bucket:
    """The bucket at `now`, for `rate` a second, where `used` is done or under way."""
    full = used + burst(rate)
    if bucket.at <= 0:
        return Bucket(full, now)
    at = now if set_back(bucket, now) else max(now, bucket.at)
    return Bucket(min(full, bucket.allowed + rate * max(0.0, now - bucket.at)), at)


def set_back(bucket: Bucket, now: float) -> bool:
    """Whether the clock was set back since the bucket was kept: then it goes on from now, and nothing is added."""
    return bucket.at > now + SET_BACK_SECONDS


@dataclass(slots=True)
class Permit:
    """What one limit still allows in a turn.

    `left` is how much, in its `unit`. An object that costs more than `whole` needs no more than that to be left:
    something larger than a whole bucket must be able to pass. `rate` a second comes back by itself; without one
    only what ends makes room. With `first` a source that has nothing under way may always begin one object. `of` is
    the limit, for people.
    """

    why: Why
    unit: Unit
    left: float
    whole: float = math.inf
    rate: float = 0.0
    first: bool = False
    of: float | None = None

    def admits(self, cost: Cost) -> bool:
        """Whether so much may begin."""
        return self.left > _EPSILON and self.left + _EPSILON >= min(getattr(cost, self.unit), self.whole)

    def spend(self, cost: Cost) -> None:
        """So much begins."""
        self.left -= getattr(cost, self.unit)

    def wait(self, cost: Cost, now: float) -> Wait:
        """What is waited for that would cost so much."""
        missing = min(getattr(cost, self.unit), self.whole) - self.left
        until = now + max(0.0, missing) / self.rate if self.rate else None
        return Wait(self.why, until, at=None if self.of is None else self.of - self.left, of=self.of)


def full(why: Why, most: int, tasks: float, in_flight: float) -> Permit:
    """A project that holds at `most` tasks: an object begins while there is any room, and may pass it."""
    return Permit(why, "tasks", most - tasks - in_flight, whole=0.0, of=most)


def paced(unit: Unit, bucket: Bucket, rate: float, used: float, in_flight: float) -> list[Permit]:
    """What a bucket allows, and what may be under way by its rate."""
    return [
        Permit("throttled", unit, bucket.allowed - used, burst(rate), rate),
        Permit("throttled", unit, rate * FLIGHT_SECONDS - in_flight, whole=0.0),
    ]


def admit(permits: Iterable[Permit], cost: Cost, *, first: bool = False) -> Permit | None:
    """Let an object begin: None, and it is spent of every permit; or the permit that forbids it. `first` says that
    its source has nothing under way."""
    permits = list(permits)
    for permit in permits:
        if not permit.admits(cost) and not (first and permit.first):
            return permit
    for permit in permits:
        permit.spend(cost)
    return None


def admit_all(permits: Sequence[Permit], cost: Cost) -> bool:
    """Let many objects begin together, if there is plenty for them all; else nothing is spent."""
    if any(permit.left < getattr(cost, permit.unit) for permit in permits):
        return False
    for permit in permits:
        permit.spend(cost)
    return True


def most(permits: Sequence[Permit], each: Cost) -> int | None:
    """No more objects than this are worth looking at, if each costs about `each`; None for no bound."""
    bounds = [permit.left / max(_EPSILON, getattr(each, permit.unit)) for permit in permits]
    return max(1, math.ceil(min(bounds))) if bounds and min(bounds) < math.inf else None
