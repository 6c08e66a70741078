"""Which objects of ours a store's own notification concerns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from pipeline.errors import LabelfeedError
from pipeline.notifications import Route, Target
from pipeline.stores import Store
from pipeline.waiting import our_error

ANSWER_SECONDS = 1.0
"""How long a route waits in all for stores that are asked about their versions: it is followed while the log is polled,
and each of many sources may be of a store that does not answer."""
AGAIN_SECONDS = 30.0
"""A store that could not say is asked again no sooner."""


class _Read(Protocol):
    """What a route needs of a source that is ready to be read."""

    @property
    def store(self) -> Store:
        """Its store."""


def route_of(feeds: Mapping[str, _Read]) -> Route:
    """Which objects of which sources a store's own notification concerns. Thread-safe, and never waits for long."""
    asked: dict[str, _ByVersionId] = {}
    waiting = _Waiting()

    def route(bucket: str, key: str) -> Iterator[Target]:
        for name, feed in feeds.items():
            concerns = getattr(feed.store, "concerns", None)
            ours = concerns(bucket, key) if concerns is not None else None
            if ours is not None:
                by_version_id = asked.get(name) or asked.setdefault(name, _ByVersionId(feed.store, waiting))
                yield Target(name, ours, by_version_id=by_version_id.known())

    return route


class _Waiting:
    """The time that may be spent on waiting for stores, one after another. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = ANSWER_SECONDS

    def join(self, asking: threading.Thread) -> None:
        """Wait for the end of a thread while there is time left."""
        with self._lock:
            began = time.monotonic()
            asking.join(max(0.0, self._left))
            self._left -= time.monotonic() - began


class _ByVersionId:
    """Whether a store names contents by version ids; while it does not answer, yes: then an event without one names no
    version, and the importer asks the store. It is asked by a thread, as it may take minutes to find out that nobody
    answers, and once it has answered no more. It is waited for only when it is asked for the first time."""

    def __init__(self, store: Store, waiting: _Waiting) -> None:
        self._store = store
        self._waiting = waiting
        self._lock = threading.Lock()
        self._answer: bool | None = None
        self._asked_at = float("-inf")
        self._asking: threading.Thread | None = None

    def known(self) -> bool:
        """What the store said, if it did so by now."""
        if self._answer is None:
            asking = self._ask()
            if asking is not None:
                self._waiting.join(asking)
        return self._answer is not False

    def _ask(self) -> threading.Thread | None:
        """Begin to ask if it is time to; gives the thread that asks where it is the first one."""
        with self._lock:
            now, before = time.monotonic(), self._asking
            if (before is not None and before.is_alive()) or now - self._asked_at < AGAIN_SECONDS:
                return None
            self._asked_at = now
            self._asking = threading.Thread(target=self._find_out, name="ask-versions", daemon=True)
            self._asking.start()
            return self._asking if before is None else None

    def _find_out(self) -> None:
        try:
            self._answer = bool(getattr(self._store, "versioned", False))
        except LabelfeedError:
            """It is asked again before long; that it does not answer is told where it is listed and read."""
        except Exception as error:  # noqa: BLE001 - the outer boundary of this thread: the store is asked again
            our_error(error)
