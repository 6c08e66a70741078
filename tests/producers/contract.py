"""What every producer must do: `class TestMine(ProducerContract)` with a fixture `made` takes the suite.

`made` gives the producer, its store, `put(key, content)` and `delete(key)`; a put object is whole at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pipeline.events import ObjectEvent
from pipeline.producers import Notices, Producer
from pipeline.stores import Store

PATIENCE_SECONDS = 20.0


class Made(NamedTuple):
    """A producer under test and the means to change what it watches."""

    producer: Producer
    store: Store
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]


class Listener:
    """Collects what a producer gives, in a thread of its own."""

    def __init__(self, producer: Producer) -> None:
        self.stop = threading.Event()
        self.notices: queue.SimpleQueue[Notices] = queue.SimpleQueue()
        self.seen: list[Notices] = []
        self.error: BaseException | None = None
        self._producer = producer
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        try:
            for notices in self._producer.notices(self.stop):
                notices.settle()
                self.notices.put(notices)
        except BaseException as error:  # noqa: BLE001 - given to the test
            self.error = error

    def until(self, wanted: Callable[[Notices], bool]) -> Notices:
        """The first notices that are wanted; fails if they do not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            notices = self.notices.get(timeout=max(0.01, deadline - time.monotonic()))
            self.seen.append(notices)
            if wanted(notices):
                return notices

    def event(self, key: str, *kinds: str) -> ObjectEvent:
        """The first event of this key and one of these kinds."""
        notices = self.until(lambda notices: any(event.key == key and event.kind in kinds for event in notices.events))
        return next(event for event in notices.events if event.key == key and event.kind in kinds)


@contextmanager
def listening(producer: Producer) -> Iterator[Listener]:
    """A producer at work, from the moment that no later change can be missed."""
    listener = Listener(producer)
    try:
        listener.until(lambda notices: notices.lost)
        yield listener
    finally:
        listener.stop.set()
        listener.thread.join(PATIENCE_SECONDS)
        assert not listener.thread.is_alive()


class ProducerContract:
    """The suite."""

    def test_what_was_there_before_is_for_a_pass(self, made: Made) -> None:
        """The first notices say that changes were lost, and come without any change."""
        made.put("before", b"x")

        with listening(made.producer) as listener:
            assert listener.seen[-1].lost

    def test_a_new_object_is_noticed_as_the_store_has_it(self, made: Made) -> None:
        """The event's version, where it has one, is the store's."""
        with listening(made.producer) as listener:
            made.put("folder/new.json", b"content")
            event = listener.event("folder/new.json", "created", "updated")
            entry = made.store.head("folder/new.json")

            assert entry is not None
            assert event.version in (None, entry.version)
            assert event.discovered_by == "notification"
            assert event.id
            assert event.time

    def test_a_changed_object_is_noticed_again(self, made: Made) -> None:
        """Another content is another event."""
        made.put("one", b"first")
        with listening(made.producer) as listener:
            made.put("one", b"second!")
            entry = made.store.head("one")

            assert entry is not None
            listener.until(lambda notices: any(event.version in (None, entry.version) for event in notices.events))

    def test_a_deletion_is_noticed(self, made: Made) -> None:
        """A deleted object gives an event of that kind."""
        made.put("one", b"x")
        with listening(made.producer) as listener:
            made.delete("one")

            assert listener.event("one", "deleted").version is None

    def test_many_objects_are_all_noticed(self, made: Made) -> None:
        """None of several hundred at once is forgotten, unless the producer says that some may be."""
        keys = {f"many/{number}" for number in range(300)}
        with listening(made.producer) as listener:
            for key in keys:
                made.put(key, b"x")
            found: set[str] = set()

            def enough(notices: Notices) -> bool:
                found.update(event.key for event in notices.events)
                return keys <= found or notices.lost

            listener.until(enough)

    def test_stopping_ends_it_soon(self, made: Made) -> None:
        """A producer with nothing to tell still hears that it is to stop."""
        with listening(made.producer) as listener:
            listener.stop.set()
            listener.thread.join(PATIENCE_SECONDS)

            assert not listener.thread.is_alive()
            assert listener.error is None
