"""The HTTP store against a real server: the contract for folders and lists, and what only HTTP has."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config import Source
from pipeline.errors import ObjectFailed, ObjectGone, ObjectUnsettled, RetriableError, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.http import HttpStore, lists, open_list, open_store
from pipeline.stores.http.addresses import Guard
from pipeline.stores.http.bounds import Bounds
from tests.stores.contract import ODD_KEYS, Made, StoreContract, listed
from tests.stores.web import Handler, Site, serving

SECRET = "planted-5ecret"
TIGHT = Bounds(
    body_bytes=3_000_000,
    untold_bytes=2_500_000,
    inflate_ratio=20,
    inflate_free_bytes=100_000,
    list_bytes=100_000,
    list_lines=100,
)
QUICK = replace(TIGHT, head_seconds=0.5, grace_seconds=0.5, slowest_rate=10**9)
"""For servers that would be waited for otherwise."""
SLOW = frozenset({"dripping", "dripping_head", "silent"})


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of this test alone."""
    with serving(Site()) as site:
        yield site


OPENED: list[HttpStore] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """What a test opened is closed after it."""
    yield
    while OPENED:
        OPENED.pop().close()


def opened(url: str, bounds: Bounds | None = None, folder: Path = Path(), **options: Any) -> HttpStore:
    """The store of a source; loopback is allowed, as the configuration may say."""
    values = {"name": "s", "project": "p", "url": url, "allow_private": True} | options
    source = Source.model_validate(values)
    OPENED.append((open_list if source.as_ == "urls" else open_store)(source, folder, bounds))
    return OPENED[-1]


class FolderContract(StoreContract):
    """The contract for a folder with a manifest."""

    validators = "etag"

    @pytest.fixture
    def made(self) -> Iterator[Made]:
        """A folder of its own for each test."""
        with serving(Site(validators=self.validators)) as site:
            site.put("/box/files.txt", "")
            names: set[str] = set()

            def change() -> None:
                site.put("/box/files.txt", "# what there is\n" + "".join(f"./{name}\n" for name in sorted(names)))

            def put(key: str, content: bytes) -> None:
                site.put(f"/box/{key}", content)
                names.add(key)
                change()

            def delete(key: str) -> None:
                site.files.pop(f"/box/{key}")
                names.discard(key)
                change()

            store = opened(f"{site.url}/box/")
            yield Made(store, put, delete)
            store.close()


class TestFolderByETag(FolderContract):
    """Versions are ETags."""


class TestFolderByModified(FolderContract):
    """Versions are sizes with Last-Modified."""

    validators = "modified"


class TestFolderByContent(FolderContract):
    """Versions are hashes of the content, as the server tells nothing."""

    validators = "none"


def test_a_name_that_leads_out_of_the_folder_is_never_asked_for(site: Site) -> None:
    """`..`, `//host` and an absolute URL in a manifest stay names, or fail; none reaches another path or host."""
    names = ["../secret.json", "a/../../secret.json", "//elsewhere/x.json", "/secret.json", f"{site.url}/secret.json"]
    site.put("/secret.json", "[]")
    site.put("/box/files.txt", "\n".join(names))
    store = opened(f"{site.url}/box/")

    for key in names:
        with pytest.raises((ObjectFailed, ObjectGone)), store.open(key):
            pass
    assert len(listed(store)) == len([name for name in names if ".." in name or "//" in name or name[0] == "/"])
    assert "/secret.json" not in [path.partition("?")[0] for path in site.paths("GET") + site.paths("HEAD")]


def test_the_manifest_may_be_named_itself(site: Site) -> None:
    """`…/files.txt` is the same folder as `…/`, and is not in it."""
    site.put("/box/files.txt", "a.json\nfiles.txt\n./files.txt\nsub/\n\n")
    site.put("/box/a.json", "[]")
    one, other = opened(f"{site.url}/box/files.txt"), opened(f"{site.url}/box/")

    assert [entry.key for entry in listed(one)] == ["a.json"]
    assert one.identity() == other.identity()
    assert one.uri("a.json") == f"{site.url}/box/a.json"


def test_an_unchanged_list_is_not_sent_again(site: Site) -> None:
    """Each pass asks for the list on condition, and the server answers 304."""
    site.put("/list.txt", "http://example.org/a.jpg\n")
    store = opened(f"{site.url}/list.txt")

    listed(store)
    listed(store)

    assert [one.headers.get("if-none-match") for one in site.asked] == [None, site.files["/list.txt"].headers["ETag"]]  # type: ignore[union-attr]
    site.put("/list.txt", "http://example.org/b.jpg\n")
    assert [entry.key for entry in listed(store)] == ["http://example.org/b.jpg"]


def test_a_list_refers_and_asks_for_nothing(site: Site) -> None:
    """Without `fetch` the URLs of a list are objects that are never asked for, and whose tasks hold them whole."""
    lines = [
        f"{site.url}/a.jpg",
        f"{site.url}/b.jpg?w=1&X-Amz-Signature={SECRET}",
        f"http://u:{SECRET}@h.example/c.jpg",
    ]
    site.put("/list.txt", "\n".join(["# pictures", "", *lines]))
    store = opened(f"{site.url}/list.txt")

    keys = [entry.key for entry in listed(store)]

    assert keys == sorted([f"{site.url}/a.jpg", f"{site.url}/b.jpg?w=1", "http://h.example/c.jpg"])
    assert store.by_reference
    assert [store.reference(key) for key in sorted(keys)] == sorted([lines[0], lines[1], "http://h.example/c.jpg"])
    assert site.paths("HEAD") == []
    assert site.paths("GET") == ["/list.txt"]


def test_a_new_signature_is_another_version(site: Site) -> None:
    """The key stays when a list is written with new signatures; the version changes, so that tasks may be renewed."""
    site.put("/list.txt", f"{site.url}/b.jpg?sig=one&se=1")
    store = opened(f"{site.url}/list.txt")
    (first,) = listed(store)
    site.put("/list.txt", f"{site.url}/b.jpg?sig=two&se=2")
    (second,) = listed(store)

    assert first.key == second.key == f"{site.url}/b.jpg"
    assert first.version != second.version


def test_a_known_file_is_read_while_its_list_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is away keeps nobody from the files that it named, and makes none of the others gone."""
    monkeypatch.setattr(lists, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(lists, "FRESH_SECONDS", 0.0)
    site.put("/a.json", "[]")
    site.put("/list.txt", f"{site.url}/a.json")
    store = opened(f"{site.url}/list.txt", fetch=True)
    listed(store)
    site.answer("/list.txt", lambda handler: handler.reply(500))

    with store.open(f"{site.url}/a.json") as reading:
        assert reading.content == b"[]"
    with pytest.raises(UnavailableError):
        store.head(f"{site.url}/b.json")


def test_a_list_on_disk_names_files_on_the_web(site: Site, tmp_path: Path) -> None:
    """`as: urls` takes a local file's lines, and with `fetch` their files are the objects."""
    site.put("/a.json", '{"text": "a"}')
    (tmp_path / "urls.txt").write_text(f"{site.url}/a.json\n{site.url}/gone.json\n")
    store = opened("./urls.txt", folder=tmp_path, fetch=True, settle=0, **{"as": "urls"})

    (entry,) = listed(store)
    with store.open(entry.key) as reading:
        assert (reading.content, reading.entry.version) == (b'{"text": "a"}', entry.version)
    assert store.head(f"{site.url}/gone.json") is None
    (tmp_path / "urls.txt").unlink()
    with pytest.raises(UnavailableError, match=r"urls\.txt"):
        store.list(None, 10)


def test_a_line_that_is_no_url_fails_alone(site: Site) -> None:
    """A bad line is an object of its own that fails with its reason; its secret is not told."""
    site.put("/list.txt", f"ftp://u:{SECRET}@h/x\n{site.url}/a.json\nnonsense\n")
    site.put("/a.json", "[]")
    store = opened(f"{site.url}/list.txt", fetch=True)

    entries = {entry.key: entry for entry in listed(store)}

    assert set(entries) == {"ftp://h/x", f"{site.url}/a.json", "nonsense"}
    for key in ("ftp://h/x", "nonsense"):
        assert entries[key].version == ""
        with pytest.raises(ObjectFailed) as failed, store.open(key):
            pass
        assert failed.value.code == "bad_url"
        assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("<!doctype html><p>log in", "text/html", "html_page"),
        ('{"a": 1}\n', "application/json", "bad_url"),
        ("x" * 100_001, "text/plain", "too_large"),
        ("http://h/\n" * 101, "text/plain", "too_large"),
    ],
    ids=["html", "no-urls", "bytes", "lines"],
)
def test_what_is_no_list_is_no_empty_list(site: Site, body: str, kind: str, code: str) -> None:
    """A page, another file or too long a list stops the pass with a reason; nothing is taken for deleted by it."""
    site.put("/list.txt", body, Content_Type=kind)
    store = opened(f"{site.url}/list.txt", TIGHT)

    with pytest.raises(UnavailableError) as failed:
        store.list(None, 10)
    assert failed.value.code == code


@pytest.mark.parametrize(("status", "code"), [(404, "gone"), (403, "permission"), (500, "unavailable")])
def test_a_list_that_is_not_there_is_no_empty_list(site: Site, status: int, code: str) -> None:
    """A missing list, or one that we may not read, is an error of the source."""
    site.answer("/list.txt", lambda handler: handler.reply(status))

    with pytest.raises(UnavailableError) as failed:
        opened(f"{site.url}/list.txt").list(None, 10)
    assert failed.value.code == code


def test_a_file_that_does_not_answer_leaves_the_others_alone(site: Site) -> None:
    """In a listing, what fails or is silent has no version; the rest is listed, and a silent host is soon given up."""
    names = [f"{number:02}.json" for number in range(40)]
    site.put("/box/files.txt", "\n".join(["ok.json", "denied.json", *names]))
    site.put("/box/ok.json", "[]")
    site.answer("/box/denied.json", lambda handler: handler.reply(403))
    store = opened(f"{site.url}/box/", TIGHT)
    versions = {entry.key: entry.version for entry in listed(store)}
    assert versions["denied.json"] == ""
    assert versions["ok.json"]
    assert len(versions) == 2
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    site.put("/list.txt", "\n".join(f"http://127.0.0.1:{port}/{name}" for name in names))

    assert {entry.version for entry in listed(opened(f"{site.url}/list.txt", TIGHT, fetch=True))} == {""}


def test_who_is_waited_for(site: Site) -> None:
    """An outage of the source's own host is waited for; another host's, or a 500, fails its file in the end."""
    with serving(Site()) as other:
        urls = [f"{site.url}/503.json", f"{site.url}/500.json", f"{other.url}/503.json"]
        for where in (site, other):
            where.answer("/503.json", lambda handler: handler.reply(503))
            where.answer("/500.json", lambda handler: handler.reply(500))
        site.put("/list.txt", "\n".join(urls))
        store = opened(f"{site.url}/list.txt", fetch=True)
        raised = []
        for url in urls:
            with pytest.raises(RetriableError) as failed, store.open(url):
                pass
            raised.append((type(failed.value), failed.value.code))

    assert raised == [
        (UnavailableError, "unavailable"),
        (RetriableError, "unavailable"),
        (RetriableError, "unavailable"),
    ]


def test_one_url_that_does_not_answer_stops_its_source(site: Site) -> None:
    """Where a single URL is all there is, its outage is the source's, which says so at once."""
    site.answer("/a.json", lambda handler: handler.reply(503))

    with pytest.raises(UnavailableError):
        opened(f"{site.url}/a.json").list(None, 10)


# --- who may be asked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_not_asked(site: Site, host: str) -> None:
    """Unless it is allowed, no spelling of a private address is connected to."""
    site.put("/a.json", "[]")
    store = opened(f"http://{host}:{site.port}/a.json", allow_private=False)

    with pytest.raises(ObjectFailed) as failed, store.open(listed(store)[0].key):
        pass
    assert failed.value.code == "private_address"
    assert site.asked == []


def test_a_redirect_to_a_private_address_is_not_followed(site: Site) -> None:
    """Each address on the way is checked: an allowed host can't lead to one that isn't."""
    with serving(Site(host="127.0.0.2")) as inner:
        inner.put("/secret", "[]")
        site.answer("/a.json", lambda handler: handler.redirect(f"{inner.url}/secret"))
        store = opened(f"{site.url}/a.json", allow_private=["127.0.0.1"])

        with pytest.raises(ObjectFailed) as failed, store.open(f"{site.url}/a.json"):
            pass
        assert failed.value.code == "private_address"
        assert inner.asked == []


def test_a_name_is_resolved_once_for_a_connection(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was checked is the one that is connected to, whatever the name server says a second time."""
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        return real(next(answers) if host == "files.example" else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    site.put("/a.json", "[]", Connection="close")
    with serving(Site(host="127.0.0.2", port=site.port)) as other:
        url = f"http://files.example:{site.port}/a.json"
        store = opened(url, allow_private=["127.0.0.1"])
        with store.open(url) as reading:
            assert reading.content == b"[]"
        with pytest.raises(ObjectFailed) as failed, store.open(url):
            pass
        assert failed.value.code == "private_address"
        assert other.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1",
        "255.255.255.255", "168.63.129.16", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:10.0.0.1",
        "64:ff9b::a00:1", "2002:a00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, loopback, link-local, shared and multicast addresses are none, nor what wraps one."""
    assert not Guard().allows(address)
    assert Guard(everything=True).allows(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    """Addresses of the internet are asked."""
    assert Guard().allows(address)


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("/loop", "bad_redirect"),
        ("ftp://127.0.0.1/x", "bad_redirect"),
        ("file:///etc/passwd", "bad_redirect"),
        ("gopher://h/", "bad_redirect"),
        ("http://", "bad_redirect"),
    ],
)
def test_redirects_that_lead_nowhere(site: Site, location: str, code: str) -> None:
    """Redirects are followed a few times, and only to http(s)."""
    site.answer("/loop", lambda handler: handler.redirect(location))

    with pytest.raises(ObjectFailed) as failed, opened(f"{site.url}/loop").open(f"{site.url}/loop"):
        pass
    assert failed.value.code == code
    assert len(site.asked) <= TIGHT.redirects + 1


def test_a_redirect_is_followed_without_the_credentials_of_another_host(site: Site) -> None:
    """What a source's host is sent goes to no other host."""
    with serving(Site()) as other:
        other.put("/real.json", "[1]")
        site.answer("/a.json", lambda handler: handler.redirect(f"{other.url}/real.json"))
        store = opened(f"{site.url}/a.json", http={"bearer": SECRET, "headers": {"X-Key": SECRET}})
        with store.open(f"{site.url}/a.json") as reading:
            assert reading.content == b"[1]"

        assert {one.headers.get("authorization") for one in site.asked} == {f"Bearer {SECRET}"}
        assert {one.headers.get("x-key") for one in site.asked} == {SECRET}
        assert {(one.headers.get("authorization"), one.headers.get("x-key")) for one in other.asked} == {(None, None)}


@pytest.mark.parametrize(
    ("options", "user", "expected"),
    [
        ({"bearer": SECRET}, "", f"Bearer {SECRET}"),
        ({"username": "u", "password": "p"}, "", "Basic dTpw"),
        (None, "u:p@", "Basic dTpw"),
        ({"headers": {"Authorization": "Custom x"}}, "", "Custom x"),
    ],
)
def test_credentials(site: Site, options: dict[str, Any] | None, user: str, expected: str) -> None:
    """Bearer, basic, headers, and a URL's own user and password are sent; without them the server's 401 is told."""
    site.token = expected
    site.put("/a.json", "[]")
    url = f"http://{user}127.0.0.1:{site.port}/a.json"

    assert [entry.version for entry in listed(opened(url, http=options))] != [""]
    with pytest.raises(ObjectFailed) as failed, opened(f"{site.url}/a.json").open(f"{site.url}/a.json"):
        pass
    assert failed.value.code == "permission"


def test_a_listed_host_gets_credentials_only_by_name(site: Site) -> None:
    """URLs of a list are asked for with the source's credentials on its own host, and on `http.hosts`."""
    with serving(Site()) as other:
        other.put("/a.json", "[]")
        site.put("/list.txt", f"{other.url}/a.json")
        for hosts, expected in ([], None), ([f"127.0.0.1:{other.port}"], f"Bearer {SECRET}"):
            other.asked.clear()
            listed(opened(f"{site.url}/list.txt", fetch=True, http={"bearer": SECRET, "hosts": hosts}))
            assert {one.headers.get("authorization") for one in other.asked} == {expected}


def test_credentials_for_a_local_list_need_hosts(tmp_path: Path) -> None:
    """A list in a file has no host of its own that they could be for."""
    with pytest.raises(UsageError, match=r"http\.hosts"):
        opened("urls.txt", folder=tmp_path, http={"bearer": SECRET}, **{"as": "urls"})


# --- what servers do -----------------------------------------------------------------------------------------


def endless(handler: Handler) -> None:
    """A body without end."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.ended.is_set():  # type: ignore[attr-defined]  # our own server
        handler.wfile.write(b"x" * 65536)


def dripping(handler: Handler) -> None:
    """A body that comes a byte at a time, each in good time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    while not handler.server.ended.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")


def dripping_head(handler: Handler) -> None:
    """A head that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.ended.wait(0.05):  # type: ignore[attr-defined]
        handler.wfile.write(b"X-More: x\r\n")


def silent(handler: Handler) -> None:
    """Nothing at all."""
    handler.server.ended.wait(30)  # type: ignore[attr-defined]


def bomb(handler: Handler) -> None:
    """A small body that becomes a large one."""
    handler.reply(200, gzip.compress(b"\0" * 2_000_000), {"Content-Encoding": "gzip"})


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize(
    ("answering", "kind", "code"),
    [
        (endless, ObjectFailed, "too_large"),
        (dripping, UnavailableError, "unavailable"),
        (dripping_head, UnavailableError, "unavailable"),
        (silent, UnavailableError, "unavailable"),
        (lambda handler: handler.raw(HEAD, b"12345"), UnavailableError, "unavailable"),
        (lambda handler: handler.raw(HEAD + b"1234567890surplus"), ObjectFailed, "length"),
        (lambda handler: handler.raw(HEAD.replace(b"10", b"-5"), b"12345"), UnavailableError, "unavailable"),
        (lambda handler: handler.raw(HEAD.replace(b"10", b"4000000")), ObjectFailed, "too_large"),
        (lambda handler: handler.raw(b"no HTTP at all\r\n\r\n"), UnavailableError, "unavailable"),
        (lambda handler: handler.raw(), UnavailableError, "unavailable"),
        (lambda handler: handler.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), UnavailableError,
         "unavailable"),
        (bomb, ObjectFailed, "compressed"),
        (lambda handler: handler.reply(200, b"no gzip", {"Content-Encoding": "gzip"}), ObjectFailed, "compressed"),
        (lambda handler: handler.reply(200, gzip.compress(b"x" * 99)[:-9], {"Content-Encoding": "gzip"}),
         UnavailableError, "unavailable"),
        (lambda handler: handler.reply(200, b"x", {"Content-Encoding": "br"}), ObjectFailed, "compressed"),
        (lambda handler: handler.reply(200, b"\n<!DOCTYPE html>", {"Content-Type": "text/html"}), ObjectFailed,
         "html_page"),
        (lambda handler: handler.reply(401), ObjectFailed, "permission"),
        (lambda handler: handler.reply(404), ObjectGone, "gone"),
        (lambda handler: handler.reply(418), ObjectFailed, "http_status"),
        (lambda handler: handler.reply(503), UnavailableError, "unavailable"),
    ],
    ids=["endless", "drip", "drip-head", "silent", "short", "long", "negative", "too-long", "no-http", "nothing",
         "cut-chunk", "bomb", "no-gzip", "cut-gzip", "brotli", "html", "401", "404", "418", "503"],
)  # fmt: skip
def test_bad_servers(site: Site, answering: Any, kind: type[Exception], code: str) -> None:
    """Whatever a server does ends soon, is passing or final as it should be, and is told without secrets."""
    site.answer("/a.json", answering)
    slow = getattr(answering, "__name__", "") in SLOW
    store = opened(f"{site.url}/a.json?token={SECRET}", QUICK if slow else TIGHT)

    with pytest.raises(kind) as failed, store.open(f"{site.url}/a.json"):
        pass
    assert failed.value.code == code  # type: ignore[attr-defined]
    assert f"{site.url}/a.json" in str(failed.value)
    assert SECRET not in str(failed.value)


def test_after_a_liar_the_connection_is_not_used_again(site: Site) -> None:
    """Bytes beyond an announced body are never taken for the answer to the next request."""
    fake = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nFAKE"

    def lying(handler: Handler) -> None:
        handler.wfile.write(HEAD + b"1234567890" + fake)

    site.answer("/a.json", lying)
    site.put("/b.json", "true")
    site.put("/list.txt", f"{site.url}/a.json\n{site.url}/b.json")
    store = opened(f"{site.url}/list.txt", TIGHT, fetch=True)

    with pytest.raises(ObjectFailed), store.open(f"{site.url}/a.json"):
        pass
    with store.open(f"{site.url}/b.json") as reading:
        assert reading.content == b"true"


def test_a_retry_after_is_obeyed(site: Site) -> None:
    """429 says when to come again."""
    site.answer("/a.json", lambda handler: handler.reply(429, b"", {"Retry-After": "17"}))

    with pytest.raises(UnavailableError) as failed, opened(f"{site.url}/a.json").open(f"{site.url}/a.json"):
        pass
    assert failed.value.retry_after == 17


@pytest.mark.parametrize(
    "pack", [gzip.compress, zlib.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
def test_content_encodings_are_undone(site: Site, pack: Any) -> None:
    """A server that compresses unasked is understood."""
    body = b"[1, 2, 3]" * 100
    name = "deflate" if pack is zlib.compress else "gzip"
    site.answer("/a.json", lambda handler: handler.reply(200, pack(body), {"Content-Encoding": name}))

    with opened(f"{site.url}/a.json").open(f"{site.url}/a.json") as reading:
        assert reading.content == body


def test_a_compressed_file_is_left_compressed(site: Site) -> None:
    """A `.gz` that the server calls encoded is the file itself: the parser unpacks it."""
    body = gzip.compress(b"[]")
    site.put("/a.json.gz", body, Content_Encoding="x-gzip")

    with opened(f"{site.url}/a.json.gz").open(f"{site.url}/a.json.gz") as reading:
        assert reading.content == body


def test_a_server_without_head_is_asked_by_get(site: Site) -> None:
    """Where HEAD is not allowed, listing asks by GET, and agrees with reading."""

    def answering(handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.reply(405)
        else:
            handler.reply(200, b"[]", {"ETag": '"1"'})

    site.answer("/a.json", answering)
    store = opened(f"{site.url}/a.json")

    (entry,) = listed(store)
    assert (entry.version, entry.size) == ("1", 2)


def test_a_large_file_that_changes_is_not_mixed(site: Site) -> None:
    """Each stream is of the version that was opened, or says that it changed; with ETags, and without any."""
    for validators in ("etag", "none"):
        site.validators = validators
        site.put("/large.json", b"a" * (SMALL_BYTES + 9))
        store = opened(f"{site.url}/large.json")
        with store.open(f"{site.url}/large.json") as reading:
            assert reading.content is None
            site.put("/large.json", b"b" * (SMALL_BYTES + 9))
            with pytest.raises(ObjectUnsettled):
                reading.stream().read()


def test_a_picture_that_is_a_page_is_told(site: Site) -> None:
    """A reference to an image whose URL answers with HTML fails, though its bytes are not wanted."""
    site.put("/box/files.txt", "cat.jpg")
    site.put("/box/cat.jpg", "<html>", Content_Type="text/html")

    with pytest.raises(ObjectFailed) as failed:
        opened(f"{site.url}/box/").head("cat.jpg")
    assert failed.value.code == "html_page"


def test_html_is_welcome_where_it_is_expected(site: Site) -> None:
    """An HTML file is a file."""
    site.put("/a.html", "<p>", Content_Type="text/html")
    site.put("/b", "<p>", Content_Type="text/html")

    with opened(f"{site.url}/a.html").open(f"{site.url}/a.html") as reading:
        assert reading.content == b"<p>"
    with opened(f"{site.url}/b", format="html").open(f"{site.url}/b") as reading:
        assert reading.content == b"<p>"


def test_no_secret_is_in_what_is_shown(site: Site) -> None:
    """User, password, signature and token stand in no identity, URI or key."""
    url = f"http://u:{SECRET}@127.0.0.1:{site.port}/box/?sig={SECRET}&se=2030&v=2"
    site.put("/box/files.txt", "\n".join(ODD_KEYS))
    for key in ODD_KEYS:
        site.put(f"/box/{key}", key.encode())
    store = opened(url)

    shown = [store.identity(), store.uri(""), store.ping(), repr(store), *(store.uri(key) for key in ODD_KEYS)]
    assert [entry.key for entry in listed(store)] == sorted(ODD_KEYS)
    assert SECRET not in " ".join(shown)
    assert all(f"sig={SECRET}" in path for path in site.paths("GET"))


def test_what_is_no_url_is_told_without_it() -> None:
    """A URL that can't be followed is refused, and not repeated, as it may hold a password."""
    for url in (f"http://u:{SECRET}@/x", f"https://u:{SECRET}@h\x01/x"):
        with pytest.raises(UsageError) as failed:
            opened(url)
        assert SECRET not in str(failed.value)


def test_signing_gives_the_url_itself_unless_it_takes_credentials(site: Site) -> None:
    """What anybody may read needs no signature; what takes our credentials has no URL for others."""
    url = f"{site.url}/a.jpg"

    assert opened(f"{url}?v=1").sign(f"{url}?v=1", 60) == f"{url}?v=1"
    with pytest.raises(UsageError):
        opened(url, http={"bearer": SECRET}).sign(url, 60)


def test_the_environments_proxy_is_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to addresses that nobody has checked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    site.put("/a.json", "[]")

    assert listed(opened(f"{site.url}/a.json"))[0].version
    assert httpx.URL(site.url).port == site.port
