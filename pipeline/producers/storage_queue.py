"""Azure's blob events from a storage queue, as Event Grid puts them there.

A message is deleted only after the event log has its events; while it waits it is kept from others. What can't be
read goes to the dead letters; storage queues have none of their own.

Several sources may name one queue: then each must be given a route that knows all of them, as whoever receives a
message publishes all of its events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.queue import ExponentialRetry, QueueClient

from pipeline.config import Source
from pipeline.errors import RetriableError, UnavailableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent, new_id, refusal, usable
from pipeline.notifications import Route, Target, decode
from pipeline.notifications.azure import folders, unwrapped
from pipeline.producers import Notices
from pipeline.producers.letters import Bury, putting_aside
from pipeline.stores.azure import AzureStore
from pipeline.stores.azure.failures import code_of
from pipeline.stores.scope import Scope

BATCH = 32
"""A storage queue gives no more messages at once."""
MORE = 7
"""Requests for further messages, all at once, when the first one was answered in full."""
WAIT_SECONDS = 0.5
"""How long an empty queue is left alone: it doesn't wait for messages itself. Also how long the end is waited for."""
VISIBILITY_SECONDS = 60
"""How long a message is kept from others; it is extended at a third of it."""
CONNECT_SECONDS = 5
REQUEST_SECONDS = 10
ATTEMPTS = 2
"""Azure's client waits two seconds between them; the runner tries again after that."""
EXCERPT = 500
ROLE = "the role Storage Queue Data Message Processor on the queue, or a signature with read, update and process"

_DENIED = frozenset({"AuthorizationFailure", "AuthorizationPermissionMismatch", "AuthenticationFailed", "403", "401"})
_TAKEN = frozenset({"MessageNotFound", "PopReceiptMismatch"})
"""Somebody else has the message, as we kept it for too long: it comes again, which does no harm."""
_NO_SUCH_MESSAGE = frozenset({"MessageNotFound", "PopReceiptMismatch", "InvalidQueryParameterValue"})
_log = logging.getLogger(__name__)


class _Message:
    """A received message. Its receipt changes whenever it is extended, so that both go by its lock."""

    __slots__ = ("body", "id", "lock", "receipt")

    def __init__(self, identity: str, receipt: str, body: str) -> None:
        self.id = identity
        self.receipt = receipt
        self.body = body
        self.lock = threading.Lock()


class _Said(NamedTuple):
    """The events in a message that can be kept, why not all that it tells of can (None where all can), and whether it
    tells of a whole folder."""

    events: list[ObjectEvent]
    reason: str | None
    of_folder: bool = False


class StorageQueueProducer:
    """`pipeline.producers.Producer` over the queue that the source's `notifications` names: its URL, or its name."""

    def __init__(
        self, source: Source, store: AzureStore, scope: Scope, route: Route | None = None, bury: Bury | None = None
    ) -> None:
        if not source.notifications:
            raise UsageError(f"source {source.name}: `notifications` names no queue")
        self._source = source
        self._store = store
        self._scope = scope
        self._route = route or self._own
        self._bury = bury
        self._client = _client(source.notifications, store)
        self._held: dict[str, _Message] = {}
        self._lock = threading.Lock()

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`. The queue keeps what happens while nobody asks; what was before is for a pass."""
        ended = threading.Event()
        with ThreadPoolExecutor(MORE, thread_name_prefix=f"queue-{self._source.name}") as pool:
            extender = threading.Thread(
                target=self._extend, args=(ended, pool), name=f"extend-{self._source.name}", daemon=True
            )
            extender.start()
            try:
                yield Notices(lost=True)
                while not stop.is_set():
                    messages = self._receive(pool)
                    if messages:
                        yield self._noticed(messages, pool)
                    else:
                        stop.wait(WAIT_SECONDS)
            finally:
                ended.set()
                extender.join()
                self._set_visibility(pool, 0)

    def ping(self) -> str:
        """What was found; raises UnavailableError where it isn't for us.

        What is asked, to delete a message that never was, takes the same permission as to receive one.
        """
        with self._asking():
            try:
                self._client.delete_message(new_id(), "-")
            except HttpResponseError as error:
                if code_of(error) not in _NO_SUCH_MESSAGE:
                    raise
        return f"the queue {self._client.queue_name} answers"

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # --- messages ----------------------------------------------------------------------------------------------

    def _receive(self, pool: ThreadPoolExecutor) -> list[_Message]:
        with self._asking():
            messages = self._ask()
            if len(messages) == BATCH:
                for more in pool.map(lambda _: self._ask(), range(MORE)):
                    messages += more
        return messages

    def _ask(self) -> list[_Message]:
        rows = self._client.receive_messages(
            messages_per_page=BATCH, max_messages=BATCH, visibility_timeout=VISIBILITY_SECONDS
        )
        found = [_Message(row.id, row.pop_receipt or "", row.content) for row in rows]
        with self._lock:
            self._held.update((message.id, message) for message in found)
        return found

    def _noticed(self, messages: Sequence[_Message], pool: ThreadPoolExecutor) -> Notices:
        events: list[ObjectEvent] = []
        letters: list[UndecodableEvent] = []
        lost = False
        for message in messages:
            found, reason, of_folder = self._read(message)
            events += [event._replace(id=new_id()) for event in found]
            lost = lost or of_folder
            if reason is not None:
                self._put_aside(message, reason, letters)
        return Notices(events, lambda: self._delete(messages, pool), lost, putting_aside(self._bury, letters))

    def _read(self, message: _Message) -> _Said:
        try:
            body = unwrapped(message.body)
            events, reason = usable(decode(body, self._route))
            return _Said(events, reason, not events and self._store.options.bucket in folders(body))
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001 - the outer boundary of a message: else it came for ever
            return _Said([], refusal(error))

    def _put_aside(self, message: _Message, reason: str, letters: list[UndecodableEvent]) -> None:
        """Add what can't be read to the dead letters; drop it aloud where there are none."""
        if self._bury is not None:
            letters.append(UndecodableEvent(message.body.encode(), reason))
            return
        extra = {"source": self._source.name, "reason": reason, "body": message.body[:EXCERPT]}
        _log.error("a message that cannot be read is dropped: there are no dead letters", extra=extra)

    def _delete(self, messages: Sequence[_Message], pool: ThreadPoolExecutor) -> None:
        """Raises UnavailableError: then they may come again."""
        with self._lock:
            for message in messages:
                self._held.pop(message.id, None)
        with self._asking():
            for _ in pool.map(self._delete_one, messages):
                """Wait for all, and hear of what failed."""

    def _delete_one(self, message: _Message) -> None:
        with message.lock:
            try:
                self._client.delete_message(message.id, message.receipt)
            except HttpResponseError as error:
                if code_of(error) not in _TAKEN:
                    raise

    def _extend(self, ended: threading.Event, pool: ThreadPoolExecutor) -> None:
        while not ended.wait(VISIBILITY_SECONDS / 3):
            self._set_visibility(pool, VISIBILITY_SECONDS)

    def _set_visibility(self, pool: ThreadPoolExecutor, seconds: int) -> None:
        """Keep what is held for so long; with 0, let others have at once what was received and not settled."""
        with self._lock:
            messages = list(self._held.values())
            if not seconds:
                self._held.clear()
        list(pool.map(lambda message: self._keep(message, seconds), messages))

    def _keep(self, message: _Message, seconds: int) -> None:
        with message.lock:
            if seconds and message.id not in self._held:
                return
            try:
                updated = self._client.update_message(message.id, message.receipt, visibility_timeout=seconds)
            except AzureError:
                """Its time ends then, and it comes again."""
            else:
                message.receipt = updated.pop_receipt or message.receipt

    # --- where to ----------------------------------------------------------------------------------------------

    def _own(self, bucket: str, key: str) -> Sequence[Target]:
        mine = self._store.concerns(bucket, key)
        if mine is None or not self._scope.covers(mine):
            return ()
        return (Target(self._source.name, mine),)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        name = self._source.name
        try:
            yield
        except ResourceNotFoundError as error:
            raise UnavailableError(f"the queue of {name} is not there ({code_of(error)})") from None
        except HttpResponseError as error:
            code = code_of(error)
            if code in _DENIED:
                told = f"the queue of {name} answers {code}; it takes {ROLE}"
                raise UnavailableError(told, code="permission") from None
            raise UnavailableError(f"the queue of {name} answers {code}") from None
        except AzureError as error:
            raise UnavailableError(f"the queue of {name} does not answer: {type(error).__name__}") from None


def _client(named: str, store: AzureStore) -> QueueClient:
    """The queue of this URL or, in the store's own account, of this name. Raises UsageError if the URL names none."""
    address = named if named.startswith(("http://", "https://")) else f"{store.options.queues}/{named}"
    place, _, name = address.partition("?")[0].rstrip("/").rpartition("/")
    if "sig=" in address or place.count("/") < 2:  # noqa: PLR2004 - those of the scheme
        raise UsageError(f"`notifications` is no queue's URL, or holds a signature: {place}/{name}")
    return QueueClient(
        place,
        name,
        credential=store.credentials.sdk,
        retry_policy=ExponentialRetry(0, 2, ATTEMPTS - 1, random_jitter_range=1),
        connection_timeout=CONNECT_SECONDS,
        read_timeout=REQUEST_SECONDS,
    )
