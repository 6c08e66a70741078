"""S3 notifications from an SQS queue, as S3 itself, SNS or EventBridge put them there.

A message is deleted only after the event log has its events; while it waits it is kept from others. What can't be
read goes to the dead letters, or, where there are none, is left to the queue's own redrive policy.

Several sources may name one queue: then each must be given a route that knows all of them, as whoever receives a
message publishes all of its events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.config import Source
from pipeline.errors import RetriableError, UnavailableError, UsageError
from pipeline.events import ObjectEvent, UndecodableEvent, new_id, refusal, usable
from pipeline.notifications import Route, Target, decode
from pipeline.producers import Notices
from pipeline.producers.letters import Bury, putting_aside
from pipeline.stores.s3 import S3Store
from pipeline.stores.s3.access import region, session
from pipeline.stores.s3.options import parse
from pipeline.stores.scope import Scope

BATCH = 10
"""SQS gives, deletes and extends no more messages at once."""
MORE = 7
"""Requests for further messages, all at once, when the first one was answered in full."""
WAIT_SECONDS = 1
"""How long a request waits for a message; it is also how long the end is waited for."""
VISIBILITY_SECONDS = 60
"""How long a message is kept from others; it is extended at a third of it."""
REQUEST_SECONDS = 10
EXCERPT = 500
_TRIALS: Mapping[str, Mapping[str, Any]] = {
    "get_queue_attributes": {"AttributeNames": ["RedrivePolicy"]},
    "receive_message": {"MaxNumberOfMessages": BATCH + 1, "VisibilityTimeout": 0},
    "delete_message": {"ReceiptHandle": "-"},
    "change_message_visibility": {"ReceiptHandle": "-", "VisibilityTimeout": 0},
}
"""What `ping` asks; all but the first are malformed."""

_log = logging.getLogger(__name__)


class _Message(NamedTuple):
    id: str
    receipt: str
    body: str


class SqsProducer:
    """`pipeline.producers.Producer` over the queue that the source's `notifications` names: its URL, or its name."""

    def __init__(
        self, source: Source, store: S3Store, scope: Scope, route: Route | None = None, bury: Bury | None = None
    ) -> None:
        if not source.notifications:
            raise UsageError(f"source {source.name}: `notifications` names no queue")
        self._source = source
        self._store = store
        self._scope = scope
        self._route = route or self._own
        self._bury = bury
        self._client = _client(source)
        self._held = _Held()

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`. The queue keeps what happens while nobody asks; what was before is for a pass."""
        with self._asking():
            url = self._url()
        ended = threading.Event()
        extender = threading.Thread(
            target=self._extend, args=(url, ended), name=f"extend-{self._source.name}", daemon=True
        )
        extender.start()
        try:
            with ThreadPoolExecutor(MORE, thread_name_prefix=f"sqs-{self._source.name}") as pool:
                yield Notices(lost=True)
                while not stop.is_set():
                    messages = self._receive(url, pool)
                    if messages:
                        yield self._noticed(url, messages)
        finally:
            ended.set()
            extender.join()
            self._release(url)

    def ping(self) -> str:
        """What was found, with all that we do to the queue allowed; raises UnavailableError.

        What is asked beside its attributes is malformed: who may ask it is told so, and no message is taken.
        """
        with self._asking():
            url = self._url()
        for ask, more in _TRIALS.items():
            with self._asking(), suppress(_Malformed):
                self._try(ask, QueueUrl=url, **more)
        return f"the queue {url.rpartition('/')[2]} answers"

    def _try(self, ask: str, **more: Any) -> None:
        """Raises _Malformed where the request was understood, as allowed, and refused for what it says."""
        try:
            getattr(self._client, ask)(**more)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if _denied(code) or _status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR or "NonExistent" in code:
                raise
            raise _Malformed from None

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # --- messages ----------------------------------------------------------------------------------------------

    def _receive(self, url: str, pool: ThreadPoolExecutor) -> list[_Message]:
        with self._asking():
            messages = self._ask(url, WAIT_SECONDS)
            if len(messages) == BATCH:
                for more in pool.map(lambda _: self._ask(url, 0), range(MORE)):
                    messages += more
        return messages

    def _ask(self, url: str, wait: int) -> list[_Message]:
        answer = self._client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait, VisibilityTimeout=VISIBILITY_SECONDS
        )
        found = [_Message(row["MessageId"], row["ReceiptHandle"], row["Body"]) for row in answer.get("Messages", ())]
        self._held.add(found)
        return found

    def _noticed(self, url: str, messages: Sequence[_Message]) -> Notices:
        events: list[ObjectEvent] = []
        letters: list[UndecodableEvent] = []
        read: list[_Message] = []
        for message in messages:
            found, reason = self._read(message)
            events += [event._replace(id=new_id()) for event in found]
            if reason is None or self._put_aside(url, message, reason, letters):
                read.append(message)
        return Notices(events, lambda: self._delete(url, read), put_aside=putting_aside(self._bury, letters))

    def _read(self, message: _Message) -> tuple[list[ObjectEvent], str | None]:
        """The events in a message that can be kept, and why not all that it tells of can; None where all can."""
        try:
            return usable(decode(message.body, self._route))
        except RetriableError:
            raise
        except Exception as error:  # noqa: BLE001 - the outer boundary of a message: else it came for ever
            return [], refusal(error)

    def _put_aside(self, url: str, message: _Message, reason: str, letters: list[UndecodableEvent]) -> bool:
        """Whether a message that can't be read may be deleted: it is among the dead letters by then, or can't be
        kept."""
        if self._bury is not None:
            letters.append(UndecodableEvent(message.body.encode(errors="replace"), reason))
            return True
        with self._asking():
            attributes = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        if "RedrivePolicy" in attributes.get("Attributes", {}):
            self._held.drop([message])
            return False
        extra = {"source": self._source.name, "reason": reason, "body": message.body[:EXCERPT]}
        _log.error("a message that cannot be read is dropped: the queue has no redrive policy", extra=extra)
        return True

    def _delete(self, url: str, messages: Sequence[_Message]) -> None:
        """Raises UnavailableError: then they may come again."""
        self._held.drop(messages)
        for at in range(0, len(messages), BATCH):
            entries = [{"Id": str(n), "ReceiptHandle": one.receipt} for n, one in enumerate(messages[at : at + BATCH])]
            with self._asking():
                self._client.delete_message_batch(QueueUrl=url, Entries=entries)

    def _extend(self, url: str, ended: threading.Event) -> None:
        while not ended.wait(VISIBILITY_SECONDS / 3):
            with suppress(BotoCoreError, ClientError):
                self._set_visibility(url, self._held.all(), VISIBILITY_SECONDS)

    def _release(self, url: str) -> None:
        """Let others have at once what was received and not settled."""
        with suppress(BotoCoreError, ClientError):
            self._set_visibility(url, self._held.take(), 0)

    def _set_visibility(self, url: str, messages: Sequence[_Message], seconds: int) -> None:
        for at in range(0, len(messages), BATCH):
            entries = [
                {"Id": str(n), "ReceiptHandle": one.receipt, "VisibilityTimeout": seconds}
                for n, one in enumerate(messages[at : at + BATCH])
            ]
            self._client.change_message_visibility_batch(QueueUrl=url, Entries=entries)

    # --- where to ----------------------------------------------------------------------------------------------

    def _own(self, bucket: str, key: str) -> Sequence[Target]:
        mine = self._store.concerns(bucket, key)
        if mine is None or not self._scope.covers(mine):
            return ()
        return (Target(self._source.name, mine, self._store.versioned),)

    def _url(self) -> str:
        named = self._source.notifications or ""
        if named.startswith(("http://", "https://")):
            return named
        found: str = self._client.get_queue_url(QueueName=named)["QueueUrl"]
        return found

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            told = f"the queue of {self._source.name} answers {code}"
            if _denied(code):
                action = error.operation_name.removesuffix("Batch")
                raise UnavailableError(f"{told}; it takes sqs:{action}", code="permission") from None
            raise UnavailableError(told) from None
        except BotoCoreError as error:
            raise UnavailableError(
                f"the queue of {self._source.name} does not answer: {type(error).__name__}"
            ) from None


class _Malformed(Exception):
    """The queue would do what was asked, if it made sense."""


def _denied(code: str) -> bool:
    return "AccessDenied" in code


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class _Held:
    """Messages that were received and neither deleted nor given back. Thread-safe."""

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

    def take(self) -> list[_Message]:
        with self._lock:
            taken, self._messages = list(self._messages.values()), {}
            return taken


def _client(source: Source) -> Any:
    options = parse(source.url, source.endpoint)
    credentials = session(options)
    place = urlsplit(source.notifications or "")
    endpoint = f"{place.scheme}://{place.netloc}" if place.scheme in ("http", "https") else None
    host = place.hostname or ""
    own = host.split(".")[1] if host.startswith("sqs.") and host.endswith("amazonaws.com") else None
    return credentials.client(
        "sqs",
        endpoint_url=endpoint,
        region_name=own or region(credentials),
        config=Config(
            retries={"mode": "adaptive", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=REQUEST_SECONDS,
            max_pool_connections=MORE + 3,
        ),
    )
