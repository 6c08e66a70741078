"""Notifications that can't be read, on their way among the event log's dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.events import UndecodableEvent
from pipeline.producers import nothing_to_settle

Bury = Callable[[Sequence[UndecodableEvent]], None]
"""Puts aside, durably, what can't be read. Raises LabelfeedError."""


def putting_aside(bury: Bury | None, letters: Sequence[UndecodableEvent]) -> Callable[[], None]:
    """What `Notices.put_aside` is for these letters; a log without dead letters has none."""
    if bury is None or not letters:
        return nothing_to_settle
    return lambda: bury(letters)
