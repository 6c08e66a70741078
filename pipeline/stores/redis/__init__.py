"""Redis: strings and hashes under a prefix as objects, and streams and lists as queues of tasks.

**Values**: `redis://host/db?prefix=tasks:`. A string is read as JSON unless its key ends like another file's name or
the source has a `format`; the fields of a hash are the data of a task. **Version**: a hash of the content.
**Streams**: `redis+stream://host/db/key`. **Lists**: `redis+list://host/db/key`. An entry is the JSON of a task; in a
stream it stands in the field `task`, or else the fields are the data. With `rediss` for `redis` by TLS.
"""

from pathlib import Path

from pipeline.config import Source
from pipeline.errors import UsageError
from pipeline.stores.redis.lists import ListStore
from pipeline.stores.redis.options import ListOptions, StreamOptions, ValuesOptions, parse
from pipeline.stores.redis.store import RedisStore
from pipeline.stores.redis.streams import StreamStore

CHOOSING = (
    "match", "exclude", "regex", "prefixes", "recursive", "min_size", "max_size", "newer_than", "older_than", "routes",
    "start_after",
)  # fmt: skip
"""Keys of a source that choose among files."""

__all__ = ["ListStore", "RedisStore", "StreamStore", "open_list", "open_store", "open_stream"]


def open_store(source: Source, folder: Path) -> RedisStore:
    """The store of a source whose `url` is redis://host/db?prefix=… Raises UsageError where its words can't be
    followed."""
    return RedisStore(parse(ValuesOptions, source.url, folder), source.format, watch=source.watch)


def open_stream(source: Source, folder: Path) -> StreamStore:
    """The store of a source whose `url` is redis+stream://host/db/key. Raises UsageError as `open_store`."""
    _check(source)
    return StreamStore(parse(StreamOptions, source.url, folder))


def open_list(source: Source, folder: Path) -> ListStore:
    """The store of a source whose `url` is redis+list://host/db/key. Raises UsageError as `open_store`."""
    _check(source)
    return ListStore(parse(ListOptions, source.url, folder))


def _check(source: Source) -> None:
    """Refuse what chooses or reads files: the entries of a queue are tasks, and all of them are taken."""
    if source.format not in (None, "json") or source.as_ == "files":
        raise UsageError(f"source {source.name}: entries of a queue are the JSON of tasks; leave out `format` and `as`")
    for name in CHOOSING:
        if getattr(source, name) != type(source).model_fields[name].default:
            raise UsageError(f"source {source.name}: a queue is taken whole; leave out `{name}`")
