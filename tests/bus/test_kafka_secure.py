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
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from deploy import services
from deploy.services import HOST, Service
from deploy.services.processes import free_ports
from pipeline.bus.kafka import KafkaLog, parse
from pipeline.bus.kafka.options import KEY_PASSWORD_VARIABLE, PASSWORD_VARIABLE
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
    """A broker with a listener for SASL over TLS and one for certificates of clients, and the files of its own and of
    a client's, whose key has PASSWORD."""

    port: int
    mutual: int
    cafile: Path
    certfile: Path
    keyfile: Path

    def url(self, topic: str, **options: str) -> str:
        """The event log of this topic there, for who proves a name by a password."""
        said = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": USER} | options
        return _url(self.port, topic, said)

    def mutual_url(self, topic: str, **options: str) -> str:
        """The same, for who proves a name by a certificate."""
        return _url(self.mutual, topic, {"security_protocol": "SSL", "ssl_cafile": str(self.cafile)} | options)


def _url(port: int, topic: str, options: dict[str, str]) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"kafka://{HOST}:{port}/{topic}?partitions=1&{query}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, kafka: Service) -> Iterator[Secure]:
    """A broker of these tests alone."""
    folder = tmp_path_factory.mktemp("tls")
    made = Secure(
        *free_ports(("secure", "mutual")).values(), *(folder / name for name in ("ca.crt", "my.crt", "my.key"))
    )
    store = folder / "broker.pem"
    certificate, key = _certificate()
    made.cafile.write_bytes(certificate)
    store.write_bytes(key + certificate)
    certificate, key = _certificate(PASSWORD)
    made.certfile.write_bytes(certificate)
    made.keyfile.write_bytes(key)
    folder.chmod(0o755)
    with services.using("kafka", f"secure{made.port}", settings=_settings(made, store)) as service:
        with closing(KafkaAdminClient(bootstrap_servers=service.address)) as admin:
            # One request for each: a broker takes one change of a user at a time.
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                known = UserScramCredentialUpsertion(USER, mechanism, PASSWORD)
                assert admin.alter_user_scram_credentials([known]) == {USER: None}
        yield made


def _settings(made: Secure, store: Path) -> dict[str, str]:
    """How the broker is configured, with its key and certificate in this file."""
    login = "org.apache.kafka.common.security.{}LoginModule required"
    plain = login.format("plain.Plain")
    listeners = f"PLAINTEXT://{{host}}:{{main}},SECURE://{{host}}:{made.port},MUTUAL://{{host}}:{made.mutual}"
    settings = {
        "listeners": f"{listeners},CONTROLLER://{{host}}:{{controller}}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL",
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(made.certfile),
    }
    for mechanism in ("scram-sha-256", "scram-sha-512"):
        settings[f"listener.name.secure.{mechanism}.sasl.jaas.config"] = f"{login.format('scram.Scram')};"
    for name in ("secure", "mutual"):
        settings |= {
            f"listener.name.{name}.ssl.keystore.type": "PEM",
            f"listener.name.{name}.ssl.keystore.location": str(store),
        }
    return settings


@pytest.fixture(autouse=True)
def cut_off() -> Iterator[None]:
    """Collect the sockets of the client's failed attempts here: it leaves them to the garbage collector."""
    yield
    gc.collect()


def _certificate(password: str = "") -> tuple[bytes, bytes]:
    """A certificate of its own for loopback, and its key (under a password, if there is one), as PEM."""
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
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    written = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    return made.public_bytes(serialization.Encoding.PEM), written


def goes_through(url: str) -> None:
    """Events go through as on an open broker."""
    with closing(KafkaLog(parse(url))) as log:
        events = some(5)
        log.publish(events)
        with closing(log.consumer(nothing)) as consumer:
            records, _ = take(consumer, 5)
    assert events_of(records) == events


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_who_proves_its_name_is_let_in(
    secure: Secure, unique: str, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    """With the user, the password and the broker's certificate, events go through, by each mechanism."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    goes_through(secure.url(unique, ssl_cafile=str(secure.cafile), sasl_mechanism=mechanism))


def test_a_client_s_certificate_counts(secure: Secure, unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate that the broker knows, and its key, events go through; without it nobody is let in."""
    monkeypatch.setenv(KEY_PASSWORD_VARIABLE, PASSWORD)
    goes_through(secure.mutual_url(unique, ssl_certfile=str(secure.certfile), ssl_keyfile=str(secure.keyfile)))
    assert refusal(secure.mutual_url(unique), PASSWORD)


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
