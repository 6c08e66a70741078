"""Who is asked over HTTP, and with what: addresses, redirects, credentials."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ObjectFailed, UsageError
from pipeline.stores.http.addresses import Guard
from tests.stores.contract import listed
from tests.stores.web import Site, serving
from tests.stores.webstore import SECRET, TIGHT, opened


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
