"""Objects that somebody was still writing when they were listed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from pipeline import logs
from pipeline.config import Source

ROUNDS = 10
"""What is never settled is waited for this many times `settle`."""
LOOKS = 5
"""How often in each of these times."""

_log = logging.getLogger(__name__)


class Unsettled:
    """The `keys` of such objects of one source."""

    def __init__(self, source: Source) -> None:
        self.keys: list[str] = []
        self._source = source

    def settle(self, again: Callable[[Sequence[str]], None], stop: threading.Event) -> int:
        """Wait until they rest; how many never did. `again` looks at objects, and adds to `keys` what is still being
        written."""
        settle = self._source.settle
        deadline = time.monotonic() + ROUNDS * settle
        while self.keys and not stop.is_set():
            waiting, self.keys = self.keys, []
            again(waiting)
            if self.keys and time.monotonic() > deadline:
                left, self.keys = self.keys, []
                extra = {"source": self._source.name, "objects": len(left), "first": left[0]}
                _log.warning(logs.OBJECTS_UNSETTLED, extra=extra)
                return len(left)
            if self.keys:
                stop.wait(settle / LOOKS)
        return 0
