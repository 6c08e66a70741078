"""What a 404 means on S3: only the server's own word on an object is believed, by both ways to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import ObjectGone, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.s3 import S3Store, open_store
from tests.servers import s3_client
from tests.stores.contract import listed
from tests.stores.front import Answer, Front, front_of

pytestmark = pytest.mark.usefixtures("aws")

KEYS = ["k.json", "odd\tkey.json"]
"""What obstore reads, and what boto3 must read."""
PAGES = [b"default backend - 404", b"<html><body>no such site</body></html>", b"", b'{"error": "NoSuchKey"}']
"""What proxies and wrong addresses say."""


@pytest.fixture(params=["seaweedfs", "versitygw"])
def server(request: pytest.FixtureRequest) -> Service:
    """Each of the S3 servers."""
    found: Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def front(server: Service) -> Iterator[Front]:
    """What stands before it."""
    with front_of(server.url) as front:
        yield front


@pytest.fixture
def store(server: Service, front: Front, unique: str) -> Iterator[S3Store]:
    """A bucket, through the front."""
    s3_client(server).create_bucket(Bucket=unique)
    made = opened(front.url, unique)
    yield made
    made.close()


def opened(endpoint: str, bucket: str) -> S3Store:
    """The store of a source."""
    return open_store(Source(name="s", project="p", url=f"s3://{bucket}", endpoint=endpoint), Path())


@pytest.mark.parametrize("key", KEYS)
def test_an_object_of_a_bucket_that_is_not_there_is_not_gone(server: Service, unique: str, key: str) -> None:
    """That a bucket has vanished is no word on its objects, nor on what is installed: they are asked for again."""
    store = opened(server.url, unique)

    with pytest.raises(UnavailableError, match="NoSuchBucket"), store.open(key):
        pass
    with pytest.raises(UnavailableError, match="NoSuchBucket"):
        store.head(key)
    with pytest.raises(UsageError, match="NoSuchBucket"):
        store.ping()
    store.close()


@pytest.mark.parametrize("key", KEYS)
def test_a_bucket_that_vanishes_while_a_large_object_is_read_is_waited_for(
    versitygw: Service, unique: str, key: str
) -> None:
    """A range of an object whose bucket was deleted is not gone, either."""
    client = s3_client(versitygw)
    client.create_bucket(Bucket=unique)
    client.put_object(Bucket=unique, Key=key, Body=b"a" * (3 * SMALL_BYTES))
    store = opened(versitygw.url, unique)
    with store.open(key) as reading:
        client.delete_object(Bucket=unique, Key=key)
        client.delete_bucket(Bucket=unique)
        with pytest.raises(UnavailableError, match="NoSuchBucket"):
            reading.stream().read()
    store.close()


@pytest.mark.parametrize("key", [*KEYS, "<Code>NoSuchKey</Code>"])
def test_a_404_of_a_proxy_is_no_word_on_an_object(
    server: Service, store: S3Store, front: Front, unique: str, key: str
) -> None:
    """What does not come from S3 is an outage, whatever the key looks like: to read, to look and to list."""
    s3_client(server).put_object(Bucket=unique, Key=key, Body=b"[]")
    assert [entry.key for entry in listed(store)] == [key]

    for page in PAGES:
        front.fault = lambda _method, _target, page=page: Answer(404, page)  # type: ignore[misc]
        with pytest.raises(UnavailableError, match="404"), store.open(key):
            pass
        with pytest.raises(UnavailableError, match="404"):
            store.head(key)
        with pytest.raises(UnavailableError, match="404"):
            store.list(None, 10)


@pytest.mark.parametrize("key", [*KEYS, "404 Not Found: <Code>NoSuchBucket</Code>"])
def test_a_key_that_is_missing_is_gone(store: S3Store, key: str) -> None:
    """The server says so of the key itself, in a bucket that is there."""
    assert store.head(key) is None
    with pytest.raises(ObjectGone), store.open(key):
        pass


@pytest.mark.parametrize("key", KEYS)
def test_an_object_that_comes_between_two_looks_is_there(
    server: Service, store: S3Store, front: Front, unique: str, key: str
) -> None:
    """Where HEAD found nothing, what the GET behind it finds counts."""
    client = s3_client(server)
    client.put_object(Bucket=unique, Key=key, Body=b"[]")
    front.fault = lambda method, _target: Answer(404) if method == "HEAD" else None

    head = store.head(key)
    assert head is not None
    assert (head.key, head.size) == (key, 2)


@pytest.mark.parametrize("code", [b"InvalidObjectState", b"AccessDenied"])
@pytest.mark.parametrize("refused", [("GET",), ("GET", "HEAD")])
def test_an_empty_object_that_may_not_be_read_is_listed(
    server: Service, store: S3Store, front: Front, unique: str, code: bytes, refused: tuple[str, ...]
) -> None:
    """One that is archived, or under a key that we may not use, stops no listing, and is told from a folder's mark."""
    client = s3_client(server)
    for key in ("empty", "mark/", "mark/x.json"):
        client.put_object(Bucket=unique, Key=key, Body=b"")

    def fault(method: str, target: str) -> Answer | None:
        looked = method in refused and target.partition("?")[0].endswith("/empty")
        return Answer(403, b"<Error><Code>%s</Code></Error>" % code) if looked else None

    front.fault = fault
    assert sorted(entry.key for entry in listed(store)) == ["empty", "mark/x.json"]


def test_no_file_of_an_identity_is_no_missing_object(
    server: Service, unique: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token's file that is not there is about us, and not about what is asked for."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::role/Reader")
    store = opened(server.url, unique)
    for key in KEYS:
        with pytest.raises(UnavailableError), store.open(key):
            pass
    store.close()


def test_a_bucket_that_does_not_answer_holds_up_no_other(server: Service, front: Front, unique: str) -> None:
    """While one store waits to hear how its bucket lists, another one is told at once."""
    s3_client(server).create_bucket(Bucket=unique)
    asked, go_on = threading.Event(), threading.Event()

    def wait(target: str) -> str:
        asked.set()
        go_on.wait(30)
        return target

    front.rewrite = wait
    silent, other = opened(front.url, unique), opened(server.url, unique)
    with closing(silent), closing(other), ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(lambda: silent.ordered)
        try:
            assert asked.wait(10)
            told = pool.submit(lambda: other.ordered).result(10)
            assert not waiting.done()
        finally:
            go_on.set()
        assert waiting.result(30) is told
