"""Notifications of Google Cloud Storage from a Pub/Sub subscription, by streaming pull.

A message is acknowledged only after the event log has its events; while it waits it is kept from others. What can't
be read goes to the dead letters, or, where there are none, is left to the subscription's own dead-letter policy.

Several sources may name one subscription: then each must be given a route that knows all of them, as whoever receives
a message publishes all of its events.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import orjson
from google.api_core.exceptions import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    GoogleAPICallError,
    InternalServerError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceUnavailable,
    Unknown,
)
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.pubsub_v1 import SubscriberClient
from google.cloud.pubsub_v1.types import StreamingPullRequest, StreamingPullResponse

from pipeline.config import Source
from pipeline.errors import RetriableError, UnavailableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent, refusal, usable
from pipeline.notifications import Route, Target
from pipeline.notifications.gcs import decode_message, to_document
from pipeline.producers import Notices
from pipeline.producers.letters import Bury, putting_aside
from pipeline.stores.gcs import GcsStore
from pipeline.stores.scope import Scope

EMULATOR = "PUBSUB_EMULATOR_HOST"
BATCH = 1000
"""Messages that are published together."""
OUTSTANDING = 4000
"""Messages that the server gives us before it has heard of them again."""
ACKNOWLEDGED = 500
"""Messages that one request acknowledges or extends; Pub/Sub takes 512 KiB of their ids."""
DEADLINE_SECONDS = 60
"""How long a message is kept from others; it is extended at a third of it."""
WAIT_SECONDS = 0.5
"""How often a resting stream looks whether it is to end."""
HEARTBEAT_SECONDS = 25.0
"""A stream that is silent for longer is closed by the server."""
REOPEN_SECONDS = 1.0
"""A stream that the server has closed, as it does now and then, is opened again after this."""
REQUEST_SECONDS = 10.0
EXCERPT = 500

_NAME = re.compile(r"(?:pubsub://)?(?:projects/)?([^/\s]+)/(?:subscriptions/)?([^/\s]+)")
_PASSING = (Aborted, Cancelled, DeadlineExceeded, InternalServerError, ServiceUnavailable, Unknown)

_log = logging.getLogger(__name__)


class _Message(NamedTuple):
    id: str
    receipt: str
    attributes: Mapping[str, str]
    data: bytes


class PubSubProducer:
    """`pipeline.producers.Producer` over the subscription that the source's `notifications` names:
    `projects/P/subscriptions/S` or `pubsub://P/S`."""

    def __init__(
        self, source: Source, store: GcsStore, scope: Scope, route: Route | None = None, bury: Bury | None = None
    ) -> None:
        self._source = source
        self._store = store
        self._scope = scope
        self._route = route or self._own
        self._bury = bury
        self._subscription = _subscription(source)
        self._client = _client(source, store)
        self._held = _Held()

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`. The subscription keeps what happens meanwhile; what was before is for a pass."""
        self._look()
        ended = threading.Event()
        extender = threading.Thread(target=self._extend, args=(ended,), name=f"extend-{self._source.name}", daemon=True)
        extender.start()
        try:
            yield Notices(lost=True)
            while not stop.is_set():
                yield from self._streamed(stop)
        finally:
            ended.set()
            extender.join()
            self._give_back(self._held.all())

    def ping(self) -> str:
        """What was found; raises UnavailableError where it isn't for us. No message is taken."""
        self._look()
        return f"{self._subscription} answers"

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # --- messages ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Raises UnavailableError where there is no such subscription, or it isn't for us.

        What is asked, to extend no messages, is refused of a subscription that is there, and needs no other
        permission than the one to consume it.
        """
        with self._asking(), suppress(InvalidArgument):
            self._set_deadline([], 0)

    def _streamed(self, stop: threading.Event) -> Iterator[Notices]:
        """What one stream gives, until it or the producer ends."""
        stream = _Stream(self._client, self._subscription, self._held)
        try:
            with self._asking():
                while not stop.is_set():
                    messages = stream.take()
                    if messages:
                        yield self._noticed(messages)
        except _Closed:
            stop.wait(REOPEN_SECONDS)
            self._look()
        finally:
            self._give_back(stream.close())

    def _noticed(self, messages: Sequence[_Message]) -> Notices:
        events: list[ObjectEvent] = []
        letters: list[UndecodableEvent] = []
        read: list[_Message] = []
        for message in messages:
            found, reason = self._read(message)
            events += [event._replace(id=message.id) for event in found]
            if reason is None or self._put_aside(message, reason, letters):
                read.append(message)
        return Notices(events, lambda: self._acknowledge(read), put_aside=putting_aside(self._bury, letters))

    def _read(self, message: _Message) -> tuple[list[ObjectEvent], str | None]:
        """The events in a message that can be kept, and why not all that it tells of can; None where all can."""
        try:
            return usable(decode_message(message.attributes, message.data, self._route))
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001 - the outer boundary of a message: else it came for ever
            return [], refusal(error)

    def _put_aside(self, message: _Message, reason: str, letters: list[UndecodableEvent]) -> bool:
        """Whether a message that can't be read may be acknowledged: it is among the dead letters by then, or can't be
        kept."""
        body = orjson.dumps(to_document(message.attributes, message.data))
        if self._bury is not None:
            letters.append(UndecodableEvent(body, reason))
            return True
        if self._has_dead_letters():
            self._held.drop([message])
            return False
        extra = {"source": self._source.name, "reason": reason, "body": body[:EXCERPT].decode(errors="replace")}
        _log.error("a message that cannot be read is dropped: the subscription has no dead-letter policy", extra=extra)
        return True

    def _has_dead_letters(self) -> bool:
        """Whether the subscription has a dead-letter policy, as far as we may know."""
        with self._asking():
            try:
                found = self._client.get_subscription(
                    request={"subscription": self._subscription}, timeout=REQUEST_SECONDS
                )
            except PermissionDenied:
                return False
        return bool(found.dead_letter_policy.dead_letter_topic)

    def _acknowledge(self, messages: Sequence[_Message]) -> None:
        """Raises UnavailableError: then they may come again."""
        self._held.drop(messages)
        for receipts in _chunks(messages):
            request = {"subscription": self._subscription, "ack_ids": receipts}
            with self._asking():
                self._client.acknowledge(request=request, timeout=REQUEST_SECONDS)

    def _extend(self, ended: threading.Event) -> None:
        while not ended.wait(DEADLINE_SECONDS / 3):
            with suppress(GoogleAPICallError, GoogleAuthError):
                for receipts in _chunks(self._held.all()):
                    self._set_deadline(receipts, DEADLINE_SECONDS)

    def _give_back(self, messages: Sequence[_Message]) -> None:
        """Let others have at once what was received and not settled."""
        self._held.drop(messages)
        with suppress(GoogleAPICallError, GoogleAuthError):
            for receipts in _chunks(messages):
                self._set_deadline(receipts, 0)

    def _set_deadline(self, receipts: Sequence[str], seconds: int) -> None:
        request = {"subscription": self._subscription, "ack_ids": receipts, "ack_deadline_seconds": seconds}
        self._client.modify_ack_deadline(request=request, timeout=REQUEST_SECONDS, retry=None)

    # --- where to ----------------------------------------------------------------------------------------------

    def _own(self, bucket: str, key: str) -> Sequence[Target]:
        mine = self._store.concerns(bucket, key)
        if mine is None or not self._scope.covers(mine):
            return ()
        return (Target(self._source.name, mine),)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        where = f"the subscription of {self._source.name}"
        try:
            yield
        except NotFound:
            raise UnavailableError(f"{where}: there is no {self._subscription}") from None
        except PermissionDenied:
            raise UnavailableError(
                f"{where}: Google denies us {self._subscription}; grant roles/pubsub.subscriber on it",
                code="permission",
            ) from None
        except GoogleAPICallError as error:
            raise UnavailableError(f"{where} answers {type(error).__name__}") from None
        except GoogleAuthError as error:
            raise UnavailableError(f"{where}: Google gives us no token ({type(error).__name__})") from None


class _Closed(Exception):
    """The server has closed the stream; another one may be opened."""


class _Stream:
    """One streaming pull. A thread of its own reads it; what comes is held until it is settled or given back."""

    def __init__(self, client: Any, subscription: str, held: _Held) -> None:
        self._held = held
        self._closed = threading.Event()
        self._arrived: queue.SimpleQueue[list[_Message] | Exception] = queue.SimpleQueue()
        self._first = StreamingPullRequest(
            subscription=subscription,
            stream_ack_deadline_seconds=DEADLINE_SECONDS,
            max_outstanding_messages=OUTSTANDING,
            client_id=uuid.uuid4().hex,
        )
        self._call = client.streaming_pull(requests=self._requests())
        self._thread = threading.Thread(target=self._read, name=f"pull-{subscription}", daemon=True)
        self._thread.start()

    def take(self) -> list[_Message]:
        """Messages that have come; none after WAIT_SECONDS without any. Raises _Closed and GoogleAPICallError."""
        messages: list[_Message] = []
        with suppress(queue.Empty):
            messages += self._next(WAIT_SECONDS)
            while len(messages) < BATCH:
                messages += self._next(0)
        return messages

    def _next(self, wait: float) -> list[_Message]:
        found = self._arrived.get(timeout=wait) if wait else self._arrived.get_nowait()
        if isinstance(found, Exception):
            # Asked again, it says the same.
            self._arrived.put(found)
            raise found
        return found

    def close(self) -> list[_Message]:
        """End it; gives what has come and was not taken."""
        self._closed.set()
        self._call.cancel()
        self._thread.join()
        left: list[_Message] = []
        while not self._arrived.empty():
            found = self._arrived.get()
            left += [] if isinstance(found, Exception) else found
        return left

    def _requests(self) -> Iterator[StreamingPullRequest]:
        yield self._first
        while not self._closed.wait(HEARTBEAT_SECONDS):
            yield StreamingPullRequest()

    def _read(self) -> None:
        try:
            for response in self._call:
                messages = [_message(row) for row in StreamingPullResponse.pb(response).received_messages]
                self._held.add(messages)
                self._arrived.put(messages)
            self._arrived.put(_Closed())
        except _PASSING:
            self._arrived.put(_Closed())
        except (GoogleAPICallError, GoogleAuthError) as error:
            self._arrived.put(error)


def _message(row: Any) -> _Message:
    return _Message(row.message.message_id, row.ack_id, dict(row.message.attributes), row.message.data)


class _Held:
    """Messages that were received and neither acknowledged nor given back. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: dict[str, _Message] = {}

    def add(self, messages: Sequence[_Message]) -> None:
        with self._lock:
            self._messages.update((message.receipt, message) for message in messages)

    def drop(self, messages: Sequence[_Message]) -> None:
        with self._lock:
            for message in messages:
                self._messages.pop(message.receipt, None)

    def all(self) -> list[_Message]:
        with self._lock:
            return list(self._messages.values())


def _chunks(messages: Sequence[_Message]) -> Iterator[list[str]]:
    for at in range(0, len(messages), ACKNOWLEDGED):
        yield [message.receipt for message in messages[at : at + ACKNOWLEDGED]]


def _subscription(source: Source) -> str:
    if not source.notifications:
        raise UsageError(f"source {source.name}: `notifications` names no subscription")
    found = _NAME.fullmatch(source.notifications)
    if found is None:
        raise UsageError(
            f"source {source.name}: `notifications` names no subscription; write projects/P/subscriptions/S"
        )
    return f"projects/{found[1]}/subscriptions/{found[2]}"


def _client(source: Source, store: GcsStore) -> Any:
    named = {} if store.options.unsigned or os.environ.get(EMULATOR) else {"credentials": store.credentials}
    try:
        return SubscriberClient(**named)
    except DefaultCredentialsError:
        raise UsageError(f"source {source.name}: no Google credentials found for its subscription") from None
