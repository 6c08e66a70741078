"""How changes are noticed: by listing (`listing`), which is certain, and by producers, which are quick.

A producer tells of changes as they happen; whatever it misses, the next pass finds. It does nothing but
notice: `runner` publishes, retries, counts and logs for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.events import ObjectEvent


def nothing_to_settle() -> None:
    """For notices that nobody needs to be told of, or that nothing has to be put aside of."""


@dataclass(frozen=True, slots=True)
class Notices:
    """Changes that were noticed together.

    `put_aside` puts among the dead letters, durably, what of them can't be read. It is called behind the events,
    and again until it raises no LabelfeedError.
    `settle` is called once the event log has all of that, and not at all if it never gets it: it
    acknowledges them to whoever sent them, and may raise RetriableError, after which they may come again.
    `lost` says that changes may have been missed until now, so that a pass is due at once.
    """

    events: Sequence[ObjectEvent] = ()
    settle: Callable[[], None] = nothing_to_settle
    lost: bool = False
    put_aside: Callable[[], None] = nothing_to_settle


class Producer(Protocol):
    """Notices changes of one source as they happen. Used by one thread."""

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """Changes from now on, until `stop` is set, which ends it within a second.

        The first notices are given as soon as no later change can be missed, and are `lost`: what was before
        is for a pass. Raises RetriableError where noticing does not work now; it may be called again then.
        """
