"""Whose turn it is to read from a store that has no latency."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

FLOOR_SECONDS = 0.25
"""How long a turn is waited for before one reads beside whoever has it."""


class Turn:
    """Lets one thread at a time read many small things from a store without latency.

    Python runs one thread at a time, and a thread lets go of its lock at every call of the system. Two that read small
    files took it from each other at nearly each call: 160,000 changes of threads for 20,000 files, and half as much
    processor time again. While one has its turn others compute, or wait for the database. Where reading is slow, as
    from a disk far away, nobody waits longer than FLOOR_SECONDS.

    A context manager, entered by one thread: `floor` is the lock that all share, None where no turn is needed.
    """

    def __init__(self, floor: threading.Lock | None) -> None:
        self._floor = floor
        self._has = False

    def __enter__(self) -> Self:
        self._has = self._floor is not None and self._floor.acquire(timeout=FLOOR_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Let others read: what comes now takes long."""
        if self._has and self._floor is not None:
            self._has = False
            self._floor.release()
