"""The Azure store on Azurite: the contract, and what only Azure has."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from deploy.services import Service
from deploy.services.azure import ACCOUNT, KEY
from pipeline.config import Source
from pipeline.errors import (
    LabelfeedError,
    ObjectFailed,
    ObjectGone,
    ObjectSkipped,
    ObjectUnsettled,
    UnavailableError,
    UsageError,
)
from pipeline.stores import SMALL_BYTES, Store
from pipeline.stores.azure import AzureStore, open_store
from pipeline.stores.azure.options import parse
from tests.stores.contract import Made, StoreContract, listed
from tests.stores.front import Answer, Front, front_of

SECRET = "aHVudGVyMmh1bnRlcjI="


def opened(container: str, prefix: str = "", **more: Any) -> AzureStore:
    """The store of a source in a container of Azurite, found by the connection string."""
    return open_store(Source(name="s", project="p", url=f"az://{container}{prefix}", **more), Path())


def made_of(client: Any, container: str, prefix: str = "") -> Made:
    """A store and the means to change what is in it."""
    blobs = client.get_container_client(container)
    folder = f"{prefix.strip('/')}/" if prefix else ""

    def put(key: str, content: bytes) -> None:
        blobs.upload_blob(folder + key, content, overwrite=True)

    def delete(key: str) -> None:
        blobs.delete_blob(folder + key)

    return Made(opened(container, prefix), put, delete)


@pytest.fixture
def container(azure: Any, unique: str) -> Iterator[str]:
    """A container of this test alone."""
    azure.create_container(unique)
    yield unique
    azure.delete_container(unique)


@pytest.fixture
def made(azure: Any, container: str) -> Iterator[Made]:
    """A store on that container."""
    made = made_of(azure, container)
    yield made
    made.store.close()


class TestOnAzurite(StoreContract):
    """The contract in a whole container."""


class TestInAPrefix(StoreContract):
    """The contract in a folder of a container that holds others."""

    @pytest.fixture
    def made(self, azure: Any, container: str) -> Iterator[Made]:
        """A folder of its own for each test, with neighbours before and after it."""
        blobs = azure.get_container_client(container)
        for key in ("in", "in-a", "in/other/x", "in/boxes", "in/box0/z", "zz"):
            blobs.upload_blob(key, b"neighbour")
        made = made_of(azure, container, "/in/box")
        yield made
        made.store.close()


@contextmanager
def logged_in(monkeypatch: pytest.MonkeyPatch, container: str, url: str, **variables: str) -> Iterator[AzureStore]:
    """The store at an endpoint, with nothing but these variables to log in by."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = opened(container, account=ACCOUNT, endpoint=url)
    yield store
    store.close()


def signature(**permissions: bool) -> str:
    """A shared access signature of the account with these permissions."""
    return generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(**permissions),
        datetime.now(UTC) + timedelta(hours=1),
    )


def refusing(status: int, code: str, *when: str) -> Callable[[str, str], Answer | None]:
    """A fault: Azure's error for every target that holds one of these texts."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()
    headers = [("x-ms-error-code", code), ("Content-Type", "application/xml")]

    def fault(_method: str, target: str) -> Answer | None:
        return Answer(status, body, headers) if any(text in target for text in when) else None

    return fault


@pytest.fixture
def front(azurite: Service) -> Iterator[Front]:
    """A server before Azurite that a test can let fail."""
    with front_of(azurite.url) as front:
        yield front


# --- keys and listings ------------------------------------------------------------------------------------------


LONG = "é" * 511 + "ab"
"""A key of 1,024 bytes."""


@pytest.mark.parametrize(
    "key",
    [
        "folder/",
        "line\nbreak.txt",
        "tab\tbed.txt",
        "a//b",
        " /x",
        "/leading",
        "//two",
        "50% + ü",
        LONG,
    ],
)
def test_keys_that_obstore_cannot_name_are_read_all_the_same(made: Made, key: str) -> None:
    """Azure's client takes over where a key is no path; a folder's mark is no object."""
    made.put("A", b"b")
    made.put(key, b"" if key.endswith("/") else b"odd")
    made.put("zz", b"z")
    keys = sorted(["A", "zz"] if key.endswith("/") else ["A", key, "zz"])

    assert [entry.key for entry in listed(made.store)] == keys
    assert [entry.key for entry in listed(made.store, 1)] == keys
    assert [entry.key for entry in opened_as(made).list("A", 10).entries] == [name for name in keys if name > "A"]
    if key in keys:
        head = made.store.head(key)
        with made.store.open(key) as reading:
            assert reading.content == b"odd"
            assert head is not None
            assert head.version == reading.entry.version


def opened_as(made: Made) -> AzureStore:
    """Another store of the same place, as after a restart."""
    assert isinstance(made.store, AzureStore)
    return AzureStore(made.store.options)


@pytest.mark.parametrize("key", ["../b", "a/../../b", "./b", "a/..", ".."])
def test_a_name_that_leads_elsewhere_is_not_asked_for(made: Made, container: str, key: str) -> None:
    """Azure's client takes two dots for the folder above: nothing beside the source is read, nor a link made to it."""
    made.put("b", b"secret")
    store = opened(container, "inbox")
    assert store.head(key) is None
    for ask in (lambda: store.open(key), lambda: store.sign(key, 60)):
        with pytest.raises(ObjectFailed, match=r"\. or \.\. in it"):
            ask()


def test_a_large_blob_of_an_odd_name_is_read_in_ranges_of_one_version(made: Made) -> None:
    """Azure's client reads ranges as obstore does: conditional on what was opened."""
    body = bytes(range(256)) * (9 * SMALL_BYTES // 256)
    made.put("odd//large", body)
    with made.store.open("odd//large") as reading:
        assert reading.content is None
        assert reading.stream().read() == body
        stream = reading.stream()
        stream.read(1)
        made.put("odd//large", body[::-1])
        with pytest.raises(ObjectUnsettled):
            reading.stream().read()


@pytest.mark.parametrize("mark", ["slash", "metadata"])
def test_folders_marks_are_told_from_empty_blobs(azure: Any, container: str, made: Made, mark: str) -> None:
    """They look alike to obstore; the store looks, one by one or, where they are many, by another listing."""
    blobs = azure.get_container_client(container)
    for number in range(3):
        name = f"mark{number}/" if mark == "slash" else f"mark{number}"
        blobs.upload_blob(name, b"", metadata=None if mark == "slash" else {"hdi_isfolder": "true"})
        made.put(f"mark{number}/x", b"x")
        made.put(f"none{number}", b"")
    few = [entry.key for entry in listed(made.store)]
    for number in range(20):
        made.put(f"also{number:02}", b"")
    many = [entry.key for entry in listed(made.store)]

    assert few == sorted([f"mark{n}/x" for n in range(3)] + [f"none{n}" for n in range(3)])
    assert many == sorted(few + [f"also{number:02}" for number in range(20)])
    assert [entry.key for entry in listed(made.store, 5)] == many


@pytest.mark.parametrize("query", ["", "?ordered=true", "?ordered=false"])
def test_a_listing_changes_clients_in_its_middle(made: Made, container: str, query: str) -> None:
    """Where many empty blobs begin, Azure's client goes on: after what was given, or where there is no order anew."""
    keys = [f"a{number:02}" for number in range(20)] + [f"b{number:02}" for number in range(20)]
    for key in keys:
        made.put(key, b"x" if key < "b" else b"")
    store = opened(container, query)
    found = [entry.key for entry in listed(store, 20)]
    store.close()

    assert found == (keys if query != "?ordered=false" else keys[:20] + keys)


def test_a_listing_changes_clients_at_an_odd_key_behind_others(
    made: Made, front: Front, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What obstore gave before the server's page with the odd key is not given again."""
    keys = [*(f"k{number}" for number in range(7)), "l\nm", "n//o", "p"]
    for key in keys:
        made.put(key, b"x")
    front.rewrite = lambda target: f"{target}&maxresults=3" if "comp=list" in target else target
    with logged_in(monkeypatch, container, front.url, AZURE_STORAGE_SAS_TOKEN=signature(list=True)) as store:
        assert [entry.key for entry in listed(store, 3)] == keys
        assert [entry.key for entry in listed(store, 4)] == keys


def test_a_blob_and_a_folders_mark_of_one_name_are_two(made: Made) -> None:
    """`a` is an object though `a/` is a folder's mark, and keeps its own version and size."""
    made.put("a", b"content")
    made.put("a/", b"")
    made.put("a/b", b"x")

    assert [(entry.key, entry.size) for entry in listed(made.store)] == [("a", 7), ("a/b", 1)]
    assert listed(made.store)[0] == made.store.head("a")


def test_a_listing_out_of_byte_order_is_found_out(made: Made) -> None:
    """Azurite compares UTF-16: where that shows, the store says so once and is listed as one without order."""
    keys = {"\uffee.txt", "🦡.txt", "a"}
    for key in keys:
        made.put(key, b"x")
    assert made.store.ordered
    with pytest.raises(UnavailableError, match="byte order"):
        listed(made.store)

    assert not made.store.ordered
    assert {entry.key for entry in listed(made.store)} == keys
    assert {entry.key for entry in listed(made.store, 1)} == keys
    # Where nothing tells what comes after a key, a listing that can't be gone on with begins anew.
    assert {entry.key for entry in made.store.list("zz", 10).entries} == keys


def test_what_a_source_says_of_the_order_counts(container: str) -> None:
    """`ordered=false` is believed without asking."""
    store = opened(container, "?ordered=false")
    assert not store.ordered
    store.close()


# --- one blob -----------------------------------------------------------------------------------------------------


def test_the_version_is_the_bare_etag(azure: Any, made: Made, container: str) -> None:
    """Listing, head and reading give the ETag as Azure makes it, without quotes."""
    made.put("k", b"v")
    etag = azure.get_blob_client(container, "k").get_blob_properties().etag.strip('"')
    with made.store.open("k") as reading:
        found = {reading.entry.version}
    found |= {entry.version for entry in [made.store.head("k"), *listed(made.store)] if entry is not None}

    assert found == {etag}


def test_a_large_blob_that_changes_while_it_is_read_is_unsettled(made: Made) -> None:
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


def test_a_large_blob_that_is_deleted_while_it_is_read_is_gone(made: Made) -> None:
    """A range of what is no longer there is of no version, and the next look says that it is gone."""
    made.put("large", b"a" * (20 * SMALL_BYTES))
    with made.store.open("large") as reading:
        made.delete("large")
        with pytest.raises((ObjectGone, ObjectUnsettled)):  # a missing blob fails the condition, too
            reading.stream().read()
    with pytest.raises(ObjectGone), made.store.open("large"):
        pass


@pytest.mark.parametrize("key", ["k", "odd//k"])
def test_an_archived_blob_is_skipped_until_it_is_rehydrated(azure: Any, made: Made, container: str, key: str) -> None:
    """It is listed, can't be read, says what to do, and is the same version when it can be read again."""
    made.put(key, b"cold")
    blob = azure.get_blob_client(container, key)
    blob.set_standard_blob_tier("Archive")
    (entry,) = listed(made.store)
    assert made.store.head(key) == entry
    with pytest.raises(ObjectSkipped, match="archive tier") as caught, made.store.open(key):
        pass
    assert caught.value.code == "archived"
    assert "rehydrate" in (caught.value.hint or "")
    blob.set_standard_blob_tier("Hot")
    with made.store.open(key) as reading:
        assert (reading.content, reading.entry.version) == (b"cold", entry.version)


def test_a_compressed_blob_is_read_as_it_is_stored(azure: Any, made: Made, container: str) -> None:
    """`Content-Encoding: gzip` is the parser's business: neither client unpacks it, and the size agrees."""
    import gzip

    from azure.storage.blob import ContentSettings

    packed = gzip.compress(b"text")
    for key in ("a.txt", "odd//a.txt"):
        settings = ContentSettings(content_encoding="gzip")
        azure.get_blob_client(container, key).upload_blob(packed, content_settings=settings)
        with made.store.open(key) as reading:
            assert reading.content == packed
            assert reading.entry.size == len(packed)


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


# --- logins -------------------------------------------------------------------------------------------------------


def test_the_accounts_key_lists_reads_and_signs(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AZURE_STORAGE_KEY is enough; anybody can read by a signed URL, whatever the key's characters."""
    made.put("a b+ü%.txt", b"content")
    with logged_in(monkeypatch, container, azurite.url, AZURE_STORAGE_KEY=KEY) as store:
        assert [entry.key for entry in listed(store)] == ["a b+ü%.txt"]
        with urllib.request.urlopen(store.sign("a b+ü%.txt", 60)) as answer:
            assert answer.read() == b"content"
        assert store.identity() == made.store.identity()


def test_a_shared_access_signature_lists_and_reads_but_does_not_sign(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature is no key: giving it away would give away all that it allows."""
    made.put("k", b"v")
    made.put("odd//k", b"v")
    token = signature(read=True, list=True)
    with logged_in(monkeypatch, container, azurite.url, AZURE_STORAGE_SAS_TOKEN=f"?{token}") as store:
        assert [entry.key for entry in listed(store)] == ["k", "odd//k"]
        for key in ("k", "odd//k"):
            assert store.head(key) is not None
            with store.open(key) as reading:
                assert reading.content == b"v"
        with pytest.raises(UsageError, match="sign") as caught:
            store.sign("k", 60)
        assert token not in str(caught.value)


def test_a_connection_string_may_hold_a_signature(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does what the portal gives for one; its own variable may be named."""
    made.put("k", b"v")
    string = f"AccountName={ACCOUNT};BlobEndpoint={azurite.url};SharedAccessSignature={signature(read=True, list=True)}"
    monkeypatch.setenv("MINE", string)
    store = opened(container, "?connection_string_variable=MINE&credential=connection_string")
    assert [entry.key for entry in listed(store)] == ["k"]
    store.close()


def test_a_permission_that_lists_but_does_not_read_fails_each_object(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing works; each object says which role is missing, by HEAD as by GET."""
    made.put("k", b"v")
    with logged_in(monkeypatch, container, azurite.url, AZURE_STORAGE_SAS_TOKEN=signature(list=True)) as store:
        assert [entry.key for entry in listed(store)] == ["k"]
        with pytest.raises(ObjectFailed, match="denies us access") as caught, store.open("k"):
            pass
        assert caught.value.code == "permission"
        assert "Storage Blob Data Reader" in (caught.value.hint or "")
        with pytest.raises(ObjectFailed, match="denies us access"):
            store.head("k")


def test_a_permission_that_reads_but_does_not_list_is_for_a_person(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass can't be made: that is no fault of any object, and names the role."""
    made.put("k", b"v")
    with logged_in(monkeypatch, container, azurite.url, AZURE_STORAGE_SAS_TOKEN=signature(read=True)) as store:
        with pytest.raises(UnavailableError, match="Storage Blob Data Reader") as caught:
            store.list(None, 10)
        assert caught.value.code == "permission"


def test_wrong_credentials_are_said_without_them(
    made: Made, azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is no fault of the object, may end, and quotes no secret."""
    made.put("k", b"v")
    with logged_in(monkeypatch, container, azurite.url, AZURE_STORAGE_KEY=SECRET) as store:
        for error in outcomes(store):
            assert isinstance(error, UnavailableError)
            assert error.code == "permission"
            assert "let us in" in str(error)
            assert SECRET not in f"{error} {error.__cause__} {error.args}"


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


def test_a_public_container_needs_no_login(azure: Any, unique: str) -> None:
    """`credential=anonymous` reads what anybody may read, and says of another container that it is not public."""
    azure.create_container(unique, public_access="container")
    azure.get_blob_client(unique, "k").upload_blob(b"v")
    store = opened(unique, "?credential=anonymous")
    assert [entry.key for entry in listed(store)] == ["k"]
    with store.open("k") as reading:
        assert reading.content == b"v"
    assert store.ordered  # what nobody may ask is taken for the usual
    store.close()
    azure.get_container_client(unique).set_container_access_policy({}, public_access=None)
    store = opened(unique, "?credential=anonymous")
    with pytest.raises(LabelfeedError, match="let us in"):
        store.list(None, 1)
    store.close()


def test_without_any_identity_it_says_so(azurite: Service, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody gives a token the source waits, and says what it looked for."""
    query = "?credential=service_principal"
    with pytest.raises(UsageError, match="AZURE_CLIENT_ID"):
        opened(container, query)
    monkeypatch.setenv("AZURE_TENANT_ID", "t")
    monkeypatch.setenv("AZURE_CLIENT_ID", "c")
    store = opened(container, query, endpoint=azurite.url.replace("http://", "https://"))
    for error in outcomes(store):
        assert isinstance(error, UnavailableError)
        assert error.code == "permission"
        assert "token" in str(error)
    store.close()


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_container_that_is_not_there_is_for_a_person(container: str, unique: str) -> None:
    """A wrong container is an error of the configuration; its objects are not gone by that, they wait."""
    store = opened(f"{unique}-not")
    with pytest.raises(UsageError, match="ContainerNotFound"):
        store.list(None, 10)
    with pytest.raises(UnavailableError, match="ContainerNotFound"):
        store.head("k")
    with pytest.raises(UnavailableError, match="ContainerNotFound"), store.open("k"):
        pass
    store.close()


@pytest.mark.parametrize("key", ["k", "odd//k", "<Code>BlobNotFound</Code>"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"default backend - 404"),
        Answer(404),
        # What who asks without a login is told of a container that was made private.
        Answer(404, b"<Error><Code>ResourceNotFound</Code></Error>", [("x-ms-error-code", "ResourceNotFound")]),
    ],
)
def test_a_404_that_is_not_of_the_blob_is_no_word_on_it(
    made: Made, front: Front, container: str, monkeypatch: pytest.MonkeyPatch, key: str, answer: Answer
) -> None:
    """What a proxy says, or Azure of a container, is an outage, whatever the key looks like."""
    made.put(key, b"v")
    with logged_in(monkeypatch, container, front.url, AZURE_STORAGE_SAS_TOKEN=signature(list=True)) as store:
        front.fault = lambda _method, _target: answer
        with pytest.raises(UnavailableError, match=r"404|ResourceNotFound"), store.open(key):
            pass
        with pytest.raises(UnavailableError, match=r"404|ResourceNotFound"):
            store.head(key)


def test_a_store_that_is_not_there_is_unavailable(container: str) -> None:
    """Nobody listens: it may work later, and nothing is concluded from it."""
    store = opened(container, endpoint=f"http://127.0.0.1:1/{ACCOUNT}")
    with pytest.raises(UnavailableError, match="does not answer"):
        store.list(None, 10)
    with pytest.raises(UnavailableError, match="does not answer"):
        _ = store.ordered
    store.close()


@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
def test_a_busy_store_is_asked_again(made: Made, front: Front, container: str, status: int, code: str) -> None:
    """A refusal or two are waited out unseen; what stays busy is left alone for some seconds, whatever is asked."""
    made.put("k", b"v")
    store = opened(container, endpoint=front.url)
    busy = refusing(status, code, "")
    front.fault = lambda method, target: busy(method, target) if len(front.asked) <= 2 else None
    assert [entry.key for entry in listed(store)] == ["k"]
    front.fault = busy
    for error in outcomes(store):
        assert isinstance(error, UnavailableError)
        assert "busy" in str(error)
        assert error.retry_after
    store.close()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (503, "ServerBusy", "busy"),
        (500, "InternalError", "InternalError"),
        (403, "AuthenticationFailed", "let us in"),
        (401, "InvalidAuthenticationInfo", "let us in"),
    ],
)
def test_a_listing_that_fails_in_its_middle_goes_on_where_it_was(
    made: Made, front: Front, container: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    """A page that can't be had, by a busy store or a login that has ended, costs nothing but time."""
    keys = [f"k{number:02}" for number in range(10)]
    for key in keys:
        made.put(key, b"v")
    front.rewrite = lambda target: f"{target}&maxresults=3" if "comp=list" in target else target
    with logged_in(monkeypatch, container, front.url, AZURE_STORAGE_SAS_TOKEN=signature(list=True)) as store:
        first = store.list(None, 3)
        front.fault = refusing(status, code, "marker=")
        with pytest.raises(UnavailableError, match=said):
            store.list(first.entries[-1].key, 3)
        front.fault = lambda _method, _target: None
        found = [*first.entries]
        while True:
            page = store.list(found[-1].key, 3)
            found += page.entries
            if page.complete:
                break

    assert [entry.key for entry in found] == keys


def test_a_listing_goes_on_with_the_servers_marker(
    made: Made, front: Front, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page after page costs one request each; only a listing that is begun after a key passes over others."""
    for number in range(12):
        made.put(f"k{number:02}", b"v")
    front.rewrite = lambda target: f"{target}&maxresults=3" if "comp=list" in target else target
    with logged_in(monkeypatch, container, front.url, AZURE_STORAGE_SAS_TOKEN=signature(list=True)) as store:
        assert len(listed(store, 3)) == 12
        lists = [target for _, target in front.asked if "comp=list" in target]
        front.asked.clear()
        page = store.list("k08", 3)
        resumed = [target for _, target in front.asked if "comp=list" in target]

    assert len(lists) <= 5
    assert [entry.key for entry in page.entries] == ["k09", "k10", "k11"]
    assert "startFrom=k08" in resumed[0]


# --- what a source says -------------------------------------------------------------------------------------------


def test_what_a_whole_key_is_to_a_store(azure: Any) -> None:
    """A notification's container and key belong to the stores whose folder they are in; tasks have their own URI."""
    store = opened("c", "/in/box")

    assert store.concerns(f"{ACCOUNT}/c", "in/box/a/b.json") == "a/b.json"
    assert store.uri("a/b.json") == "azure-blob://c/in/box/a/b.json"
    assert store.concerns("c", "in/box/a") is None
    assert store.concerns("other/c", "in/box/a") is None
    assert {store.concerns(f"{ACCOUNT}/c", key) for key in ("in/boxes", "in/box/", "in/box/x/")} == {None}
    store.close()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("az://", "container"),
        ("az://c?acount=x", "credential"),
        ("az://c?concurrency=0", "concurrency"),
        ("az://c?credential=passport", "credential"),
        ("az://k:hunter2@c", "credentials"),
        ("https://acc.blob.core.windows.net/c?sv=1&sig=hunter2", "sas_variable"),
        ("https://acc.blob.core.windows.net/", "container"),
    ],
)
def test_a_wrong_url_is_explained(azure: Any, url: str, word: str) -> None:
    """What is wrong with an URL is said, with what would be right, and without its secret."""
    with pytest.raises(UsageError, match=word) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_the_account_is_found_in_order(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The https address, the source, AZURE_STORAGE_ACCOUNT, the connection string; none at all is said."""
    assert parse("az://c/in").account == ACCOUNT
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "second")
    assert parse("az://c/in").endpoint == "https://second.blob.core.windows.net"
    assert parse("az://c/in", "third").bucket == "third/c"
    address = parse("https://fourth.blob.core.chinacloudapi.cn/c/in/it%20?concurrency=8")
    assert (address.account, address.container, address.folder) == ("fourth", "c", "in/it /")
    assert address.endpoint == "https://fourth.blob.core.chinacloudapi.cn"
    assert address.queues == "https://fourth.queue.core.chinacloudapi.cn"
    with pytest.raises(UsageError, match="fourth"):
        parse("https://fourth.blob.core.windows.net/c", "third")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT"):
        parse("az://c/in")


def test_a_key_of_another_account_is_not_taken(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that speak of one account give no login for another one."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    for how in ("key", "connection_string"):
        with pytest.raises(UsageError, match="other"):
            opened("c", f"?credential={how}", account="other")
    opened("c", "?credential=key", account="mine").close()


def test_the_emulator_has_a_short_name(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`UseDevelopmentStorage=true` is the emulator on its usual ports."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "UseDevelopmentStorage=true")
    found = parse("az://c")

    assert found.endpoint == "http://127.0.0.1:10000/devstoreaccount1"
    assert found.queues == "http://127.0.0.1:10001/devstoreaccount1"
