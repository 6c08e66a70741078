"""The S3 store on real servers: the contract, and what only S3 has."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import services
from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import LabelfeedError, ObjectGone, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES, Store
from pipeline.stores.paths import nameable
from pipeline.stores.s3 import S3Store, open_store
from pipeline.stores.s3.options import parse
from tests.servers import s3_client
from tests.stores.contract import Made, StoreContract, listed

pytestmark = pytest.mark.usefixtures("aws")


def opened(service: Service, bucket: str, prefix: str = "") -> S3Store:
    """The store of a source on one of the servers."""
    source = Source(name="s", project="p", url=f"s3://{bucket}{prefix}", endpoint=service.url)
    return open_store(source, Path())


def made_of(service: Service, bucket: str, prefix: str = "") -> Made:
    """A store and the means to change what is in it."""
    client = s3_client(service)
    folder = f"{prefix.strip('/')}/" if prefix else ""

    def put(key: str, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=folder + key, Body=content)

    def delete(key: str) -> None:
        client.delete_object(Bucket=bucket, Key=folder + key)

    return Made(opened(service, bucket, prefix), put, delete)


class TestOnSeaweedFS(StoreContract):
    """The contract on SeaweedFS, in a whole bucket."""

    @pytest.fixture
    def made(self, seaweedfs: Service, bucket: str) -> Iterator[Made]:
        """A bucket of its own for each test."""
        made = made_of(seaweedfs, bucket)
        yield made
        made.store.close()


class TestInAPrefix(StoreContract):
    """The contract on SeaweedFS, in a folder of a bucket that holds others."""

    @pytest.fixture
    def made(self, seaweedfs: Service, bucket: str) -> Iterator[Made]:
        """A folder of its own for each test, with neighbours before and after it."""
        client = s3_client(seaweedfs)
        for key in ("in", "in-a", "in/other/x", "in/boxes", "in/box0/z", "zz"):
            client.put_object(Bucket=bucket, Key=key, Body=b"neighbour")
        made = made_of(seaweedfs, bucket, "/in/box")
        yield made
        made.store.close()


class TestOnVersitygw(StoreContract):
    """The contract on versitygw."""

    @pytest.fixture
    def made(self, versitygw: Service, unique: str) -> Iterator[Made]:
        """A bucket of its own for each test."""
        s3_client(versitygw).create_bucket(Bucket=unique)
        made = made_of(versitygw, unique)
        yield made
        made.store.close()


if services.obtained("minio"):
    # It takes minutes to build, and is on request: `python -m deploy.services up minio`.

    class TestOnMinio(StoreContract):
        """The contract on MinIO."""

        @pytest.fixture
        def made(self, unique: str) -> Iterator[Made]:
            """A bucket of its own for each test."""
            with services.using("minio") as minio:
                s3_client(minio).create_bucket(Bucket=unique)
                made = made_of(minio, unique)
                yield made
                made.store.close()


class TestWithVersioning(StoreContract):
    """The contract on a bucket with versioning."""

    @pytest.fixture
    def made(self, versitygw: Service, unique: str) -> Iterator[Made]:
        """A bucket of its own with versioning for each test."""
        client = s3_client(versitygw)
        client.create_bucket(Bucket=unique)
        client.put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
        made = made_of(versitygw, unique)
        yield made
        made.store.close()


@pytest.fixture
def bucket(seaweedfs: Service, unique: str) -> Iterator[str]:
    """A bucket of this test alone on SeaweedFS."""
    client = s3_client(seaweedfs)
    client.create_bucket(Bucket=unique)
    yield unique
    for row in client.list_objects_v2(Bucket=unique).get("Contents", []):
        client.delete_object(Bucket=unique, Key=row["Key"])
    client.delete_bucket(Bucket=unique)


@pytest.fixture
def made(seaweedfs: Service, bucket: str) -> Iterator[Made]:
    """A store on that bucket."""
    made = made_of(seaweedfs, bucket)
    yield made
    made.store.close()


def test_the_etag_has_no_quotes_and_a_version_id_counts_where_there_is_one(versitygw: Service, unique: str) -> None:
    """Without versioning the version is the bare ETag; with it, the version id, in listing, head and reading."""
    client = s3_client(versitygw)
    client.create_bucket(Bucket=unique)
    plain = client.put_object(Bucket=unique, Key="a", Body=b"1")["ETag"].strip('"')
    store = opened(versitygw, unique)
    assert [entry.version for entry in listed(store)] == [plain]
    store.close()

    client.put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
    latest = client.put_object(Bucket=unique, Key="b", Body=b"2")["VersionId"]
    store = opened(versitygw, unique)
    head = store.head("b")
    with store.open("b") as reading:
        assert {reading.entry.version, head.version if head else None} == {latest}
    assert [entry.version for entry in listed(store)] == [plain, latest]
    assert store.versioned
    store.close()


def test_a_versioned_listing_gives_the_latest_of_each_key_only(versitygw: Service, unique: str) -> None:
    """Old versions and deleted objects are passed over, however the pages fall."""
    client = s3_client(versitygw)
    client.create_bucket(Bucket=unique)
    client.put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
    latest = {}
    for key in ("a", "b", "c", "d"):
        for body in (b"1", b"22", b"333"):
            latest[key] = client.put_object(Bucket=unique, Key=key, Body=body)["VersionId"]
    client.delete_object(Bucket=unique, Key="b")
    store = opened(versitygw, unique)

    for limit in (1, 2, 3, 1000):
        entries = listed(store, limit)
        assert {entry.key: entry.version for entry in entries} == {key: latest[key] for key in ("a", "c", "d")}
        assert {entry.size for entry in entries} == {3}
    assert store.head("b") is None
    store.close()


@pytest.mark.parametrize("key", ["folder/", "line\nbreak.txt", "tab\tbed.txt"])
def test_keys_that_obstore_cannot_name_are_read_all_the_same(made: Made, key: str) -> None:
    """boto3 takes over where a key is no path; a folder's mark is no object."""
    made.put("before", b"b")
    made.put(key, b"" if key.endswith("/") else b"odd")
    made.put("zz", b"z")
    keys = ["before", "zz"] if key.endswith("/") else ["before", key, "zz"]

    assert [entry.key for entry in listed(made.store)] == keys
    assert [entry.key for entry in listed(made.store, 1)] == keys
    if key in keys:
        with made.store.open(key) as reading:
            assert reading.content == b"odd"


def test_what_obstore_can_name() -> None:
    """Empty, dotted and unprintable segments are no path's."""
    assert all(map(nameable, ["a", "a/b", "a..b/.c", "...", "ü +%"]))
    assert not any(map(nameable, ["/a", "a/", "a//b", ".", "a/../b", "./a", "a/..", "a\nb", "\x7f"]))


def test_a_large_object_that_changes_while_it_is_read_is_unsettled(made: Made) -> None:
    """Every range is of the version that was opened; another version's bytes never mix in."""
    made.put("large", b"a" * (20 * SMALL_BYTES))
    with made.store.open("large") as reading:
        stream = reading.stream()
        assert stream.read(10) == b"a" * 10
        made.put("large", b"b" * (20 * SMALL_BYTES))
        with pytest.raises(ObjectUnsettled):
            stream.read()
        with pytest.raises(ObjectUnsettled):
            reading.stream().read(1)


def test_a_large_object_that_is_deleted_while_it_is_read_is_gone(made: Made) -> None:
    """A range of what is no longer there says so."""
    made.put("large", b"a" * (20 * SMALL_BYTES))
    with made.store.open("large") as reading:
        made.delete("large")
        with pytest.raises(ObjectGone):
            reading.stream().read()


def test_a_presigned_url_needs_no_credentials(made: Made) -> None:
    """Anybody can read by a signed URL, whatever the key's characters."""
    made.put("a b+ü.txt", b"content")

    with urllib.request.urlopen(made.store.sign("a b+ü.txt", 60)) as answer:
        assert answer.read() == b"content"


def test_many_threads_read_at_once(made: Made) -> None:
    """The store allows many requests under way, and says how many are wise."""
    from concurrent.futures import ThreadPoolExecutor

    for number in range(50):
        made.put(f"k{number}", str(number).encode())

    def read(number: int) -> bytes | None:
        with made.store.open(f"k{number}") as reading:
            return reading.content

    assert made.store.concurrency == 64  # type: ignore[attr-defined]  # what the importer asks for
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(read, range(50))) == [str(number).encode() for number in range(50)]


def outcomes(store: Store) -> Iterator[LabelfeedError]:
    """What each way to use a store raises."""

    def read() -> None:
        with store.open("k"):
            pass

    uses: list[Any] = [store.ping, lambda: store.list(None, 10), lambda: store.head("k"), read]
    for use in uses:
        with pytest.raises(LabelfeedError) as caught:
            use()
        yield caught.value


def test_wrong_credentials_are_said_without_them(
    seaweedfs: Service, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is no fault of the object, may end, and quotes no secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    store = opened(seaweedfs, bucket)

    for error in outcomes(store):
        assert isinstance(error, UnavailableError)
        assert "hunter2" not in f"{error} {error.__cause__} {error.args}"
    store.close()


def test_a_bucket_that_is_not_there_is_for_a_person(seaweedfs: Service, unique: str) -> None:
    """A wrong bucket is an error of the configuration."""
    store = opened(seaweedfs, f"{unique}-not")

    with pytest.raises(UsageError, match="NoSuchBucket"):
        store.list(None, 10)
    store.close()


def test_a_store_that_is_not_there_is_unavailable(seaweedfs: Service) -> None:
    """Nobody listens: it may work later."""
    store = open_store(
        Source(name="s", project="p", url="s3://b/p?versions=false", endpoint="http://127.0.0.1:1"), Path()
    )

    with pytest.raises(UnavailableError):
        store.list(None, 10)
    store.close()


def test_without_credentials_a_person_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials anywhere is an error of the configuration, and `anonymous` needs none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(UsageError, match="credentials"):
        open_store(Source(name="s", project="p", url="s3://b"), Path())
    open_store(Source(name="s", project="p", url="s3://b?anonymous=true"), Path()).close()


def test_the_standard_variables_hold(
    made: Made, seaweedfs: Service, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_ENDPOINT_URL is the endpoint where the source names none, for listing and bytes alike."""
    made.put("k", b"v")
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.url)
    store = open_store(Source(name="s", project="p", url=f"s3://{bucket}"), Path())

    assert [entry.key for entry in listed(store)] == ["k"]
    with store.open("k") as reading:
        assert reading.content == b"v"
    assert store.identity() == made.store.identity()
    store.close()


def test_what_a_whole_key_is_to_a_store() -> None:
    """A notification's bucket and key belong to the stores whose folder they are in."""
    store = S3Store(parse("s3://b/in/box?versions=false"))

    assert store.concerns("b", "in/box/a/b.json") == "a/b.json"
    assert store.uri("a/b.json") == "s3://b/in/box/a/b.json"
    assert store.concerns("c", "in/box/a") is None
    assert {store.concerns("b", key) for key in ("in/boxes", "in/box/", "in/box/x/")} == {None}
    store.close()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("s3://", "bucket"),
        ("s3://b?regoin=x", "region"),
        ("s3://b?concurrency=0", "concurrency"),
        ("s3://k:hunter2@b", "credentials"),
    ],
)
def test_a_wrong_url_is_explained(url: str, word: str) -> None:
    """What is wrong with an URL is said, with what would be right, and without its secret."""
    with pytest.raises(UsageError, match=word) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_an_encryption_key_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSE-C needs 32 bytes in base64; anything else is said without quoting it."""
    monkeypatch.setenv("MY_KEY", "hunter2")
    with pytest.raises(UsageError, match="MY_KEY") as caught:
        S3Store(parse("s3://b?sse_c_key_variable=MY_KEY"))
    assert "hunter2" not in str(caught.value)


def test_a_folders_mark_is_told_from_an_empty_object(made: Made) -> None:
    """They look alike to obstore; the store looks, one by one or, where they are many, by another listing."""
    for number in range(3):
        made.put(f"mark{number}/", b"")
        made.put(f"mark{number}/x", b"x")
        made.put(f"none{number}", b"")
    few = [entry.key for entry in listed(made.store)]
    for number in range(20):
        made.put(f"also{number:02}", b"")
    many = [entry.key for entry in listed(made.store)]

    assert sorted(few) == sorted([f"mark{n}/x" for n in range(3)] + [f"none{n}" for n in range(3)])
    assert sorted(many) == sorted(few + [f"also{number:02}" for number in range(20)])


def test_a_server_is_asked_whether_it_lists_in_byte_order(seaweedfs: Service, versitygw: Service, unique: str) -> None:
    """SeaweedFS lists folder by folder, versitygw key by key; what a source says of it counts before that."""
    found = {}
    for service in (seaweedfs, versitygw):
        s3_client(service).create_bucket(Bucket=unique)
        store = opened(service, unique)
        found[service.name] = store.ordered
        store.close()
    said = opened(seaweedfs, unique, "?ordered=true")

    assert found == {"seaweedfs": False, "versitygw": True}
    assert said.ordered
    for key in ("a b", "a/b"):
        s3_client(seaweedfs).put_object(Bucket=unique, Key=key, Body=b"x")
    with pytest.raises(UnavailableError, match="byte order"):
        said.list(None, 10)
    assert not said.ordered
    said.close()
