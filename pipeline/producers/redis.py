"""Keyspace notifications of Redis, which tell of changed strings and hashes as they happen.

The server tells whoever listens, and nobody afterwards. So whenever the connection was lost (a slow listener's is cut
by the server itself), changes may have been missed, and a pass is due. Nor does it tell of a database that was
emptied by FLUSHALL or FLUSHDB: passes find that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import redis

from pipeline.config import Source
from pipeline.errors import UnavailableError
from pipeline.events import EventKind, ObjectEvent, check_key, new_id
from pipeline.producers import Notices
from pipeline.stores.redis import RedisStore
from pipeline.stores.redis.access import asking_all, client
from pipeline.stores.redis.notifying import SETTING, advice, escaped, flags, missing
from pipeline.stores.scope import Scope

GATHER_SECONDS = 0.05
"""Changes that come within this time of each other are noticed together ..."""
GATHER_EVENTS = 1000
"""... but no more than so many."""
LISTEN_SECONDS = 0.5
SILENCE_SECONDS = 5.0
"""After so long without a word the server is asked whether it is there ..."""
PATIENCE_SECONDS = 10.0
"""... and is given so long to answer."""

_GONE = frozenset({b"del", b"expired", b"evicted", b"rename_from", b"move_from"})
_QUIET = frozenset({b"expire", b"persist", b"new"})
"""What changes no value."""


class RedisProducer:
    """`pipeline.producers.Producer` over the keyspace notifications of a source's database."""

    def __init__(self, source: Source, store: RedisStore, scope: Scope) -> None:
        self._source = source
        self._store = store
        self._scope = scope
        options = store.options
        self._uri = options.canonical
        self._channel = f"__keyspace@{options.db}__:".encode()
        self._pattern = self._channel + escaped(options.prefix.encode()) + b"*"
        self._client = client(options, retries=0)

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`. Raises UnavailableError also where the server notifies of nothing."""
        with asking_all(f"{self._uri} (notifications)"), closing(self._listening()) as listening:
            self._check()
            listening.psubscribe(self._pattern)
            heard = _Heard(listening, self._uri)
            while heard.next(LISTEN_SECONDS, "psubscribe") is None:
                if stop.is_set():
                    return
            yield Notices(lost=True)
            while not stop.is_set():
                events = self._gather(heard)
                if events:
                    yield Notices(list(events.values()))

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _listening(self) -> redis.client.PubSub:
        listening: redis.client.PubSub = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis has no type here
        return listening

    def _check(self) -> None:
        """See that the server notifies of what we need; switch it on where we are allowed to."""
        found = flags(self._client)
        lacking = missing(found) if found is not None else ""
        if not lacking:
            return
        if self._store.options.notify != "set":
            raise UnavailableError(f"{self._uri} does not notify of all changes: {advice(found or '')}")
        self._client.config_set(SETTING, (found or "") + lacking)

    def _gather(self, heard: _Heard) -> dict[str, ObjectEvent]:
        """The changes of the next moment, the last one of each key."""
        events: dict[str, ObjectEvent] = {}
        deadline: float | None = None
        while deadline is None or (len(events) < GATHER_EVENTS and time.monotonic() < deadline):
            wait = LISTEN_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            message = heard.next(wait, "pmessage")
            event = self._event(message) if message is not None else None
            if event is not None:
                events.pop(event.key, None)
                events[event.key] = event
            if message is None and deadline is None:
                break
            deadline = deadline or time.monotonic() + GATHER_SECONDS
        return events

    def _event(self, message: dict[str, Any]) -> ObjectEvent | None:
        what, raw = message["data"], message["channel"][len(self._channel) :]
        key = self._store.key_of(raw)
        if what in _QUIET or key is None or check_key(key) is not None or not self._scope.covers(key):
            return None
        kind: EventKind = "deleted" if what in _GONE else "updated"
        now = time.time()
        return ObjectEvent(self._source.name, key, kind, discovered_by="notification", time=now, id=new_id())


class _Heard:
    """What a subscription hears, and whether its server is still there."""

    def __init__(self, listening: redis.client.PubSub, uri: str) -> None:
        self._listening = listening
        self._uri = uri
        self._last = time.monotonic()
        self._asked: float | None = None

    def next(self, seconds: float, kind: str) -> dict[str, Any] | None:
        """The next message of a kind, if it comes in time. Raises UnavailableError if the server is silent."""
        message: dict[str, Any] | None = self._listening.get_message(timeout=seconds)
        now = time.monotonic()
        if message is not None:
            self._last, self._asked = now, None
            return message if message["type"] == kind else None
        if self._asked is not None and now - self._asked > PATIENCE_SECONDS:
            raise UnavailableError(f"{self._uri} does not answer (notifications)")
        if self._asked is None and now - self._last > SILENCE_SECONDS:
            self._listening.ping()
            self._asked = now
        return None
