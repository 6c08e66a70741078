"""Strings and hashes of a real Redis server as a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import redis

from deploy import services
from deploy.services import Service
from pipeline.config import Source
from pipeline.consumers.reading import open_object
from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, ObjectUnsettled, UnavailableError, UsageError
from pipeline.parsers import Rules
from pipeline.stores import SMALL_BYTES
from pipeline.stores.redis import RedisStore, open_store, values
from pipeline.stores.redis.options import ValuesOptions, parse
from tests.servers import Tls
from tests.stores.contract import Made, StoreContract, listed

SECRET = "hunter2 opossum"


def store_at(url: str, **source: object) -> RedisStore:
    """The store of a source at a URL."""
    return open_store(Source.model_validate({"name": "inbox", "project": "p", "url": url, **source}), Path())


@pytest.fixture
def client(redis_server: Service, unique: str) -> Iterator[redis.Redis]:
    """A client of the server, which deletes what the test has put there."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client
        for key in client.scan_iter(match=f"{unique}*", count=10_000):
            client.delete(key)


@pytest.fixture
def url(redis_server: Service, unique: str) -> str:
    """The URL of a source under a prefix of this test alone, which is full of signs that patterns use."""
    return f"{redis_server.url.rstrip('/').removesuffix('/0')}/0?prefix={unique}%5B%2A%5D%3A"


@pytest.fixture
def prefix(unique: str) -> str:
    """That prefix."""
    return f"{unique}[*]:"


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    """The store."""
    made = store_at(url)
    yield made
    made.close()


class TestRedisStore(StoreContract):
    """The contract of all stores."""

    @pytest.fixture
    def made(self, store: RedisStore, client: redis.Redis, prefix: str) -> Made:
        """A prefix of its own."""

        def put(key: str, content: bytes) -> None:
            client.set(prefix + key, content)

        return Made(store, put, lambda key: client.delete(prefix + key))


def test_only_the_prefix_is_listed(store: RedisStore, client: redis.Redis, prefix: str, unique: str) -> None:
    """Keys beside the prefix, like ones that its signs would match as a pattern, and itself, are none of ours."""
    for key in (prefix + "a", prefix, unique + ":a", unique + "x:a", unique + "[x]:a"):
        client.set(key, b"[]")

    assert [entry.key for entry in listed(store)] == ["a"]


def test_many_keys_are_listed_once(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """Pages of a SCAN together give every key."""
    keys = {f"k{number}" for number in range(3000)}
    client.mset({prefix + key: b"{}" for key in keys})

    found = [entry.key for entry in listed(store, 700)]
    assert sorted(found) == sorted(keys)


def test_a_listing_begins_anew_after_a_key_it_does_not_know(
    store: RedisStore, url: str, client: redis.Redis, prefix: str
) -> None:
    """After a restart the pass lists all again, and misses nothing."""
    for number in range(20):
        client.set(f"{prefix}{number}", b"{}")
    first = store.list(None, 5)
    fresh = store_at(url)

    assert len(fresh.list(first.entries[-1].key, 100).entries) == 20


def test_a_hash_is_the_data_of_a_task(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """Fields are data, whatever they are called, and the version follows their content, not their order."""
    client.hset(prefix + "h", mapping={"text": "é", "data": "x"})
    client.hset(prefix + "same", mapping={"data": "x", "text": "é"})

    (one, two) = sorted(listed(store))
    with store.open("h") as reading:
        assert orjson.loads(reading.content or b"") == {"data": {"text": "é", "data": "x"}}
        assert reading.entry == one
    assert one.version == two.version
    client.hset(prefix + "h", "text", "e")
    assert store.head("h") != one


def test_values_are_json_unless_their_keys_say_otherwise(
    store: RedisStore, client: redis.Redis, prefix: str, url: str
) -> None:
    """`task:1` and `task.1` are JSON, `a.csv` is a table, and the source's `format` holds for all."""
    source = Source(name="inbox", project="p", url=url)
    for key, parser in (("task:1", "json"), ("task.1", "json"), ("a.csv", "csv"), ("a.json", "json"), ("b.TXT", "txt")):
        client.set(prefix + key, b"[]")
        assert open_object(store, Rules.of(source), key)[0].name == parser


@pytest.mark.parametrize("kind", ["set", "zset", "list", "stream"])
def test_other_types_are_skipped(store: RedisStore, client: redis.Redis, prefix: str, kind: str) -> None:
    """A value of another type is an object that is skipped with a clear word, again only when it changes."""
    key = prefix + "odd"
    if kind == "stream":
        client.xadd(key, {"a": "b"})
    elif kind == "list":
        client.rpush(key, "a")
    elif kind == "set":
        client.sadd(key, "a")
    else:
        client.zadd(key, {"a": 1})
    (entry,) = listed(store)

    assert entry == store.head("odd")
    with pytest.raises(ObjectSkipped, match=f"the value is a {kind}") as raised, store.open("odd"):
        pass
    assert raised.value.code == "unsupported_format"
    assert raised.value.hint


def test_a_hash_under_a_tables_name_is_skipped(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """A hash is no CSV, whatever its key says."""
    client.hset(prefix + "a.csv", "text", "x")
    with pytest.raises(ObjectSkipped, match="hash"), store.open("a.csv"):
        pass


def test_a_hash_that_is_no_text_fails(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """Bytes that are not UTF-8 are told, and the version is one all the same."""
    client.hset(prefix + "h", "text", b"\xff")
    (entry,) = listed(store)

    assert entry.version
    with pytest.raises(ObjectFailed) as raised, store.open("h"):
        pass
    assert raised.value.code == "encoding"


def test_a_hash_of_too_many_fields_fails(
    store: RedisStore, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash that is no task is not read into memory."""
    monkeypatch.setattr(values, "FIELDS_LIMIT", 2)
    client.hset(prefix + "h", mapping={"a": "1", "b": "2", "c": "3"})
    assert [entry.version for entry in listed(store)] == ["type hash"]
    with pytest.raises(ObjectFailed) as raised, store.open("h"):
        pass
    assert raised.value.code == "too_large"


def test_keys_that_are_no_text(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """A key of any bytes is listed as text by the rule for file names, and is found by it."""
    client.set(prefix.encode() + b"\xff\x00%FF", b"{}")
    (entry,) = listed(store)

    assert entry.key == "%FF\x00%25FF"
    assert store.head(entry.key) is None, "no key with NUL is any object's"
    client.set(prefix.encode() + b"\xffa", b"[1]")
    with store.open("%FFa") as reading:
        assert reading.content == b"[1]"


def test_a_large_value_that_changes_while_it_is_read(
    store: RedisStore, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of a large value is of one moment, or is told to be of none."""
    client.set(prefix + "large", b"a" * (3 * SMALL_BYTES))
    chunks = values._chunks

    def changing(server: redis.Redis, key: bytes) -> Iterator[bytes]:
        for chunk in chunks(server, key):
            yield chunk
            client.setrange(prefix + "large", 0, b"b")

    monkeypatch.setattr(values, "_chunks", changing)
    with pytest.raises(ObjectUnsettled), store.open("large"):
        pass
    assert [entry.settled for entry in listed(store)] == [False]


def test_what_is_shown_holds_no_secret(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Neither user nor password is in identity, URI or errors, right or wrong."""
    client.acl_setuser(unique, enabled=True, passwords=[f"+{SECRET}"], categories=["+@all"], keys=["*"])
    try:
        place = f"127.0.0.1:{redis_server.port}/0?prefix={unique}"
        right = store_at(f"redis://{unique}:{SECRET.replace(' ', '%20')}@{place}")
        wrong = store_at(f"redis://{unique}:wrong{SECRET.replace(' ', '%20')}@{place}")

        assert right.list(None, 10).complete
        assert right.uri("a") == f"redis://127.0.0.1:{redis_server.port}/0/{unique}a"
        with pytest.raises(UnavailableError, match="refuses our user or password") as raised:
            wrong.list(None, 10)
        assert raised.value.code == "permission"
        for text in (right.identity(), right.uri("a"), str(raised.value), right.ping()):
            assert SECRET not in text
    finally:
        client.acl_deluser(unique)


def test_what_our_user_may_not_read_fails_alone(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """An ACL that shows all keys and opens some: the others fail one by one, and the listing goes on."""
    client.acl_setuser(
        unique, enabled=True, passwords=["+pw"], categories=["+@all"], keys=[f"{unique}:mine:*"], reset=True
    )
    client.set(f"{unique}:mine:a", b"{}")
    client.set(f"{unique}:other", b"{}")
    try:
        store = store_at(f"redis://{unique}:pw@127.0.0.1:{redis_server.port}/0?prefix={unique}:")

        assert {entry.key: entry.version == values.UNREADABLE for entry in listed(store)} == {
            "mine:a": False,
            "other": True,
        }
        with pytest.raises(ObjectFailed) as raised, store.open("other"):
            pass
        assert raised.value.code == "permission"
    finally:
        client.acl_deluser(unique)


def test_an_acl_that_forbids_listing(redis_server: Service, client: redis.Redis, unique: str) -> None:
    """Without SCAN there is no pass, and it is said why."""
    client.acl_setuser(unique, enabled=True, passwords=["+pw"], commands=["+get", "+hello", "+client"], reset=True)
    try:
        store = store_at(f"redis://{unique}:pw@127.0.0.1:{redis_server.port}/0")
        for ask in (lambda: store.list(None, 1), store.ping):
            with pytest.raises(UnavailableError, match="our user may not do this") as raised:
                ask()
            assert raised.value.code == "permission"
    finally:
        client.acl_deluser(unique)


def test_a_password_from_the_environment(
    redis_server: Service, client: redis.Redis, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`password_variable` names where it is; a variable that is not set is told."""
    client.acl_setuser(unique, enabled=True, passwords=[f"+{SECRET}"], categories=["+@all"], keys=["*"])
    try:
        url = f"redis://{unique}@127.0.0.1:{redis_server.port}/0?prefix={unique}&password_variable=REDIS_WORD"
        with pytest.raises(UsageError, match="REDIS_WORD"):
            store_at(url)
        monkeypatch.setenv("REDIS_WORD", SECRET)
        assert store_at(url).list(None, 1).complete
    finally:
        client.acl_deluser(unique)


def test_a_server_that_is_away() -> None:
    """Nobody listens: the storage is unavailable, and nothing is said to be gone."""
    store = store_at("redis://127.0.0.1:1/0")
    for ask in (lambda: store.list(None, 1), lambda: store.head("a"), store.ping, lambda: store.open("a").__enter__()):
        with pytest.raises(UnavailableError, match=r"redis://127.0.0.1:1/0.* does not answer"):
            ask()


BAD_URLS = {
    "redis://": "no host",
    "redis://h/x": "no number of a database",
    "redis://h/0/key": "a prefix is an option",
    "redis://h:port/0": "no port",
    "redis://h/0?prefx=a": "prefx: Extra inputs are not permitted",
    "redis://h/0?concurrency=0": "concurrency",
    "redis://h/0?notify=yes": "notify",
    "redis://h/0?password=x": "no option",
    "redis://u:opensesame@h/0?nonsense=1": "nonsense",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_urls_that_cannot_be_followed(url: str) -> None:
    """What is wrong with a URL is said without its secrets."""
    with pytest.raises(UsageError, match=BAD_URLS[url]) as raised:
        store_at(url)
    assert "opensesame" not in str(raised.value)


def test_what_a_url_says() -> None:
    """User, password, port, database and options are read from a URL, percent signs decoded."""
    found = parse(ValuesOptions, "rediss://me:p%40ss@[::1]:7000/3?prefix=a%3A&ca_file=ca.pem&verify=no", Path("/etc"))

    assert (found.tls, found.host, found.port, found.db) == (True, "::1", 7000, 3)
    assert (found.username, found.secret(), found.prefix) == ("me", "p@ss", "a:")
    assert (found.ca_file, found.verify) == (Path("/etc/ca.pem"), False)
    assert found.canonical == "rediss://[::1]:7000/3"
    assert store_at("redis://h").uri("a") == "redis://h:6379/0/a"


def test_no_signed_urls(store: RedisStore) -> None:
    """Redis has none, and that is a mistake of the configuration."""
    with pytest.raises(UsageError):
        store.sign("a", 60)


def test_gone_has_its_own_error(store: RedisStore) -> None:
    """A key that names nothing is gone."""
    for key in ("never", "%ff", "\ud800"):
        assert store.head(key) is None
        with pytest.raises(ObjectGone), store.open(key):
            pass


def test_ping_tells_of_notifications(store: RedisStore, own_redis: Callable[..., Service]) -> None:
    """A server that notifies of nothing is told what to set; one that does is told to do so."""
    quiet, loud = own_redis().url, own_redis(**{"notify-keyspace-events": "KEA"}).url

    assert "CONFIG SET notify-keyspace-events" in store_at(quiet).ping()
    assert "it notifies of changes" in store_at(loud).ping()
    assert "notif" not in store_at(quiet, watch=False).ping()


def test_concurrent_listings(store: RedisStore, client: redis.Redis, prefix: str) -> None:
    """Two listings at the same time each give all keys."""
    keys = {f"k{number}" for number in range(50)}
    client.mset({prefix + key: b"{}" for key in keys})
    found: list[set[str]] = []

    def run() -> None:
        found.append({entry.key for entry in listed(store, 7)})

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [keys] * 4


def test_tls(tls_redis: Callable[..., Tls]) -> None:
    """`rediss` asks for TLS and checks the certificate, by the file that is named; without it nobody is trusted."""
    tls = tls_redis()

    assert "Redis 7" in store_at(f"rediss://127.0.0.1:{tls.port}/0?ca_file={tls.certificate}").ping()
    assert "Redis 7" in store_at(f"rediss://127.0.0.1:{tls.port}/0?verify=no").ping()
    with pytest.raises(UnavailableError, match="does not answer"):
        store_at(f"rediss://127.0.0.1:{tls.port}/0").ping()


def test_a_server_that_dies_in_mid_listing(own_redis: Callable[..., Service]) -> None:
    """The next page says that the server is away, and no key is said to be gone."""
    server = own_redis()
    store = store_at(server.url)
    with redis.Redis.from_url(server.url) as other:
        other.mset({f"k{number}": b"{}" for number in range(5000)})
    page = store.list(None, 500)
    services.kill(server)

    assert not page.complete
    with pytest.raises(UnavailableError):
        listed_from(store, page.entries[-1].key)
    with pytest.raises(UnavailableError):
        store.head("k1")


def listed_from(store: RedisStore, after: str) -> None:
    """List all pages behind a key."""
    page = store.list(after, 500)
    while not page.complete:
        page = store.list(page.entries[-1].key, 500)
