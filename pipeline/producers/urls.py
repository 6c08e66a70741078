"""Lists of URLs and manifests as they change: asked for more often than a pass is made, by conditional requests.

A line that comes or goes is noticed here; what its file holds is for passes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from pipeline.config import Source
from pipeline.events import EventKind, ObjectEvent, new_id
from pipeline.producers import Notices
from pipeline.stores.http import HttpStore
from pipeline.stores.http.lists import Lines
from pipeline.stores.scope import Scope

LOCAL_SECONDS = 0.2
"""How often a list in a local file is looked at."""
REMOTE_SECONDS = 5.0
"""How often a list is asked for, at most ..."""
LOOKS_PER_POLL = 6
"""... and in the time from one pass to the next."""
STOP_SECONDS = 0.1
EVENTS_LIMIT = 1000
"""Changes that are given together."""


class UrlsProducer:
    """Notices lines that come and go. One URL has no list: there only passes do.

    `pause` is how many seconds pass from one look at the list to the next, if not as above.
    """

    def __init__(self, source: Source, store: HttpStore, scope: Scope, pause: float | None = None) -> None:
        self._name = source.name
        self._store = store
        self._scope = scope
        remote = urlsplit(source.url).scheme.lower() in ("http", "https")
        often = max(REMOTE_SECONDS, source.poll / LOOKS_PER_POLL) if remote else LOCAL_SECONDS
        self._pause = often if pause is None else pause

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`."""
        known = self._store.listed()
        yield Notices(lost=True)
        while _rested(stop, self._pause):
            if known is None:
                continue
            now = self._store.listed()
            if now is not None and now is not known:
                yield from self._changes(known, now)
                known = now

    def _changes(self, before: Lines, after: Lines) -> Iterator[Notices]:
        old, new = set(before.keys), set(after.keys)
        came = [
            *sorted(new - old),
            *(key for key in sorted(new & old) if before.targets.get(key) != after.targets.get(key)),
        ]
        yield from self._told(came, "created")
        yield from self._told(sorted(old - new), "deleted")

    def _told(self, keys: Sequence[str], kind: EventKind) -> Iterator[Notices]:
        ours = [key for key in keys if self._scope.covers(key)]
        for start in range(0, len(ours), EVENTS_LIMIT):
            now = time.time()
            part = ours[start : start + EVENTS_LIMIT]
            yield Notices([self._event(key, kind, now) for key in part])

    def _event(self, key: str, kind: EventKind, now: float) -> ObjectEvent:
        return ObjectEvent(self._name, key, kind, discovered_by="notification", time=now, id=new_id())


def _rested(stop: threading.Event, seconds: float) -> bool:
    """Wait; whether to go on."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stop.wait(min(left, STOP_SECONDS)):
            return False
    return not stop.is_set()
