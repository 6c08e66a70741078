"""The Google Cloud Storage store on fake-gcs-server: the contract, and what only Google has."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import LabelfeedError, ObjectFailed, ObjectGone, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES, Store
from pipeline.stores.gcs import GcsStore, access, open_store
from pipeline.stores.gcs.options import parse
from tests.google_front import Answer, Asked, Front, front_of, refused, refused_xml
from tests.servers import gcs_client
from tests.stores.contract import Made, StoreContract, listed

pytestmark = pytest.mark.usefixtures("google")


def opened(url: str, bucket: str, more: str = "") -> GcsStore:
    """The store of a source on a server."""
    return open_store(Source(name="s", project="p", url=f"gs://{bucket}{more}", endpoint=url), Path())


def made_of(service: Service, bucket: str, prefix: str = "") -> Made:
    """A store and the means to change what is in it."""
    held = gcs_client(service).bucket(bucket)
    folder = f"{prefix.strip('/')}/" if prefix else ""

    def put(key: str, content: bytes) -> None:
        held.blob(folder + key).upload_from_string(content, "text/plain")

    def delete(key: str) -> None:
        held.blob(folder + key).delete()

    return Made(opened(service.url, bucket, prefix), put, delete)


@pytest.fixture
def bucket(fakegcs: Service, unique: str) -> str:
    """A bucket of this test alone."""
    gcs_client(fakegcs).create_bucket(unique)
    return unique


@pytest.fixture
def made(fakegcs: Service, bucket: str) -> Iterator[Made]:
    """A store on that bucket."""
    made = made_of(fakegcs, bucket)
    yield made
    made.store.close()


@pytest.fixture
def front(fakegcs: Service) -> Iterator[Front]:
    """A server before fake-gcs-server that does what it leaves out."""
    with front_of(fakegcs.url) as front:
        yield front


class TestOnFakeGcs(StoreContract):
    """The contract in a whole bucket."""


class TestInAPrefix(StoreContract):
    """The contract in a folder of a bucket that holds others."""

    @pytest.fixture
    def made(self, fakegcs: Service, bucket: str) -> Iterator[Made]:
        """A folder of its own for each test, with neighbours before and after it."""
        held = gcs_client(fakegcs).bucket(bucket)
        for key in ("in", "in-a", "in/other/x", "in/boxes", "in/box0/z", "zz"):
            held.blob(key).upload_from_string(b"neighbour")
        made = made_of(fakegcs, bucket, "/in/box")
        yield made
        made.store.close()


class TestByTheFullWay(StoreContract):
    """The contract where obstore names no key: google-cloud-storage alone carries all."""

    @pytest.fixture
    def made(self, fakegcs: Service, bucket: str) -> Iterator[Made]:
        """A folder whose name is no path."""
        made = made_of(fakegcs, bucket, "in//box")
        yield Made(opened(fakegcs.url, bucket, "/in//box"), made.put, made.delete)
        made.store.close()


def test_the_version_is_the_generation(made: Made, fakegcs: Service, bucket: str) -> None:
    """In a listing, a look and a reading alike."""
    made.put("a", b"1")
    generation = str(gcs_client(fakegcs).bucket(bucket).get_blob("a").generation)
    head = made.store.head("a")

    assert [entry.version for entry in listed(made.store)] == [generation]
    with made.store.open("a") as reading:
        assert [reading.entry.version, head.version if head else None] == [generation] * 2


LONG = "é" * 511 + "ab"
ODD = ["/leading.txt", "//two", "a//b", "x/../y.txt", "./z", "line\nbreak", "tab\tbed", "50% + ü&?#.txt", "*[x]", LONG]


def test_odd_keys_are_read_all_the_same(made: Made) -> None:
    """google-cloud-storage takes over where a key is no path: slashes, dots, control characters, 1,024 bytes."""
    assert len(LONG.encode()) == 1024
    for key in ODD:
        made.put(key, key.encode())

    for limit in (1, 3, 1000):
        assert [entry.key for entry in listed(made.store, limit)] == sorted(ODD, key=str.encode)
    for key in ODD:
        with made.store.open(key) as reading:
            assert (reading.content, reading.entry) == (key.encode(), made.store.head(key))


def test_folders_marks_are_left_out(made: Made) -> None:
    """Keys that end with a slash are none of ours, however many come in a row, and empty objects are."""
    for number in range(12):
        made.put(f"mark{number:02}/", b"")
    made.put("empty", b"")
    made.put("zz/x", b"x")

    for limit in (1, 2, 5, 1000):
        assert [entry.key for entry in listed(made.store, limit)] == ["empty", "zz/x"]


def test_a_listing_of_marks_alone_is_empty(made: Made) -> None:
    """A page in which nothing is left leads to the next one, and to the end."""
    for number in range(5):
        made.put(f"mark{number}/", b"")

    assert made.store.list(None, 1) == made.store.list(None, 1000)
    assert (made.store.list(None, 1).entries, made.store.list(None, 1).complete) == ([], True)


def test_what_is_stored_compressed_is_read_as_stored(made: Made, fakegcs: Service, bucket: str, front: Front) -> None:
    """Google unpacks `Content-Encoding: gzip` unless it is asked not to; its length is then the stored one."""
    blob = gcs_client(fakegcs).bucket(bucket).blob("rows.csv.gz")
    blob.content_encoding = "gzip"
    blob.upload_from_string(b"\x1f\x8b packed", "text/csv")
    store = opened(front.url, bucket)

    with store.open("rows.csv.gz") as reading:
        assert reading.content == b"\x1f\x8b packed"
    assert [one.headers["accept-encoding"] for one in front.store_requests()] == ["gzip"]
    store.close()


# --- a generation is a condition -------------------------------------------------------------------------------------

LARGE = b"a" * (20 * SMALL_BYTES)


def test_a_large_object_that_changes_while_it_is_read_is_unsettled(made: Made, front: Front, bucket: str) -> None:
    """Every range is asked for on condition of the generation that was opened. fake-gcs-server doesn't enforce that
    on downloads, so that the 412 is the front's."""
    made.put("large", LARGE)
    store = opened(front.url, bucket)
    with store.open("large") as reading:
        stream = reading.stream()
        assert stream.read(10) == b"a" * 10
        made.put("large", b"b" * len(LARGE))
        with pytest.raises(ObjectUnsettled):
            stream.read()
        with pytest.raises(ObjectUnsettled):
            reading.stream().read(1)
    conditions = {tuple(one.query["ifGenerationMatch"]) for one in front.asked if one.path.startswith("/download/")}

    assert conditions == {(reading.entry.version,)}
    store.close()


def test_a_small_object_by_the_full_way_is_read_of_the_generation_that_was_looked_at(
    made: Made, front: Front, bucket: str
) -> None:
    """Where it takes two requests, the second is conditional on what the first has found."""
    made.put("a//b", b"1")
    store = opened(front.url, bucket)

    def replaced(request: Asked) -> Answer | None:
        if request.path.startswith("/download/"):
            front.rules.remove(replaced)
            made.put("a//b", b"2")
        return None

    front.rules.append(replaced)
    with pytest.raises(ObjectUnsettled), store.open("a//b"):
        pass
    with store.open("a//b") as reading:
        assert reading.content == b"2"
    store.close()


def test_a_large_object_that_is_deleted_while_it_is_read_is_gone(made: Made) -> None:
    """A range of what is no longer there says so."""
    made.put("large", LARGE)
    with made.store.open("large") as reading:
        made.delete("large")
        with pytest.raises(ObjectGone):
            reading.stream().read()


def test_many_threads_read_at_once(made: Made) -> None:
    """The store allows many requests under way, and says how many are wise."""
    for number in range(50):
        made.put(f"k{number}", str(number).encode())

    def read(number: int) -> bytes | None:
        with made.store.open(f"k{number}") as reading:
            return reading.content

    assert made.store.concurrency == 64  # type: ignore[attr-defined]  # what the importer asks for
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(read, range(50))) == [str(number).encode() for number in range(50)]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def outcomes(store: Store) -> Iterator[LabelfeedError]:
    """What each way to use a store raises."""

    def read(key: str) -> None:
        with store.open(key):
            pass

    for use in (
        store.ping, lambda: store.list(None, 10), lambda: store.head("k"), lambda: read("k"), lambda: read("k//l"),
    ):  # fmt: skip
        with pytest.raises(LabelfeedError) as caught:
            use()
        yield caught.value


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries try again for a moment only."""
    monkeypatch.setattr(access, "RETRY", access.RETRY.with_timeout(0.2))
    monkeypatch.setattr(access, "ATTEMPTS", 1)


def test_a_bucket_that_is_not_there_is_for_a_person(fakegcs: Service, unique: str) -> None:
    """A wrong bucket is an error of the configuration."""
    store = opened(fakegcs.url, f"{unique}-not")

    with pytest.raises(UsageError, match="no bucket"):
        store.list(None, 10)
    store.close()


@pytest.mark.parametrize("key", ["k", "k//l"])
def test_an_object_of_a_bucket_that_is_not_there_is_not_gone(front: Front, bucket: str, key: str) -> None:
    """That a bucket has vanished is no word on its objects: they are asked for again."""
    gone = "The specified bucket does not exist."
    front.rules.append(
        lambda one: refused_xml(404, "NoSuchBucket") if one.path.startswith(f"/{bucket}") else refused(404, "x", gone)
    )
    store = opened(front.url, bucket)

    with pytest.raises(UnavailableError, match="bucket"), store.open(key):
        pass
    with pytest.raises(UnavailableError, match="bucket"):
        store.head(key)
    store.close()


@pytest.mark.parametrize("key", ["503 Service Unavailable", "NoSuchBucket", "bucket does not exist/a//b", "401 No"])
def test_a_missing_key_that_reads_like_an_error_is_just_missing(made: Made, key: str) -> None:
    """Error messages quote keys; what they say there is not believed."""
    assert made.store.head(key) is None
    with pytest.raises(ObjectGone), made.store.open(key):
        pass


def test_a_server_that_always_lists_from_the_start_is_not_listed_for_ever(
    made: Made, front: Front, bucket: str
) -> None:
    """Some emulators ignore where a listing is to begin: that is said, as it would never end."""
    for number in range(4):
        made.put(f"k{number}", b"x")
    store = opened(front.url, bucket)

    def forgetful(request: Asked) -> Answer | None:
        if "startOffset" not in request.query:
            return None
        return front.answer(request._replace(target=f"{request.path}?maxResults=2"))

    front.rules.append(forgetful)
    page = store.list(None, 2)
    with pytest.raises(UnavailableError, match="stands still"):
        store.list(page.entries[-1].key, 1)
    store.close()


def denies(request: Asked) -> Answer | None:
    """Lets keys be listed, and none be read or looked at."""
    if request.path.startswith("/storage/"):
        return None if request.path.endswith("/o") else refused(403, "forbidden")
    return refused(403, "forbidden") if request.path.startswith("/download/") else refused_xml(403, "AccessDenied")


@pytest.mark.parametrize("key", ["k", "k//l"])
def test_a_permission_that_lists_and_does_not_read(made: Made, front: Front, bucket: str, key: str) -> None:
    """The object fails with what to grant, and the listing goes on."""
    made.put(key, b"x")
    front.rules.append(denies)
    store = opened(front.url, bucket)

    assert [entry.key for entry in listed(store)] == [key]
    with pytest.raises(ObjectFailed) as caught, store.open(key):
        pass
    assert caught.value.code == "permission"
    assert "storage.objects.get" in str(caught.value.hint)
    store.close()


def test_a_permission_that_does_not_list(front: Front, bucket: str) -> None:
    """It concerns no object, and ends when a person grants it."""
    front.rules.append(lambda _: refused(403, "forbidden"))
    store = opened(front.url, bucket)

    with pytest.raises(UnavailableError, match=r"storage\.objects\.list") as caught:
        store.list(None, 10)
    assert caught.value.code == "permission"
    store.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_store_says_how_long_to_wait(front: Front, bucket: str, status: int) -> None:
    """Google's Retry-After reaches whoever tries again."""
    front.rules.append(lambda _: refused(status, "rateLimitExceeded", Retry_After="7"))
    store = opened(front.url, bucket)

    for error in outcomes(store):
        assert isinstance(error, UnavailableError)
        assert "slow down" in str(error)
    with pytest.raises(UnavailableError) as caught:
        store.list(None, 10)
    assert caught.value.retry_after == 7
    store.close()


def test_a_moment_of_throttling_in_mid_listing_is_not_noticed(made: Made, front: Front, bucket: str) -> None:
    """One 429 is waited for by the library itself."""
    for number in range(5):
        made.put(f"k{number}", b"x")
    store = opened(front.url, bucket)
    page = store.list(None, 2)

    def once(_: Asked) -> Answer | None:
        front.rules.remove(once)
        return refused(429, "rateLimitExceeded")

    front.rules.append(once)
    rest = store.list(page.entries[-1].key, 1000)

    assert [entry.key for entry in [*page.entries, *rest.entries]] == [f"k{number}" for number in range(5)]
    assert not front.rules
    store.close()


@pytest.mark.usefixtures("impatient")
def test_a_page_that_fails_in_mid_pass_is_asked_for_again(made: Made, front: Front, bucket: str) -> None:
    """A listing goes on after the key where it has failed, and leaves nothing out."""
    for number in range(5):
        made.put(f"k{number}", b"x")
    store = opened(front.url, bucket)
    page = store.list(None, 2)
    front.rules.append(lambda _: refused(500, "backendError"))
    with pytest.raises(UnavailableError):
        store.list(page.entries[-1].key, 1000)
    front.rules.clear()
    rest = store.list(page.entries[-1].key, 1000)

    assert [entry.key for entry in [*page.entries, *rest.entries]] == [f"k{number}" for number in range(5)]
    store.close()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (refused(400, "required", "User project specified in the request is invalid."), "user_project"),
        (refused(400, "resourceIsEncryptedWithCustomerEncryptionKey"), "Cloud KMS"),
    ],
)
def test_what_only_a_person_can_mend_says_how(front: Front, bucket: str, answer: Answer, word: str) -> None:
    """A bucket whose requester pays, an object under a key of its own: the object fails with a hint."""
    front.rules.append(lambda _: answer)
    store = opened(front.url, bucket)

    with pytest.raises(ObjectFailed) as caught, store.open("k//l"):
        pass
    assert (caught.value.code, word in str(caught.value.hint)) == ("permission", True)
    store.close()


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_not_there_is_unavailable() -> None:
    """Nobody listens: it may work later."""
    store = opened("http://127.0.0.1:1", "b")

    assert all(isinstance(error, UnavailableError) for error in outcomes(store))
    store.close()


# --- how a source names it -----------------------------------------------------------------------------------------


def test_the_emulators_variable_holds(
    made: Made, fakegcs: Service, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STORAGE_EMULATOR_HOST is the endpoint where the source names none, with or without its scheme."""
    made.put("k", b"v")
    for host in (fakegcs.url, fakegcs.url.removeprefix("http://")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        store = open_store(Source(name="s", project="p", url=f"gs://{bucket}"), Path())
        assert [entry.key for entry in listed(store)] == ["k"]
        with store.open("k") as reading:
            assert reading.content == b"v"
        assert store.identity() == made.store.identity()
        store.close()


def test_who_pays_is_told_with_every_request(made: Made, front: Front, bucket: str) -> None:
    """`user_project` goes with listings, bytes, ranges and looks."""
    made.put("k", b"v")
    made.put("k//l", b"v")
    store = opened(front.url, bucket, "?user_project=payer")
    listed(store)
    for key in ("k", "k//l"):
        assert store.head(key)
        with store.open(key):
            pass

    asked = front.store_requests()
    told = [one.headers.get("x-goog-user-project", "") + "".join(one.query.get("userProject", ())) for one in asked]
    assert list(zip(told, asked, strict=True)) == [("payer", one) for one in asked]
    store.close()


def test_what_a_whole_key_is_to_a_store() -> None:
    """A notification's bucket and key belong to the stores whose folder they are in, of Google's buckets only."""
    store = GcsStore(parse("gs://b/in/box?anonymous=true"))

    assert store.concerns("gs://b", "in/box/a/b.json") == "a/b.json"
    assert store.uri("a/b.json") == "gs://b/in/box/a/b.json"
    assert {store.concerns(bucket, "in/box/a") for bucket in ("b", "gs://c")} == {None}
    assert {store.concerns("gs://b", key) for key in ("in/boxes", "in/box/", "in/box/x/")} == {None}
    store.close()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("gs://", "bucket"),
        ("gs://b?user_projcet=x", "user_project"),
        ("gs://b?concurrency=0", "concurrency"),
        ("gs://k:hunter2@b", "credentials"),
    ],
)
def test_a_wrong_url_is_explained(url: str, word: str) -> None:
    """What is wrong with an URL is said, with what would be right, and without its secret."""
    with pytest.raises(UsageError, match=word) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
