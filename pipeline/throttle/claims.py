"""How much may be claimed in one turn, and how it is cut into claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

RECENT_SECONDS = 0.5
"""What is claimed but not started is bounded by what the workers finished in this time ..."""
BATCHES_PER_IDLE_THREAD = 2
"""... and is at least so many batches for each thread that has nothing to do."""
SMALL_BATCH_OBJECTS = 25
"""A claim is not cut smaller than this to spread it over idle threads: a commit for each object is slow."""
BATCH_BYTES = 16 * 1024 * 1024
"""A claim of several objects holds no more than this, by the sizes that their events told."""

BATCH_SECONDS = 1.0
"""A claim is to keep a thread busy for about this long: whoever comes next waits for no more than that ..."""
SHORTEST_BATCH_OBJECTS = 10
"""... but it holds so many objects, if they are not large ..."""
LONGEST_WINDOW = 4
"""... and it may be so many times as long where that makes it as many as are read at once. Where it is the reading that
takes time, as it is meant for, it takes no longer than a smaller one."""
PACE_SECONDS = 2.0
"""After this time the pace of the workers counts half of what it did."""
KNOWN_SECONDS = 0.5
"""So long a thread must have worked before anything is known of their pace."""


class Pace(NamedTuple):
    """How fast the workers are: objects that ended of late, and the seconds that threads worked on them."""

    objects: float = 0.0
    seconds: float = 0.0

    def after(self, objects: int, running: int, seconds: float) -> Pace:
        """The pace some seconds later, in which so many objects ended and `running` threads worked."""
        kept = 0.5 ** (seconds / PACE_SECONDS)
        return Pace(self.objects * kept + objects, self.seconds * kept + running * seconds)

    def batch(self, most: int, window: int = 1) -> int:
        """How many objects make a full batch, at most `most`. Where so many as the `window` are read at once, it is a
        whole number of these, within LONGEST_WINDOW: one object more than that takes as long as another window."""
        if self.seconds < KNOWN_SECONDS:
            return most
        enough = max(SHORTEST_BATCH_OBJECTS, round(BATCH_SECONDS * self.objects / self.seconds))
        return min(most, math.ceil(enough / window) * window, LONGEST_WINDOW * enough)

    def ends(self, seconds: float) -> float:
        """How many objects a thread ends in this time. As long as nothing is known, no crumb is taken for work."""
        if self.seconds < KNOWN_SECONDS:
            return SMALL_BATCH_OBJECTS
        return seconds * self.objects / self.seconds


class Flight(NamedTuple):
    """What is under way: `objects` that are claimed or running, `unstarted` of them in `waiting` claims that are not
    started, `running` claims that are; `threads` work, and `recent` objects ended in the last RECENT_SECONDS."""

    objects: int = 0
    unstarted: int = 0
    waiting: int = 0
    running: int = 0
    threads: int = 0
    recent: int = 0

    @property
    def idle(self) -> int:
        """Threads that have nothing to do."""
        return max(0, self.threads - self.running)


class Room(NamedTuple):
    """How much may be claimed in one turn: objects, and batches that hold them."""

    objects: int
    batches: int


def room(flight: Flight, *, batch: int, ceiling: int, bound: int = 0, least: int = 1) -> Room:
    """How much may be claimed now.

    `batch` objects make a full batch, `ceiling` is the most that may be in flight, and `bound` the most claims that
    may be, 0 for any number: a worker commits one at a time. While all threads are busy, only a multiple of `least`
    objects is claimed.
    """
    if flight.threads <= 0:
        return Room(0, 0)
    for_idle = BATCHES_PER_IDLE_THREAD * flight.idle
    objects = min(max(flight.recent, for_idle * batch) - flight.unstarted, ceiling - flight.objects)
    batches = max(math.ceil(flight.recent / batch), for_idle) - flight.waiting
    if 0 < bound < flight.threads:
        batches = min(batches, bound - flight.running - flight.waiting)
    if not flight.idle:
        # A crumb is not worth a claim of its own: soon there is room for more.
        objects -= objects % least
    if objects <= 0 or batches <= 0:
        return Room(0, 0)
    return Room(objects, batches)


def batches(sizes: Sequence[int], most: int, parts: int) -> list[range]:
    """Cut candidates of these sizes into claims, in their order: the places of each one's objects.

    A claim holds at most `most` objects and BATCH_BYTES bytes (one larger object is a claim of its own).
    They are spread over `parts` claims as evenly as SMALL_BATCH_OBJECTS allows.
    """
    count = len(sizes)
    parts = max(1, min(parts, count // SMALL_BATCH_OBJECTS))
    length = max(1, min(most, math.ceil(count / parts)))
    if sum(sizes) <= BATCH_BYTES:
        return [range(first, min(first + length, count)) for first in range(0, count, length)]
    cut: list[range] = []
    bytes_in = 0
    for place, size in enumerate(sizes):
        if not cut or len(cut[-1]) >= length or bytes_in + size > BATCH_BYTES:
            cut.append(range(place, place))
            bytes_in = 0
        cut[-1] = range(cut[-1].start, place + 1)
        bytes_in += size
    return cut


def cost(objects: int, size: int, batch: int) -> float:
    """The part of a full batch that a claim of so many objects and bytes is. Many small claims are no more work
    than few full ones; a large file is a batch by itself."""
    return max(objects / batch, size / BATCH_BYTES)
