"""The end of a process, whoever still waits for a server: Python joins such threads after all that counts was done."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, Timer

DRAIN_SECONDS = 5.0
"""How much longer than `shutdown_timeout` roles may take to end: what then still waits for a server is left."""
EXIT_SECONDS = 1.0
"""How long Python may take to end once a command has."""


@contextmanager
def at_the_latest(stop: Event, seconds: float) -> Iterator[None]:
    """End the process `seconds` after `stop` was set if the block has not ended by then. Leases and leads that were not
    given back end by themselves."""
    ended = Event()

    def watch() -> None:
        stop.wait()
        if not ended.wait(seconds):
            _leave(0)

    Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def leave_soon(code: int) -> None:
    """See to it that the process ends within EXIT_SECONDS."""
    timer = Timer(EXIT_SECONDS, _leave, (code,))
    timer.daemon = True
    timer.start()


def _leave(code: int) -> None:
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
