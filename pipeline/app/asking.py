"""What `check` asks of a source, a question each: may we list it, read it, hear of it, sign links to it?

Each question is the very call that a pass, a worker or a producer makes, as nothing else tells whether its permission
is there. Nothing is changed by it, and no message is taken from a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from pipeline import registry
from pipeline.app.parts import Feed, component_of, nowhere
from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, ObjectUnsettled, UnavailableError
from pipeline.stores import is_queue

TRIED = 20
"""Keys among which one is looked for that the source would read."""
NOTHING = "there is nothing to try it with"

Ping = Callable[[], str]
"""One sentence that says what was found; raises LabelfeedError."""


def questions(feed: Feed) -> Iterator[tuple[str, Ping]]:
    """What is asked ("" for the listing), and the call that asks it."""
    yield "", feed.store.ping
    if not is_queue(feed.store) and not getattr(feed.store, "by_reference", False):
        yield "reading", partial(_read, feed)
    if feed.source.notifications is not None:
        yield "notifications", partial(_heard, feed)
    if feed.source.links == "signed":
        yield "signing", partial(_signed, feed)


def _read(feed: Feed) -> str:
    key = _some_key(feed)
    if key is None:
        return NOTHING
    try:
        with feed.store.open(key) as reading:
            return f"{key} can be read, {reading.entry.size} bytes"
    except (ObjectGone, ObjectSkipped, ObjectUnsettled) as error:
        return f"{key} cannot be tried: {error.code}"
    except ObjectFailed as error:
        raise UnavailableError(f"{error}; {error.hint}" if error.hint else str(error), code=error.code) from None


def _signed(feed: Feed) -> str:
    key = _some_key(feed)
    if key is None:
        return NOTHING
    feed.store.sign(key, feed.source.ttl)
    return f"links to {key} can be signed"


def _some_key(feed: Feed) -> str | None:
    entries = feed.store.list(None, TRIED).entries
    return next((entry.key for entry in entries if feed.scope.covers(entry.key)), None)


def _heard(feed: Feed) -> str:
    make = registry.load("producers", component_of(feed.source))
    with closing(make(feed.source, feed.store, feed.scope, nowhere)) as producer:
        found: str = producer.ping()
    return found
