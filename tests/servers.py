"""Real servers as fixtures, by `deploy.services`, and names in them that belong to one test alone.

What the collected tests ask for is installed and started before the first of them runs, so that no test's
time limit counts it, and is stopped at the end unless it ran before. A server that can't be had skips its
tests with the reason; where CI is set it fails them.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import boto3
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from botocore.config import Config as BotoConfig
from google.api_core.exceptions import AlreadyExists

from deploy import services
from deploy.services import processes
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY, Service, ServiceError

COMPONENTS = {
    "kafka": "kafka",
    "redis_server": "redis",
    "postgres": "postgres",
    "seaweedfs": "seaweedfs",
    "versitygw": "versitygw",
    "elasticmq": "elasticmq",
    "azurite": "azurite",
    "fakegcs": "fakegcs",
    "pubsub": "pubsub",
    "toxiproxy": "toxiproxy",
    "label_studio": "label_studio",
}
"""Fixture → component."""

SETTINGS = {"postgres": {"fsync": "off"}}
"""What a component of the tests' own is told. PostgreSQL need not outlive the machine, as it does with its default:
hundreds of databases are made and dropped, each of which would wait for hundreds of files to be on the disk. A server
that is killed loses nothing by it."""

GCS_TOPIC = "projects/test/topics/changes"
"""What `gcs_telling` tells of its changes."""

_OPENED = pytest.StashKey[dict[str, Service | ServiceError]]()
_STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and let the clients' own warnings pass."""
    config.addinivalue_line("markers", "servers: needs real servers, which are installed and started for it")
    # kafka-python reads its schemas in a way that Python 3.11 and 3.12 call deprecated and 3.13 doesn't.
    config.addinivalue_line("filterwarnings", "ignore:(read_text|open_text) is deprecated:DeprecationWarning")
    # Servers in Java live for minutes here: compiling them well would take longer than it saves.
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    config.stash[_OPENED] = {}
    config.stash[_STACK] = ExitStack()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a server."""
    for item in items:
        if COMPONENTS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install and start what the chosen tests ask for."""
    config = session.config
    if config.option.collectonly:
        return
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    wanted = [COMPONENTS[fixture] for fixture in COMPONENTS if fixture in asked]
    with ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
        # All that is built is built before anything starts, so that no server's start has to wait for a compiler.
        list(pool.map(_obtained, wanted))
        config.stash[_OPENED].update(zip(wanted, pool.map(lambda name: _open(config, name), wanted), strict=True))


def _obtained(name: str) -> None:
    with suppress(ServiceError):  # its start says why it can't be had
        services.install(name)


def _open(config: pytest.Config, name: str) -> Service | ServiceError:
    settings = SETTINGS.get(name)
    try:
        return config.stash[_STACK].enter_context(
            services.using(name, "main" if settings is None else "tests", settings=settings)
        )
    except ServiceError as error:
        return error


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started here, unless others use it."""
    config.stash[_STACK].close()


def _service(request: pytest.FixtureRequest, fixture: str) -> Service:
    opened = request.config.stash[_OPENED]
    name = COMPONENTS[fixture]
    if name not in opened:
        opened[name] = _open(request.config, name)
    found = opened[name]
    with needed():
        if isinstance(found, ServiceError):
            raise found
    return found


@contextmanager
def needed() -> Iterator[None]:
    """Without the server or the tool that is asked for in here the test is skipped, or fails where CI is set."""
    try:
        yield
    except ServiceError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Service:
    """A Kafka broker."""
    return _service(request, "kafka")


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Service:
    """A Redis server."""
    return _service(request, "redis_server")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Service:
    """A PostgreSQL server."""
    return _service(request, "postgres")


@pytest.fixture(scope="session")
def pgbouncer(request: pytest.FixtureRequest, postgres: Service) -> Service:
    """PgBouncer in transaction mode before the PostgreSQL server."""
    stack, settings = request.config.stash[_STACK], {"postgres": postgres.address}
    with needed():
        return stack.enter_context(services.using("pgbouncer", f"at-{postgres.port}", settings=settings))


@pytest.fixture(scope="session")
def seaweedfs(request: pytest.FixtureRequest) -> Service:
    """An S3 server: SeaweedFS."""
    return _service(request, "seaweedfs")


@pytest.fixture(scope="session")
def versitygw(request: pytest.FixtureRequest) -> Service:
    """An S3 server on a folder: versitygw."""
    return _service(request, "versitygw")


@pytest.fixture(scope="session")
def elasticmq(request: pytest.FixtureRequest) -> Service:
    """An SQS server: ElasticMQ."""
    return _service(request, "elasticmq")


@pytest.fixture(scope="session")
def azurite(request: pytest.FixtureRequest) -> Service:
    """Azure's blobs and queues: Azurite."""
    return _service(request, "azurite")


@pytest.fixture(scope="session")
def fakegcs(request: pytest.FixtureRequest) -> Service:
    """Google Cloud Storage: fake-gcs-server."""
    return _service(request, "fakegcs")


@pytest.fixture(scope="session")
def pubsub(request: pytest.FixtureRequest) -> Service:
    """Google's Pub/Sub: its fake."""
    return _service(request, "pubsub")


@pytest.fixture(scope="session")
def toxiproxy(request: pytest.FixtureRequest) -> Service:
    """A proxy that cuts and slows connections."""
    return _service(request, "toxiproxy")


@pytest.fixture(scope="session")
def label_studio(request: pytest.FixtureRequest) -> Service:
    """A Label Studio; its user's legacy token is in its environment as LABEL_STUDIO_TOKEN."""
    return _service(request, "label_studio")


@pytest.fixture(scope="session")
def gcs_telling(request: pytest.FixtureRequest, fakegcs: Service, pubsub: Service) -> Service:
    """A Google Cloud Storage of its own that tells a topic of all that changes: see `GCS_TOPIC`."""
    with suppress(AlreadyExists):
        pubsub_client("publisher", pubsub).create_topic(name=GCS_TOPIC)
    _, project, _, topic = GCS_TOPIC.split("/")
    settings = {"pubsub": pubsub.address, "project": project, "topic": topic}
    with needed():
        return request.config.stash[_STACK].enter_context(
            services.using("fakegcs", f"at-{pubsub.port}", settings=settings)
        )


@pytest.fixture
def unique() -> str:
    """A name that nobody else has: lower-case letters and digits, fit for topic, bucket, queue and database."""
    return f"t{uuid.uuid4().hex[:16]}"


@pytest.fixture
def kafka_url(kafka: Service, unique: str) -> str:
    """The URL of an event log of this test alone; its topic doesn't exist yet."""
    return f"{kafka.url}/{unique}"


@pytest.fixture
def redis_url(redis_server: Service, unique: str) -> str:
    """The URL of the Redis server, with a namespace of this test alone."""
    return f"{redis_server.url}?namespace={unique}"


@pytest.fixture
def own_redis(redis_server: Service, unique: str) -> Iterator[Callable[..., Service]]:
    """Starts Redis servers for this test alone, with settings of its own."""
    with ExitStack() as stack:

        def started(**settings: str) -> Service:
            name = f"{unique}{len(made)}"
            made.append(stack.enter_context(services.using("redis", name, settings=settings)))
            return made[-1]

        made: list[Service] = []
        yield started


@dataclass(frozen=True)
class Tls:
    """A Redis server, its port for TLS, and the certificate that it shows there."""

    server: Service
    port: int
    certificate: Path


@pytest.fixture
def tls_redis(own_redis: Callable[..., Service], tmp_path: Path) -> Callable[..., Tls]:
    """Starts a Redis server for this test alone that takes TLS, with settings of its own."""

    def started(**settings: str) -> Tls:
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        port = processes.free_ports(("tls",))["tls"]
        server = own_redis(**settings | {
            "tls-port": str(port), "tls-cert-file": str(certificate), "tls-key-file": str(key),
            "tls-ca-cert-file": str(certificate), "tls-auth-clients": "no",
        })  # fmt: skip
        return Tls(server, port, certificate)

    return started


@pytest.fixture
def database_url(postgres: Service, unique: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test alone."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {unique}")
        yield postgres.url.removesuffix("/postgres") + f"/{unique}"
        connection.execute(f"DROP DATABASE {unique} WITH (FORCE)")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' credentials in the environment, and none of the person's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, azurite: Service) -> Any:
    """A client of Azurite's blobs; its login is in the environment, and none of the person's own."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    for name, value in azurite.env.items():
        monkeypatch.setenv(name, value)
    return _azure_client(azurite.env["AZURE_STORAGE_CONNECTION_STRING"])


@cache
def _azure_client(connection: str) -> Any:
    return BlobServiceClient.from_connection_string(connection)


def s3_client(service: Service) -> Any:
    """A boto3 client of an S3 server."""
    return _client("s3", service.url)


def sqs_client(service: Service) -> Any:
    """A boto3 client of an SQS server."""
    return _client("sqs", service.url)


@cache
def _client(kind: Literal["s3", "sqs"], url: str) -> Any:
    # Making one takes a good part of a second, so that there is one for all tests.
    session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    style = BotoConfig(signature_version="s3v4", s3={"addressing_style": "path"}) if kind == "s3" else None
    return session.client(kind, endpoint_url=url, config=style)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the person's own access to Google in the environment, and no look for a machine's."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "CLOUDSDK_", "GCE_", "GCLOUD_"))]:
        monkeypatch.delenv(name)
    for name in ("STORAGE_EMULATOR_HOST", "PUBSUB_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))


def gcs_client(service: Service) -> Any:
    """A google-cloud-storage client of a server."""
    return _gcs_client(service.url)


@cache
def _gcs_client(url: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    return Client("test", AnonymousCredentials(), client_options={"api_endpoint": url})


def pubsub_client(kind: Literal["publisher", "subscriber"], service: Service) -> Any:
    """A google-cloud-pubsub client of a server."""
    return _pubsub_client(kind, service.address)


@cache
def _pubsub_client(kind: Literal["publisher", "subscriber"], address: str) -> Any:
    from google.cloud import pubsub_v1

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", address)
        return pubsub_v1.PublisherClient() if kind == "publisher" else pubsub_v1.SubscriberClient()
