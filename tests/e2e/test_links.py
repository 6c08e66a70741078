"""Links of our own: what a task's durable link gives, asked of the real process over HTTP."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from deploy.services import Service
from pipeline.app.serving.tokens import Links
from pipeline.config.models import Links as LinksConfig
from tests.e2e.house import House, Running, as_anybody, until
from tests.servers import s3_client
from tests.stores.web import Site, serving

BASE = "https://labels.example/feed"
KEY = "planted-5ecret-key-of-links"
OLD_KEY = "planted-5ecret-key-of-before"
PICTURE = bytes(range(256)) * 40
LARGE = b"".join(number.to_bytes(4, "big") for number in range(1_000_000))


def configure(
    house: House, source: Mapping[str, Any] | None = None, links: Mapping[str, Any] | None = None, **top: Any
) -> None:
    """A source whose media tasks hold durable links."""
    made = {"base_url": BASE, "key": KEY} | dict(links or {})
    house.configure({"links": "durable"} | dict(source or {}), links=made, **top)


@contextmanager
def answering(house: House, **how: Any) -> Iterator[httpx.Client]:
    """`labelfeed serve` at work, and a client of it; it has to end well by SIGTERM."""
    process = house.start("serve", "--log-format=json", "--log-level=debug", **how)
    process.await_start()
    assert process.process.poll() is None, process.err.read_text()
    (listening,) = process.says("listening")
    with httpx.Client(base_url=f"http://127.0.0.1:{listening['port']}", trust_env=False) as client:
        yield client
    end(process)


def end(process: Running) -> None:
    """End it by SIGTERM, which has to be a good one."""
    process.signal(signal.SIGTERM)
    ended = process.end()
    assert ended.code == 0, ended.err
    assert KEY not in ended.err + ended.out
    assert "/o/" not in ended.err + ended.out


def link_of(house: House, key: str) -> str:
    """The path of a task's link; its host is where a proxy would be."""
    ((data,),) = [house.tasks()[key]]
    (url,) = data.values()
    assert url.startswith(f"{BASE}/o/")
    return str(url.removeprefix(BASE))


def token_of(source: str, key: str, secret: str = KEY) -> str:
    """A link's path, signed with a key."""
    return "/o/" + Links(LinksConfig.model_validate({"base_url": BASE, "key": secret})).token(source, key)


def test_a_tasks_link_gives_the_files_bytes(house: House) -> None:
    """The link that a task holds gives the very bytes, in whole and in parts, as browsers ask for them."""
    house.put("a picture é.png", PICTURE)
    configure(house)
    house.once()
    path = link_of(house, "a picture é.png")
    with answering(house) as client:
        whole = client.get(path)
        assert (whole.status_code, whole.content) == (200, PICTURE)
        assert whole.headers["content-type"] == "image/png"
        assert whole.headers["content-length"] == str(len(PICTURE))
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["access-control-allow-origin"] == "*"
        assert "sandbox" in whole.headers["content-security-policy"]
        tag = whole.headers["etag"]

        part = client.get(path, headers={"Range": "bytes=100-199", "If-Range": tag})
        assert (part.status_code, part.content) == (206, PICTURE[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(PICTURE)}"
        assert client.get(path, headers={"Range": "bytes=-5"}).content == PICTURE[-5:]
        assert client.get(path, headers={"Range": "bytes=10200-"}).content == PICTURE[10200:]
        assert client.get(path, headers={"Range": "bytes=1-2", "If-Range": '"other"'}).status_code == 200
        beyond = client.get(path, headers={"Range": "bytes=99999-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(PICTURE)}")

        assert client.get(path, headers={"If-None-Match": f'"x", W/{tag}'}).status_code == 304
        head = client.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PICTURE)))
        assert head.headers["etag"] == tag
        flight = client.options(path, headers={"Origin": "https://x", "Access-Control-Request-Method": "GET"})
        assert flight.status_code == 204
        assert "Range" in flight.headers["access-control-allow-headers"]
        assert client.post(path).status_code == 405

        house.put("a picture é.png", PICTURE[::-1])
        changed = until(lambda: (found := client.get(path)).status_code == 200 and found, what="the settled file")
        assert (changed.content, changed.headers["etag"] == tag) == (PICTURE[::-1], False)
        (house.inbox / "a picture é.png").unlink()
        assert client.get(path).status_code == client.head(path).status_code == 404


def test_a_large_file_is_streamed_from_any_place(house: House) -> None:
    """Ranges of a file that is not in memory are the file's bytes at that place."""
    house.put("large.mp4", LARGE)
    configure(house)
    path = token_of("inbox", "large.mp4")
    with answering(house) as client:
        assert client.get(path).content == LARGE
        for start, stop in ((0, 1), (2_999_999, 3_000_009), (3_999_998, 4_000_000)):
            assert client.get(path, headers={"Range": f"bytes={start}-{stop - 1}"}).content == LARGE[start:stop]


def test_no_link_leads_where_none_was_signed(house: House) -> None:
    """Whatever is changed of a token, and whatever path is tried, there is no such link; nor for another's key."""
    house.put("a.png", PICTURE)
    (house.folder / "secret.png").write_bytes(b"secret")
    (house.inbox / "out.png").symlink_to(house.folder / "secret.png")
    configure(house)
    path = token_of("inbox", "a.png")
    token = path.removeprefix("/o/")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    forged = [token_of("inbox", "a.png", OLD_KEY), token_of("elsewhere", "a.png"), path + "A", path[:-1], "/o/", "/o/x"]
    forged += [
        path + "=",
        "/o/" + "A" * 5000,
        "/o/é",
        path + "/../../labelfeed.yaml",
        "/o/../labelfeed.yaml",
        path + "%00",
    ]
    for place in (0, 31, 32, len(raw) - 1):
        changed = bytearray(raw)
        changed[place] ^= 1
        forged.append("/o/" + base64.urlsafe_b64encode(changed).rstrip(b"=").decode())
    # Even what we would sign leads nowhere but to files of the source.
    outside = ["../secret.png", "/etc/passwd", "out.png", "x/../../secret.png", "", ".", "a.png/", "a.png\0"]
    forged += [token_of("inbox", key) for key in outside]
    with answering(house) as client:
        assert client.get(path).status_code == 200
        assert {one: status for one in forged if (status := client.get(one).status_code) != 404} == {}
        assert all(b"secret" not in client.get(one).content for one in forged)


def test_rotating_the_key_revokes(house: House) -> None:
    """Links of a previous key count until the key is left out; keys may stand in files."""
    house.put("a.png", PICTURE)
    old = token_of("inbox", "a.png", OLD_KEY)
    (house.folder / "key").write_text(KEY + "\n")
    (house.folder / "previous").write_text(f"another-key-of-long-ago\n{OLD_KEY}\n")
    links = {"base_url": BASE, "key_file": "key", "previous_file": "previous"}
    house.configure({"links": "durable"}, links=links)
    with answering(house) as client:
        assert client.get(old).status_code == client.get(token_of("inbox", "a.png")).status_code == 200
    house.configure({"links": "durable"}, links={"base_url": BASE, "key_file": "key"})
    with answering(house) as client:
        assert client.get(old).status_code == 404
        assert client.get(token_of("inbox", "a.png")).status_code == 200


def test_it_says_how_it_does(house: House) -> None:
    """/healthz is for all; /readyz and /metrics for those with the token; links need none, and are counted."""
    house.put("a.png", PICTURE)
    house.put("forbidden.png", PICTURE).chmod(0)
    configure(house, server={"listen": "127.0.0.1:0", "token": "planted-5ecret-token"})
    with answering(house, preexec=as_anybody) as client:
        assert client.get("/healthz").text == "ok\n"
        assert [client.get(path).status_code for path in ("/readyz", "/metrics", "/nothing")] == [401, 401, 404]
        bearer = {"Authorization": "Bearer planted-5ecret-token"}
        assert client.get("/readyz", headers=bearer).json() == {"serve": None}
        assert client.get(token_of("inbox", "a.png")).status_code == 200
        denied = client.get(token_of("inbox", "forbidden.png"))
        assert denied.status_code == 403
        assert "forbidden" not in denied.text
        shown = client.get("/metrics", headers=bearer).text
        assert 'labelfeed_links_total{outcome="streamed",source="inbox"} 1.0' in shown
        assert 'labelfeed_links_total{outcome="failed",source="inbox"} 1.0' in shown
        assert 'labelfeed_up{role="serve"} 1.0' in shown


def test_what_is_being_sent_is_finished_at_the_end(house: House) -> None:
    """SIGTERM takes no new client, lets a download end, and exits 0."""
    house.put("large.mp4", LARGE * 8)
    configure(house)
    process = house.start("serve", "--log-format=json")
    process.await_start()
    (listening,) = process.says("listening")
    url = f"http://127.0.0.1:{listening['port']}"
    with httpx.stream("GET", url + token_of("inbox", "large.mp4"), trust_env=False) as answer:
        pieces = answer.iter_raw()
        got = len(next(pieces))
        process.signal(signal.SIGTERM)
        until(lambda: process.says("stopping"), what="the end's beginning")
        got += sum(len(piece) for piece in pieces)
    assert got == len(LARGE) * 8
    assert process.end().code == 0


@pytest.mark.usefixtures("aws")
def test_a_bucket_is_led_to(house: House, seaweedfs: Service, unique: str) -> None:
    """For a bucket the link leads to a URL that is signed anew each time and gives the bytes."""
    client_of_s3 = s3_client(seaweedfs)
    client_of_s3.create_bucket(Bucket=unique)
    client_of_s3.put_object(Bucket=unique, Key="in/a b.png", Body=PICTURE)
    configure(house, {"url": f"s3://{unique}/in", "endpoint": seaweedfs.url, "watch": False})
    house.once()
    path = link_of(house, "a b.png")
    with answering(house) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (302, "*")
        assert answer.headers["cache-control"] == "private, max-age=300"
        target = answer.headers["location"]
        assert "X-Amz-Signature=" in target
        assert httpx.get(target, headers={"Range": "bytes=1-4"}, trust_env=False).content == PICTURE[1:5]
        head = client.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(PICTURE)))
        assert client.get(token_of("inbox", "none.png")).status_code == 302


@pytest.mark.usefixtures("aws")
def test_what_no_url_can_give_is_passed_on(
    house: House, seaweedfs: Service, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object under a key of ours (SSE-C) comes decrypted through the link, as no URL can bear the key."""
    key = os.urandom(32)
    monkeypatch.setenv("MY_KEY", base64.b64encode(key).decode())
    client_of_s3 = s3_client(seaweedfs)
    client_of_s3.create_bucket(Bucket=unique)
    client_of_s3.put_object(
        Bucket=unique, Key="in/a.png", Body=PICTURE, SSECustomerAlgorithm="AES256", SSECustomerKey=key
    )
    configure(house, {"url": f"s3://{unique}/in?sse_c_key_variable=MY_KEY", "endpoint": seaweedfs.url, "watch": False})
    house.once()
    path = link_of(house, "a.png")
    with answering(house) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (200, PICTURE)
        part = client.get(path, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, PICTURE[5:10])


def test_a_container_is_led_to(house: House, azure: Any, unique: str) -> None:
    """For a container of Azure the link leads to a shared access signature of this moment, which gives the bytes."""
    azure.create_container(unique)
    azure.get_blob_client(unique, "in/a b.png").upload_blob(PICTURE)
    configure(house, {"url": f"az://{unique}/in", "watch": False})
    house.once()
    path = link_of(house, "a b.png")
    with answering(house) as client:
        answer = client.get(path)
        target = answer.headers["location"]
        assert (answer.status_code, "sig=" in target) == (302, True)
        assert httpx.get(target, headers={"Range": "bytes=1-4"}, trust_env=False).content == PICTURE[1:5]
        assert client.head(path).headers["content-length"] == str(len(PICTURE))


def test_what_takes_our_credentials_is_passed_on(house: House) -> None:
    """A file on the web that anybody may read is led to; one that takes credentials is streamed without them."""
    with serving(Site()) as site:
        site.put("/in/files.txt", "a.png")
        site.put("/in/a.png", PICTURE)
        configure(house, {"url": f"{site.url}/in/", "allow_private": True})
        with answering(house) as client:
            answer = client.get(token_of("inbox", "a.png"))
            assert (answer.status_code, answer.headers["location"]) == (302, f"{site.url}/in/a.png")
        site.token = f"Bearer {KEY}"
        configure(house, {"url": f"{site.url}/in/", "allow_private": True, "http": {"bearer": KEY}})
        with answering(house) as client:
            answer = client.get(token_of("inbox", "a.png"), headers={"Range": "bytes=5-9"})
            assert (answer.status_code, answer.content) == (206, PICTURE[5:10])
            assert client.get(token_of("inbox", "b.png")).status_code == 404
            site.token = "another"
            assert client.get(token_of("inbox", "a.png")).status_code == 403


@pytest.mark.parametrize(
    ("links", "told"),
    [
        (None, "links:"),
        ({"base_url": BASE, "key": "short"}, "16 characters"),
        ({"base_url": BASE, "key": KEY, "previous": ["short"]}, "16 characters"),
        ({"base_url": "labels.example", "key": KEY}, "base_url"),
        ({"base_url": f"https://u:{KEY}@h/", "key": KEY}, "base_url"),
    ],
)
def test_links_that_cannot_be(house: House, links: dict[str, Any] | None, told: str) -> None:
    """Durable links without a key, or with one that can be guessed, are refused, and no key is repeated."""
    house.configure({"links": "durable"}, **({} if links is None else {"links": links}))

    for verb in ("check", "serve"):
        ended = house.look(verb)
        assert (ended.code, told in ended.err) == (2, True), ended.err
        assert KEY not in ended.err


def test_serve_needs_links(house: House, tmp_path: Path) -> None:
    """Without links there is nothing to serve; an address that is taken is told."""
    ended = house.look("serve")
    assert (ended.code, "links:" in ended.err) == (2, True)
    configure(house, server={"listen": "192.0.2.1:1"})
    ended = house.look("serve")
    assert (ended.code, "cannot listen on 192.0.2.1:1" in ended.err) == (2, True)


def test_values_of_redis_are_given(house: House, redis_server: Service, unique: str) -> None:
    """Small and large values of Redis are objects like files: given by their link, with ranges."""
    client_of_redis = redis.Redis.from_url(redis_server.url)
    client_of_redis.mset({f"{unique}/a.png": PICTURE, f"{unique}/large.mp4": LARGE})
    configure(house, {"url": f"{redis_server.url}?prefix={unique}/", "watch": False})
    with answering(house) as client:
        for key, content in (("a.png", PICTURE), ("large.mp4", LARGE)):
            path = token_of("inbox", key)
            whole = client.get(path)
            assert (whole.status_code, whole.content) == (200, content)
            part = client.get(path, headers={"Range": "bytes=-7", "If-Range": whole.headers["etag"]})
            assert (part.status_code, part.content) == (206, content[-7:])
    client_of_redis.close()
