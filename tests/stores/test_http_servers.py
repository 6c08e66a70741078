"""What servers do over HTTP, and what comes of it."""

from __future__ import annotations

import gzip
import zlib
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from pipeline.errors import ObjectFailed, ObjectGone, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from tests.stores.contract import ODD_KEYS, listed
from tests.stores.web import Handler, Site
from tests.stores.webstore import QUICK, SECRET, TIGHT, opened

SLOW = frozenset({"dripping", "dripping_head", "silent"})


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


def test_a_server_that_makes_files_as_it_answers(site: Site) -> None:
    """Where Last-Modified is always now, the content tells the version, which stays while it does."""
    site.answer("/a.json", lambda handler: handler.reply(200, b"[]", {"Last-Modified": formatdate(usegmt=True)}))
    store = opened(f"{site.url}/a.json")

    (first,), (second,) = listed(store), listed(store)
    assert first.version == second.version
    assert first.version.startswith("hash-")
    with store.open(first.key) as reading:
        assert reading.entry.version == first.version


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
