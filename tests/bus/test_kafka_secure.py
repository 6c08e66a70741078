"""A broker that lets in only who proves a name, over TLS: the options of `events` that say how."""

from __future__ import annotations

import datetime as dt
import gc
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy import services
from deploy.services import HOST, Service
from deploy.services.processes import free_ports
from pipeline.bus.kafka import KafkaLog, parse
from pipeline.bus.kafka.options import PASSWORD_VARIABLE
from tests.bus.contract import events_of, nothing, some, take

PING = """
import os, sys
from pipeline.bus.kafka import KafkaLog, parse
from pipeline.errors import LabelfeedError
try:
    KafkaLog(parse(sys.argv[1])).ping()
except LabelfeedError as error:
    print(error, flush=True)
os._exit(0)
"""
USER, PASSWORD = "feeder", "an opossum's secret"
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")


@dataclass(frozen=True)
class Secure:
    """A broker with a listener for SASL over TLS, and the file of its certificate."""

    port: int
    cafile: Path

    def url(self, topic: str, **options: str) -> str:
        """The event log of this topic there."""
        said = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": USER} | options
        query = "&".join(f"{name}={value}" for name, value in said.items())
        return f"kafka://{HOST}:{self.port}/{topic}?partitions=1&{query}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, kafka: Service) -> Iterator[Secure]:
    """A broker of these tests alone."""
    folder = tmp_path_factory.mktemp("tls")
    cafile, store = folder / "broker.crt", folder / "broker.pem"
    certificate, key = _certificate()
    cafile.write_bytes(certificate)
    store.write_bytes(key + certificate)
    folder.chmod(0o755)
    port = free_ports(("secure",))["secure"]
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = {
        "listeners": f"PLAINTEXT://{{host}}:{{main}},CONTROLLER://{{host}}:{{controller}},SECURE://{{host}}:{port}",
        "advertised.listeners": f"PLAINTEXT://{{host}}:{{main}},SECURE://{{host}}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
        "listener.name.secure.ssl.keystore.type": "PEM",
        "listener.name.secure.ssl.keystore.location": str(store),
    }
    with services.using("kafka", f"secure{port}", settings=settings):
        yield Secure(port, cafile)


@pytest.fixture(autouse=True)
def cut_off() -> Iterator[None]:
    """Collect the sockets of the client's failed attempts here: it leaves them to the garbage collector."""
    yield
    gc.collect()


def _certificate() -> tuple[bytes, bytes]:
    """A certificate of its own for loopback, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), written


def test_who_proves_its_name_is_let_in(secure: Secure, unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the user, the password and the broker's certificate, events go through as on an open broker."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    with closing(KafkaLog(parse(secure.url(unique, ssl_cafile=str(secure.cafile))))) as log:
        events = some(5)
        log.publish(events)
        with closing(log.consumer(nothing)) as consumer:
            records, _ = take(consumer, 5)
    assert events_of(records) == events


def refusal(url: str, password: str) -> str:
    """What is said of a log that cannot be reached. In a process of its own: the client leaves the sockets of its
    failed attempts to the garbage collector, which would meet them in some other test."""
    done = subprocess.run(
        [sys.executable, "-c", PING, url],
        env={**os.environ, PASSWORD_VARIABLE: password},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_wrong_password_is_said_and_not_shown(secure: Secure, unique: str) -> None:
    """Whoever has a wrong password is told that the broker refuses it, without the password."""
    said = refusal(secure.url(unique, ssl_cafile=str(secure.cafile)), "a wrong one")
    # Now and then the client meets the end of the connection before it has read why.
    assert re.search(r"refuses us: \w*Authentication|wrong user or password", said), said
    assert "a wrong one" not in said


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(secure: Secure, unique: str) -> None:
    """Without the broker's certificate in `ssl_cafile` the password is sent to nobody."""
    said = refusal(secure.url(unique), PASSWORD)
    assert "CERTIFICATE" in said, said
    assert PASSWORD not in said
