"""What the environment says of the region and of whom to trust holds for listing, bytes and notifications alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import LabelfeedError, UnavailableError, UsageError
from pipeline.producers.sqs import SqsProducer
from pipeline.stores.s3 import S3Store, open_store
from pipeline.stores.scope import Scope
from tests.serving import Handler, serving
from tests.stores.front import Answer, Asked, front_of
from tests.stores.test_azure_identities import Certificates, certificates

pytestmark = pytest.mark.usefixtures("aws")

KEYS = ["k", "odd\tk"]
"""What obstore reads, and what boto3 must read."""
REFUSED = b"<Error><Code>NoSuchBucket</Code></Error>"
_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/")


def signed_for(query: str, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Services and regions for which requests were signed: listing and reading by both ways, and asking a queue."""
    scopes = set()

    def refuse(asked: Asked) -> Answer:
        found = _SCOPE.search(asked.headers["authorization"])
        assert found is not None
        scopes.add((found[2], found[1]))
        return Answer(400 if found[2] == "sqs" else 404, REFUSED)

    with front_of("http://127.0.0.1:1") as front:
        front.guard = refuse
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        source = Source(name="s", project="p", url=f"s3://b?{query}", notifications="queue")
        store = open_store(source, Path())
        asks = [
            lambda: store.list(None, 1),
            lambda: store.list("odd\t", 1),
            *(lambda key=key: store.open(key) for key in KEYS),
        ]  # type: ignore[misc]
        for ask in asks:
            with pytest.raises(LabelfeedError, match="NoSuchBucket"):
                ask()
        assert len(front.asked) == len(asks)
        queue = SqsProducer(source, store, Scope())
        with pytest.raises(UnavailableError):
            queue.ping()
        queue.close()
        store.close()
    return scopes


@pytest.mark.parametrize(
    ("variables", "query", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "", "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "", "eu-north-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-north-1"}, "", "eu-west-1"),
        ({"AWS_REGION": "eu-west-1"}, "region=ap-south-1", "ap-south-1"),
        ({"AWS_REGION": "", "AWS_PROFILE": "there"}, "", "sa-east-1"),
        ({}, "", "us-east-1"),
    ],
)
def test_the_region_is_the_same_for_all(
    variables: Mapping[str, str], query: str, region: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """AWS_REGION counts before what boto3 finds, and after what the source says, for S3 and SQS."""
    config = tmp_path / "config"
    config.write_text("[profile there]\nregion=sa-east-1\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    for name, value in (variables | {"AWS_CONFIG_FILE": str(config)}).items():
        monkeypatch.setenv(name, value)

    both = f"{query}&versions=false&ordered=true"
    assert signed_for(both.lstrip("&"), monkeypatch) == {("s3", region), ("sqs", region)}


class AnyObject(Handler):
    """Any object is there."""

    def answered(self) -> None:
        """An object of two bytes."""
        self.send_response(200)
        about = {"Content-Length": "2", "ETag": '"e"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        for name, value in about.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"[]")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate of this machine, by an authority that no system knows."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(files: Certificates) -> Iterator[str]:
    """The URL of a server with that certificate."""
    with serving(AnyObject, (files.server, files.key)) as url:
        yield url


def at(url: str) -> S3Store:
    """A store there."""
    return open_store(Source(name="s", project="p", url="s3://b?versions=false", endpoint=url), Path())


def test_certificates_of_ones_own_are_trusted_by_both_ways(
    secure: str, files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_CA_BUNDLE, or a profile's ca_bundle, is enough, as for all of AWS's programs."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(files.authority))
    store = at(secure)
    for key in KEYS:
        with store.open(key) as reading:
            assert reading.content == b"[]"
    store.close()


def test_nobody_else_is_trusted(secure: str) -> None:
    """A server whose authority nobody named is not believed, by either way."""
    store = at(secure)
    for key in KEYS:
        with pytest.raises(UnavailableError), store.open(key):
            pass
    store.close()


@pytest.mark.parametrize(
    "content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
)
def test_certificates_that_cannot_be_read_are_for_a_person(
    content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong AWS_CA_BUNDLE is an error of the configuration."""
    if content is not None:
        (tmp_path / "bundle.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    with pytest.raises(UsageError, match="AWS_CA_BUNDLE"):
        at("https://127.0.0.1:1")
