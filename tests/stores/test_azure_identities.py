"""Tokens instead of keys: a managed identity's, at an Azurite that checks them, by HTTPS."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.storage.blob import BlobServiceClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy import services
from deploy.services import Service
from deploy.services.azure import ACCOUNT, KEY
from pipeline.config import Source
from pipeline.errors import UnavailableError, UsageError
from pipeline.stores.azure import AzureStore, open_store
from tests.serving import Handler, serving
from tests.stores.contract import listed

HEADER = "planted-header"
RESOURCE = "https://storage.azure.com"


class Certificates(NamedTuple):
    """Files: the authority to trust, the server's certificate with its chain, and its key."""

    authority: Path
    server: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """An authority, and a certificate of this machine's loopback by it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "127.0.0.1")]
    now = datetime.now(UTC)
    made = []
    for at in range(2):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[at])
            .issuer_name(names[0])
            .public_key(keys[at].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=at == 0, path_length=None), critical=True)
        )
        if at:
            place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(place, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    found = Certificates(folder / "authority.pem", folder / "server.pem", folder / "key.pem")
    found.authority.write_bytes(made[0])
    found.server.write_bytes(made[1] + made[0])
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    found.key.write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, form, none))
    return found


class Secure(NamedTuple):
    """An Azurite that takes tokens: its URL, and the files of its certificate."""

    url: str
    files: Certificates


@pytest.fixture(scope="module")
def secure(azurite: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """An Azurite that takes tokens, by HTTPS."""
    files = certificates(tmp_path_factory.mktemp("tls"))
    settings = {"cert": str(files.server), "key": str(files.key)}
    with services.using("azurite", f"secure-{uuid.uuid4().hex[:8]}", settings=settings) as service:
        yield Secure(f"https://127.0.0.1:{service.port}/{ACCOUNT}", files)


class Identities:
    """Where tokens are asked for: `asked` is how often, `seconds` how long they are good. `host` is the server's."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 3600
        self.refuses = False
        self.host = ""

    def answer(self, method: str, target: str, header: str | None, form: dict[str, list[str]]) -> dict[str, Any] | None:
        """A token for a machine that shows the header, as App Service gives it, or for a service principal's secret."""
        if target.endswith("/openid-configuration"):
            return {"issuer": self.host, "authorization_endpoint": self.host, "token_endpoint": f"{self.host}/token"}
        self.asked += 1
        known = form.get("client_secret") == [HEADER] if method == "POST" else header == HEADER
        if self.refuses or not known:
            return None
        end = int(time.time()) + self.seconds
        claims = {"iss": "https://sts.windows.net/t/", "aud": RESOURCE, "exp": end, "tid": "t", "oid": "o"}
        claims |= {"iat": end - self.seconds, "nbf": end - self.seconds - 60}
        token = ".".join(_encoded(part) for part in ({"alg": "RS256", "typ": "JWT"}, claims)) + ".AAAA"
        said = {"access_token": token, "resource": RESOURCE, "token_type": "Bearer"}
        return said | ({"expires_in": self.seconds} if method == "POST" else {"expires_on": str(end)})


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture
def identities(secure: Secure, monkeypatch: pytest.MonkeyPatch, azure: Any) -> Iterator[Identities]:
    """A real server that gives tokens; there is no other login in the environment."""
    made = Identities()

    class Giving(Handler):
        def answered(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers.get("content-length") or 0)).decode())
            body = made.answer(self.command, self.path, self.headers["X-IDENTITY-HEADER"], form)
            content = json.dumps(body or {"error": "invalid_client", "error_description": "no such identity"}).encode()
            self.send_response_only(400 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    monkeypatch.setenv("SSL_CERT_FILE", str(secure.files.authority))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure.files.authority))
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with serving(Giving, (secure.files.server, secure.files.key)) as made.host:
        yield made


@pytest.fixture
def machine(identities: Identities, monkeypatch: pytest.MonkeyPatch) -> Identities:
    """The machine has an identity, which the variables of App Service name."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identities.host}/token")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    return identities


@pytest.fixture
def principal(identities: Identities, monkeypatch: pytest.MonkeyPatch) -> Identities:
    """A service principal and its secret are in the environment."""
    values = {"AUTHORITY_HOST": identities.host, "TENANT_ID": "adfs", "CLIENT_ID": "c", "CLIENT_SECRET": HEADER}
    for name, value in values.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    return identities


@pytest.fixture
def container(secure: Secure, unique: str) -> str:
    """A container with one blob, put there with the account's key."""
    trusted = str(secure.files.authority)
    client = BlobServiceClient(secure.url, AzureNamedKeyCredential(ACCOUNT, KEY), connection_verify=trusted)
    client.create_container(unique).upload_blob("a b.txt", b"content")
    client.get_blob_client(unique, "odd//b.txt").upload_blob(b"odd")
    client.close()
    return unique


def opened(container: str, url: str, query: str = "") -> AzureStore:
    """The store of a source at an endpoint."""
    return open_store(
        Source(name="s", project="p", url=f"az://{container}{query}", account=ACCOUNT, endpoint=url), Path()
    )


@pytest.mark.parametrize("query", ["", "?credential=default", "?credential=managed_identity"])
def test_an_identity_lists_and_reads(machine: Identities, container: str, secure: Secure, query: str) -> None:
    """Both clients log in with its token, which is asked for a few times, not for each request."""
    store = opened(container, secure.url, query)
    assert [entry.key for entry in listed(store)] == ["a b.txt", "odd//b.txt"]
    for _ in range(10):
        for key, content in (("a b.txt", b"content"), ("odd//b.txt", b"odd")):
            with store.open(key) as reading:
                assert reading.content == content
    store.close()

    assert 1 <= machine.asked <= 4


@pytest.mark.parametrize("query", ["", "?credential=service_principal"])
def test_a_service_principal_lists_and_reads(principal: Identities, container: str, secure: Secure, query: str) -> None:
    """Its secret is shown to the tenant's own server, and nobody else."""
    store = opened(container, secure.url, query)
    assert [entry.key for entry in listed(store)] == ["a b.txt", "odd//b.txt"]
    with store.open("odd//b.txt") as reading:
        assert reading.content == b"odd"
    store.close()

    assert 1 <= principal.asked <= 4


def test_a_service_principal_that_is_refused_makes_the_source_wait(
    principal: Identities, container: str, secure: Secure
) -> None:
    """A wrong secret is told as one, without it."""
    principal.refuses = True
    store = opened(container, secure.url, "?credential=service_principal")
    with pytest.raises(UnavailableError, match="no identity") as caught:
        store.list(None, 1)
    assert HEADER not in str(caught.value)
    store.close()


def test_a_token_that_is_about_to_end_is_replaced_in_mid_pass(
    machine: Identities, container: str, secure: Secure
) -> None:
    """Minutes before its end another one is asked for, so that a pass or an import goes on as if it were the same."""
    machine.seconds = 120
    store = opened(container, secure.url)
    first = store.list(None, 1)
    asked = machine.asked
    for key, content in (("a b.txt", b"content"), ("odd//b.txt", b"odd")):
        with store.open(key) as reading:
            assert reading.content == content
    rest = store.list(first.entries[-1].key, 1)
    store.close()

    assert [entry.key for entry in first.entries + rest.entries] == ["a b.txt", "odd//b.txt"]
    assert machine.asked > asked


def test_an_identity_signs_with_a_key_that_it_is_given(machine: Identities, container: str, secure: Secure) -> None:
    """A URL is signed without any account key: the server gives a key for days, and is asked for it once."""
    store = opened(container, secure.url)
    first = parse_qs(urlsplit(store.sign("a b.txt", 3600)).query)
    second = parse_qs(urlsplit(store.sign("odd//b.txt", 60)).query)

    assert (first["skoid"], first["sktid"], first["sks"]) == (["o"], ["t"], ["b"])
    assert (first["sr"], first["sp"]) == (["b"], ["r"])
    assert datetime.fromisoformat(first["ske"][0]) - datetime.now(UTC) > timedelta(days=5)
    assert timedelta(minutes=59) < datetime.fromisoformat(first["se"][0]) - datetime.now(UTC) <= timedelta(hours=1)
    assert (second["skt"], second["ske"]) == (first["skt"], first["ske"])
    assert second["sig"] != first["sig"]
    with pytest.raises(UsageError, match="six days"):
        store.sign("a b.txt", 7 * 86400)
    store.close()


def test_an_identity_that_gives_no_token_makes_the_source_wait(
    machine: Identities, container: str, secure: Secure
) -> None:
    """It is said what is missing, without the secret that was shown, and works once there is a token."""
    machine.refuses = True
    store = opened(container, secure.url, "?credential=managed_identity")
    for use in (lambda: store.list(None, 1), lambda: store.head("a b.txt")):
        with pytest.raises(UnavailableError, match="no identity") as caught:
            use()
        assert caught.value.code == "permission"
        assert HEADER not in str(caught.value)
    machine.refuses = False

    assert [entry.key for entry in listed(store)] == ["a b.txt", "odd//b.txt"]
    store.close()
