"""Buckets that are hosts, `bucket.domain`, by a proxy that stands for the name server and takes any host for the
S3 server's own."""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy import services
from deploy.services import Service
from pipeline.config import Source
from pipeline.errors import ObjectGone, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.s3 import S3Store, open_store
from pipeline.stores.s3.options import parse
from tests.servers import s3_client
from tests.stores.contract import listed
from tests.stores.front import Front, front_of

pytestmark = pytest.mark.usefixtures("aws")

DOMAIN = "s3.test"
CONTENTS = {
    "a b+ü%.txt": b"small", "folder/large": b"0123456789" * (SMALL_BYTES // 4), "odd\ttab": b"for boto3",
    "odd/large\ttab": b"abcdefghij" * (SMALL_BYTES // 4),
}  # fmt: skip
"""What obstore reads at once and in ranges, and what boto3 must read so."""


@pytest.fixture(scope="module", params=["seaweedfs", "versitygw"])
def hosting(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A server of which a bucket may be a host in DOMAIN."""
    request.getfixturevalue(request.param)
    with services.using(request.param, f"hosts-{uuid.uuid4().hex[:8]}", settings={"domain": DOMAIN}) as service:
        s3_client(service)  # what fills the bucket is made before there is a proxy
        yield service


@pytest.fixture
def proxy(hosting: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """The proxy; all that goes over HTTP goes by it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with front_of(hosting.url) as front:
        front.rewrite = lambda target: f"{urlsplit(target).path}?{urlsplit(target).query}".rstrip("?")
        monkeypatch.setenv("HTTP_PROXY", front.url)
        monkeypatch.setenv("http_proxy", front.url)
        yield front


@pytest.fixture
def bucket(hosting: Service, unique: str) -> str:
    """A bucket of CONTENTS."""
    client = s3_client(hosting)
    client.create_bucket(Bucket=unique)
    for key, content in CONTENTS.items():
        client.put_object(Bucket=unique, Key=key, Body=content)
    return unique


@pytest.fixture
def store(proxy: Front, bucket: str) -> Iterator[S3Store]:
    """Its store, by its host."""
    source = Source(name="s", project="p", url=f"s3://{bucket}?path_style=false", endpoint=f"http://{DOMAIN}")
    made = open_store(source, Path())
    yield made
    made.close()


def test_all_that_is_asked_goes_to_the_bucket_s_host(store: S3Store, proxy: Front, bucket: str) -> None:
    """Listing, looking and reading, small and large, by both clients; and none of it names the bucket in its path."""
    found = {}
    for entry in listed(store):
        head = store.head(entry.key)
        assert head is not None
        with store.open(entry.key) as reading:
            assert {entry.version, head.version} == {reading.entry.version}
            found[entry.key] = reading.stream().read()
    assert found == CONTENTS
    assert store.head("nothing") is None
    with pytest.raises(ObjectGone), store.open("nothing"):
        pass
    assert "not empty" in store.ping()
    assert {urlsplit(target).netloc for _, target in proxy.asked} == {f"{bucket}.{DOMAIN}"}
    assert not [target for _, target in proxy.asked if urlsplit(target).path.startswith(f"/{bucket}")]


@pytest.mark.parametrize("key", list(CONTENTS))
def test_a_signed_link_is_of_the_bucket_s_host(store: S3Store, proxy: Front, bucket: str, key: str) -> None:
    """And the server takes it."""
    link = store.sign(key, 60)
    assert urlsplit(link).netloc == f"{bucket}.{DOMAIN}"
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url}))
    with browser.open(link) as answer:
        assert answer.read() == CONTENTS[key]


@pytest.mark.usefixtures("hosting")
def test_the_same_bucket_is_in_the_path_without_it(proxy: Front, bucket: str) -> None:
    """With an endpoint the path is the default."""
    made = open_store(Source(name="s", project="p", url=f"s3://{bucket}", endpoint=f"http://{DOMAIN}"), Path())
    assert {entry.key for entry in listed(made)} == set(CONTENTS)
    made.close()
    assert {urlsplit(target).netloc for _, target in proxy.asked} == {DOMAIN}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://[::1]:9000"])
def test_an_address_has_no_hosts_below_it(endpoint: str) -> None:
    """`path_style=false` needs an endpoint with a name."""
    with pytest.raises(UsageError, match="path_style"):
        parse("s3://b?path_style=false", endpoint)
    assert parse("s3://b", endpoint).path_style is None
