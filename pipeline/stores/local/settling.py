"""When a file is finished: nobody tells us, so its times must.

A file is settled when nothing about it has changed for `settle` seconds. The clock for that is the time of
its last change of content or attributes (`ctime`), which no program can set, unlike `mtime`. The clock of
a file server must agree with this machine's to within `settle`.

It is settled at once when that time is later than the time of its last write: it was renamed, linked or given
its times after it was written, which is how finished files are put into place.

A file that changed in a moment yet to come, as after the clock was set back, is settled once it was seen
unchanged for `settle`.
"""

from __future__ import annotations

import os
import threading
import time

COARSE_NS = 2_000_000_000
"""Where times of writing are whole seconds, those of attributes must be later by more than this to say anything."""
OBSERVED_LIMIT = 10_000
"""Files from the future of which is remembered when they were first seen as they are."""


class Settling:
    """Judges files by their status. Thread-safe. `settle` in seconds."""

    def __init__(self, settle: float) -> None:
        self.seconds = settle
        self.nanoseconds = int(settle * 1e9)
        self._observed: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def settled(self, key: str, version: str, status: os.stat_result, now_ns: int) -> bool:
        """Whether this version of the file is finished, as of `now_ns`."""
        changed = status.st_ctime_ns
        if now_ns - changed >= self.nanoseconds:
            return True
        # Who creates a file and then sets its mode has written nothing yet: an empty file waits.
        if status.st_size and _put_into_place(status):
            return True
        return changed > now_ns and self._seen_long(key, version)

    def _seen_long(self, key: str, version: str) -> bool:
        now = time.monotonic()
        with self._lock:
            seen, since = self._observed.get(key, ("", now))
            if seen != version:
                since = now
            self._observed[key] = (version, since)
            if len(self._observed) > OBSERVED_LIMIT:
                del self._observed[next(iter(self._observed))]
        return now - since >= self.seconds


def _put_into_place(status: os.stat_result) -> bool:
    written = status.st_mtime_ns
    coarse = written % 1_000_000_000 == 0
    return status.st_ctime_ns - written > (COARSE_NS if coarse else 0)
