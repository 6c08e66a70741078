"""The options of an event log on Kafka: each that is accepted has its effect."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.services import Service
from pipeline.bus.kafka import options as kafka_options
from pipeline.bus.kafka import parse
from pipeline.bus.kafka.connection import opened
from pipeline.errors import ConfigError

TLS = "kafka://host/t?security_protocol=SSL"
SASL = "kafka://host/t?security_protocol=SASL_SSL"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://host/t?security_protocol=SSLX", ["security_protocol", "SASL_SSL"]),
        (f"{SASL}&sasl_mechanism=NOPE&sasl_username=u", ["sasl_mechanism", "SCRAM-SHA-512"]),
        ("kafka://host/t?compression=brotli", ["compression", "zstd"]),
        ("kafka://host/t?sasl_mechanism=PLAIN", ["sasl_mechanism has no effect", "security_protocol=SASL_SSL"]),
        ("kafka://host/t?sasl_username=u", ["sasl_username has no effect", "security_protocol=SASL_SSL"]),
        (f"{TLS}&sasl_username=u", ["sasl_username has no effect", "security_protocol=SASL_SSL"]),
        ("kafka://host/t?ssl_cafile=/ca.pem", ["ssl_cafile has no effect", "security_protocol=SSL"]),
        ("kafka://host/t?ssl_check_hostname=false", ["ssl_check_hostname has no effect", "security_protocol=SSL"]),
        (f"{SASL}&sasl_username=u", ["needs sasl_mechanism"]),
        (f"{SASL}&sasl_mechanism=PLAIN", ["needs sasl_username"]),
        (f"{TLS}&ssl_keyfile=/my.key", ["ssl_keyfile has no effect", "ssl_certfile"]),
    ],
)
def test_what_would_have_no_effect_is_refused(url: str, words: list[str]) -> None:
    """A value that nobody knows, and an option that nothing comes of, are errors that say what to write instead."""
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("option", ["ssl_cafile", "ssl_certfile"])
@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("no certificate", "")])
def test_a_file_that_holds_no_certificate_is_refused(
    tmp_path: Path, option: str, content: str | None, why: str
) -> None:
    """A file that is not there, or is none of certificates, is named before anybody is asked, and not told as a broker
    that is away; whoever asks no broker needs no such file."""
    path = tmp_path / "my.pem"
    if content is not None:
        path.write_text(content)
    asked = parse(f"{TLS}&{option}={path}")
    with pytest.raises(ConfigError, match=rf"{option}: \S+my\.pem can't be used.*{why}"):
        asked.client()


@pytest.mark.parametrize("codec", ["lz4", "gzip", "zstd", "snappy", "none"])
def test_every_documented_compression_is_installed(codec: str) -> None:
    """With the extra `kafka` each method of compression can be chosen."""
    asked = parse(f"kafka://host/t?compression={codec}")
    assert asked.compression == (None if codec == "none" else codec)
    asked.check_here()


def test_a_compression_without_its_library_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library is missing, the error says which package brings it."""
    monkeypatch.setitem(kafka_options._INSTALLED, "snappy", lambda: False)
    asked = parse("kafka://host/t?compression=snappy")
    with pytest.raises(ConfigError, match="python-snappy"):
        asked.check_here()


def test_a_missing_password_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a user and gives no password is told the variable, before anybody is asked."""
    monkeypatch.delenv(kafka_options.PASSWORD_VARIABLE, raising=False)
    asked = parse(f"{SASL}&sasl_mechanism=PLAIN&sasl_username=u")
    with pytest.raises(ConfigError, match=kafka_options.PASSWORD_VARIABLE):
        asked.client()
    parse(f"{SASL}&sasl_mechanism=GSSAPI").check_here()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_client_that_cannot_be_made_leaves_no_thread(kafka: Service) -> None:
    """Whatever a constructor of the client raises, its thread ends: attempts do not add up."""
    asked = parse(f"{kafka.url}/t")
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="codec"):
        opened(KafkaProducer, asked, compression_type="brotli")
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    gc.collect()
