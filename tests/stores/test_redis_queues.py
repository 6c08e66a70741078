"""Streams and lists of a real Redis server as queues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deploy.services import Service
from pipeline.config import Source
from pipeline.consumers.reading import open_object
from pipeline.errors import ObjectGone, UnavailableError, UsageError
from pipeline.parsers import Body, Rules
from pipeline.stores import SMALL_BYTES, Queue, Store, is_queue
from pipeline.stores.redis import ListStore, RedisStore, StreamStore, open_list, open_store, open_stream
from pipeline.stores.redis.ids import EntryId, Range
from pipeline.tasks import RejectedRow, Task


@pytest.fixture
def client(redis_server: Service, unique: str) -> Iterator[redis.Redis]:
    """A client of the server, which deletes what the test has put there."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client
        for key in client.scan_iter(match=f"{unique}*", count=10_000):
            client.delete(key)


def source_of(url: str, **options: Any) -> Source:
    """A source at a URL."""
    return Source.model_validate({"name": "inbox", "project": "p", "url": url} | options)


def stream_at(server: Service, key: str, options: str = "") -> StreamStore:
    """The store of a stream."""
    return open_stream(source_of(f"redis+stream://127.0.0.1:{server.port}/0/{key}{options}"), Path())


def list_at(server: Service, key: str, options: str = "") -> ListStore:
    """The store of a list."""
    return open_list(source_of(f"redis+list://127.0.0.1:{server.port}/0/{key}{options}"), Path())


def parsed(store: Store, key: str) -> tuple[list[Task], list[RejectedRow]]:
    """What a batch becomes."""
    rules = Rules.of(source_of("redis+stream://h/0/key"))
    parser, opened = open_object(store, rules, key)
    tasks: list[Task] = []
    rejected: list[RejectedRow] = []
    with opened as reading:
        reopen = reading.stream if reading.content is None else None
        body = Body(key, store.uri(key), reading.entry.size, reading.content, reopen)
        for piece in parser.parse(body, rules):
            tasks += piece.tasks
            rejected += piece.rejected
    return tasks, rejected


def ranges(store: Queue, after: str | None = None, limit: int = 100) -> list[str]:
    """The keys of the batches behind a position."""
    return [entry.key for entry in store.list(after, limit).entries]


# --- ids ------------------------------------------------------------------------------------------------


def test_ids_are_in_the_streams_order() -> None:
    """Ids are compared as numbers, and each has one before it and one behind it."""
    ids = [EntryId.parse(text) for text in ("0-1", "0-2", "0-10", "9-0", "10-0", "10-18446744073709551615", "11-0")]

    assert ids == sorted(ids)
    assert ids[-2].following == ids[-1]
    assert ids[-1].before == ids[-2]
    assert [str(one) for one in ids[:2]] == ["0-1", "0-2"]


@pytest.mark.parametrize("key", ["", "1", "1-1", "1-1..", "1..2", "1-1..2", "1-1..2-2-", "01-1..2-2", "a-1..2-2"])
def test_what_is_no_range(key: str) -> None:
    """Only what a range is called names one."""
    assert Range.parse(key) is None
    assert Range.parse("1-1..2-2") == Range(EntryId(1, 1), EntryId(2, 2))


# --- streams --------------------------------------------------------------------------------------------


def test_a_stream_is_cut_into_ranges(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Ranges follow each other without a gap, from wherever it goes on, and the last one may be short."""
    store = stream_at(redis_server, unique, "?batch=3")
    assert store.list(None, 10).complete
    for number in range(1, 9):
        client.xadd(unique, {"task": f'{{"n":{number}}}'}, id=f"{number}-0")

    assert ranges(store) == ["1-0..3-0", "4-0..6-0", "7-0..8-0"]
    assert ranges(store, "1-0..3-0") == ["4-0..6-0", "7-0..8-0"]
    first = store.list(None, 2)
    assert ([entry.key for entry in first.entries], first.complete) == (["1-0..3-0", "4-0..6-0"], False)
    assert store.list("7-0..8-0", 2).complete
    assert is_queue(store)


def test_a_range_is_read_as_rows(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """The field `task` is the task, other entries' fields are its data; a bad one is one rejected row."""
    store = stream_at(redis_server, unique)
    for fields in (
        {"task": '{"data":{"text":"a"},"id":1}'},
        {"text": "b", "lang": "é"},
        {"task": '{"text":'},
        {"task": '{"text":"c"}', "other": "x"},
        {"text": b"\xff"},
        {"task": b'{"text":"\x1e"}'},
        {"data": "flat"},
    ):
        client.xadd(unique, fields)  # type: ignore[arg-type]  # bytes are fine
    (key,) = ranges(store)
    tasks, rejected = parsed(store, key)

    assert [(task.row, task.data) for task in tasks] == [
        (1, '{"text":"a"}'), (2, '{"text":"b","lang":"é"}'), (4, '{"text":"c"}'), (7, '{"data":"flat"}'),
    ]  # fmt: skip
    assert [(row.row, row.code) for row in rejected] == [(3, "syntax"), (5, "syntax"), (6, "syntax")]
    assert "UTF-8" in rejected[1].message


def test_a_ranges_version_is_what_is_there(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Listing, looking and reading agree; entries that are gone make another version, and all of them none."""
    store = stream_at(redis_server, unique)
    for number in (1, 2, 3):
        client.xadd(unique, {"task": "{}"}, id=f"{number}-0")
    (entry,) = store.list(None, 1).entries

    assert (entry.key, entry.version, entry.size) == ("1-0..3-0", "3-0/3", 6)
    assert store.head(entry.key) == entry
    with store.open(entry.key) as reading:
        assert reading.entry == entry
    client.xdel(unique, "2-0")
    found = store.head(entry.key)
    assert found is not None
    assert found.version == "3-0/2"
    client.xtrim(unique, maxlen=0)
    assert store.head(entry.key) is None
    with pytest.raises(ObjectGone, match="no longer has"), store.open(entry.key):
        pass


def test_large_entries_make_smaller_ranges(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """A range is bounded in bytes, too, and what is larger than a small object is streamed."""
    store = stream_at(redis_server, unique)
    body = '{"text":"' + "x" * (3 * SMALL_BYTES) + '"}'
    for _ in range(7):
        client.xadd(unique, {"task": body})
    keys = ranges(store)

    assert len(keys) == 3
    with store.open(keys[0]) as reading:
        assert reading.content is None
        assert reading.stream().read() == reading.stream().read()
    assert sum(len(parsed(store, key)[0]) for key in keys) == 7


def test_waiting_for_entries(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Waiting ends at once where there is more, and tells where there is not."""
    store = stream_at(redis_server, unique)
    assert not store.wait(None, 0.01)
    client.xadd(unique, {"task": "{}"}, id="1-0")
    assert store.wait(None, 5)
    assert not store.wait("1-0..1-0", 0.01)


def groups(client: redis.Redis, key: str) -> dict[str, tuple[str, int | None, int | None]]:
    """Each group's last id, how many entries it has read, and its lag."""
    found: Any = client.xinfo_groups(key)
    return {row["name"].decode(): (row["last-delivered-id"].decode(), row["entries-read"], row["lag"]) for row in found}


def test_a_group_is_moved_along(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """The group stands behind what is imported, and its lag is how many entries are not."""
    store = stream_at(redis_server, unique, "?group=feed&batch=2")
    for number in range(1, 8):
        client.xadd(unique, {"task": "{}"}, id=f"{number}-0")
    store.settle([], "1-0..2-0", None)
    assert groups(client, unique) == {"feed": ("0-18446744073709551615", 0, 7)}
    store.settle([("1-0..2-0", "2-0/2")], "3-0..4-0", "5-0..6-0")
    assert groups(client, unique) == {"feed": ("2-18446744073709551615", 2, 5)}
    store.settle([("3-0..4-0", "4-0/2"), ("5-0..6-0", "6-0/2")], None, "5-0..6-0")
    assert groups(client, unique) == {"feed": ("6-0", 6, 1)}

    again = stream_at(redis_server, unique, "?group=feed&batch=2")
    again.settle([("7-0..7-0", "7-0/1")], None, "7-0..7-0")
    assert groups(client, unique) == {"feed": ("7-0", 7, 0)}
    assert client.xlen(unique) == 7


def test_trimming_stays_behind_what_is_imported(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Only entries before the first range that is not imported are trimmed."""
    store = stream_at(redis_server, unique, "?trim=yes")
    for number in range(1, 8):
        client.xadd(unique, {"task": "{}"}, id=f"{number}-0")
    store.settle([], "1-0..2-0", "3-0..4-0")
    assert client.xlen(unique) == 7
    store.settle([("1-0..2-0", "2-0/2")], "3-0..4-0", "3-0..4-0")
    assert client.xlen(unique) == 5
    store.settle([("3-0..4-0", "4-0/2")], None, "3-0..4-0")
    assert client.xlen(unique) == 3
    assert ranges(store, "3-0..4-0") == ["5-0..7-0"]


def test_another_stream_under_the_key(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """A stream that was deleted is empty; one made anew with smaller ids is told, as its entries would be missed."""
    store = stream_at(redis_server, unique)
    client.xadd(unique, {"task": "{}"}, id="5-0")
    client.delete(unique)
    assert store.list("5-0..5-0", 10).complete
    client.xadd(unique, {"task": "{}"}, id="1-0")
    with pytest.raises(UnavailableError, match="another stream"):
        store.list("5-0..5-0", 10)
    client.xadd(unique, {"task": "{}"}, id="6-0")
    assert ranges(store, "5-0..5-0") == ["6-0..6-0"]


# --- lists ----------------------------------------------------------------------------------------------


def test_items_are_moved_to_batches(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Each item is in the list or in one batch, in its order; a batch stays until it is settled."""
    store = list_at(redis_server, unique, "?batch=3")
    assert store.take(None, 10).complete
    client.rpush(unique, *[f'{{"n":{number}}}' for number in range(7)])
    page = store.take(None, 2)

    assert (len(page.entries), page.complete) == (2, False)
    assert client.llen(unique) == 1
    assert store.list(None, 10).entries == [entry._replace(size=0) for entry in page.entries]
    assert [task.data for entry in page.entries for task in parsed(store, entry.key)[0]] == [
        f'{{"n":{number}}}' for number in range(6)
    ]
    first, second = page.entries
    store.settle([(first.key, first.version)], second.key, None)
    assert ranges(store) == [second.key]
    assert store.head(first.key) is None
    with pytest.raises(ObjectGone), store.open(first.key):
        pass
    store.settle([(second.key, second.version)], None, None)
    assert client.keys(f"{unique}*") == [unique.encode()]


def test_bad_items_are_rows(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Items that are no tasks are rejected one by one, duplicates are tasks of their own."""
    store = list_at(redis_server, unique)
    client.rpush(unique, '{"a":1}', "no json", '{"a":1}', "", "[1]", b"\xff")
    (entry,) = store.take(None, 10).entries
    tasks, rejected = parsed(store, entry.key)

    assert [task.row for task in tasks] == [1, 3]
    assert [(row.row, row.code) for row in rejected] == [
        (2, "syntax"), (4, "syntax"), (5, "not_an_object"), (6, "syntax"),
    ]  # fmt: skip


def test_who_only_looks_moves_nothing(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """A preview shows what is in work and what waits, and leaves the list as it is."""
    store = list_at(redis_server, unique, "?batch=2")
    client.rpush(unique, *['{"a":1}'] * 2)
    store.take(None, 1)
    client.rpush(unique, *['{"a":2}'] * 3)
    page = store.preview(None, 100)

    assert [len(parsed(store, entry.key)[0]) for entry in page.entries] == [2, 2, 1]
    assert [entry.size for entry in page.entries[1:]] == [14, 7]
    assert client.llen(unique) == 3


def test_waiting_for_items(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Waiting ends at once where there is an item, and tells where there is none."""
    store = list_at(redis_server, unique)
    assert not store.wait(None, 0.01)
    client.rpush(unique, "{}")
    assert store.wait(None, 5)


# --- both -----------------------------------------------------------------------------------------------


def test_a_key_of_another_type(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """A queue whose key holds something else cannot be used, and says so."""
    client.set(unique, "x")
    for store in (stream_at(redis_server, unique), list_at(redis_server, unique)):
        for ask in (lambda store=store: store.take(None, 1), store.ping):  # type: ignore[misc]  # bound at once
            with pytest.raises(UnavailableError, match="the key holds no") as raised:
                ask()
            assert raised.value.code == "wrong_type"


def test_what_an_acl_forbids(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """A user who may not read the queue is told so, and that it is for the whole source."""
    client.acl_setuser(unique, enabled=True, passwords=["+pw"], categories=["+@all"], keys=["other:*"], reset=True)
    place = f"{unique}:pw@127.0.0.1:{redis_server.port}/0/{unique}"
    try:
        for store in (
            open_stream(source_of(f"redis+stream://{place}"), Path()),
            open_list(source_of(f"redis+list://{place}"), Path()),
        ):
            with pytest.raises(UnavailableError, match="our user may not do this") as raised:
                store.take(None, 1)
            assert raised.value.code == "permission"
            assert "pw" not in str(raised.value).replace(unique, "")
    finally:
        client.acl_deluser(unique)


def test_who_and_where(redis_server: Service, unique: str) -> None:
    """Identity, URI and ping name the queue; there are no signed URLs."""
    stream, items = stream_at(redis_server, "a/b%3Ac"), list_at(redis_server, unique)

    assert stream.uri("1-0..2-0") == f"redis+stream://127.0.0.1:{redis_server.port}/0/a/b:c/1-0..2-0"
    assert stream.identity() == f"redis+stream 127.0.0.1:{redis_server.port} 0 a/b:c"
    assert items.identity() != stream.identity()
    assert "not there yet" in stream.ping()
    assert "0 items" in items.ping()
    for store in (stream, items):
        with pytest.raises(UsageError):
            store.sign("a", 60)


@pytest.mark.parametrize(
    "options",
    [{"format": "csv"}, {"as": "files"}, {"match": "a*"}, {"exclude": "b"}, {"regex": "a"}, {"min_size": "1KB"}],
    ids=lambda one: next(iter(one)),
)
def test_options_of_files_are_refused(options: dict[str, Any]) -> None:
    """What chooses or reads files has no meaning for entries, and is a mistake of the configuration."""
    for made in (open_stream, open_list):
        with pytest.raises(UsageError):
            made(source_of("redis+stream://h/0/key", **options), Path())


@pytest.mark.parametrize("url", ["redis+stream://h/0", "redis+stream://h/key", "redis+stream://h/0/key?batch=0"])
def test_urls_that_name_no_queue(url: str) -> None:
    """A queue has a database and a key."""
    with pytest.raises(UsageError):
        open_stream(source_of(url), Path())


def test_values_are_no_queue() -> None:
    """Strings and hashes are objects as those of any store."""
    store = open_store(source_of("redis://h/0"), Path())

    assert isinstance(store, RedisStore)
    assert not is_queue(store)
