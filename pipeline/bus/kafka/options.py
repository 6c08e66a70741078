"""How to reach Kafka, read from one URL: `kafka://host:9092[,host:9092]/topic?option=value&…`.

Secrets are never in the URL: the password and the key's password come from the environment.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config import Duration
from pipeline.errors import ConfigError

DEFAULT_PORT = 9092
PASSWORD_VARIABLE = "LABELFEED_KAFKA_PASSWORD"  # noqa: S105 - a variable's name
KEY_PASSWORD_VARIABLE = "LABELFEED_KAFKA_SSL_KEY_PASSWORD"  # noqa: S105 - a variable's name
CONNECT_MS = 5_000
REQUEST_MS = 15_000
"""Longest time that one request to a broker may take."""
LARGEST_BYTES = 4 * 1024 * 1024
"""The largest dead letter: four times what Kafka and SQS take of others by default."""
CODECS = {"lz4": "lz4", "zstd": "zstandard", "snappy": "python-snappy"}
"""The package that a method of compression needs, by its name."""
_INSTALLED = {"gzip": has_gzip, "lz4": has_lz4, "zstd": has_zstd, "snappy": has_snappy}
_WITHOUT_PASSWORD = ("GSSAPI", "AWS_MSK_IAM")
"""Mechanisms that log in by a ticket, or by what AWS's own variables say."""


class KafkaOptions(BaseModel):
    """The options of an event log on Kafka. The topic is made with `partitions`, `replicas` and `retention` if
    there is none; an existing one is left as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: tuple[str, ...] = Field(description="Brokers to ask first, host:port.")
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,200}$", description="The topic of the events.")
    group: str = Field(
        "labelfeed",
        min_length=1,
        description="The consumer group of the dispatchers; each installation on a topic needs its own.",
    )
    member: str | None = Field(
        None, description="What a process's name in the group begins with; by default host and process number."
    )
    partitions: int = Field(6, ge=1, description="Partitions of a new topic: the most dispatchers that can share it.")
    replicas: int = Field(
        -1, ge=-1, description="Copies of each partition of a new topic; -1 is the cluster's default."
    )
    retention: Duration = Field(7 * 86400.0, gt=0, description="How long a new topic keeps events.")
    dead_retention: Duration = Field(30 * 86400.0, gt=0, description="How long a new topic of dead letters keeps them.")
    session: Duration = Field(10.0, ge=1, description="A dispatcher that is silent for this long loses its partitions.")
    compression: Literal["lz4", "gzip", "zstd", "snappy"] | None = Field(
        "lz4", description="Compression of batches: lz4, gzip, zstd, snappy or none."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"] | None = Field(
        None, description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; GSSAPI and AWS_MSK_IAM log in by what they find."
    )
    sasl_username: str | None = Field(None, description=f"The user; the password is in {PASSWORD_VARIABLE}.")
    ssl_cafile: str | None = Field(None, description="A file of certificates to trust instead of the system's.")
    ssl_certfile: str | None = Field(None, description="This client's certificate.")
    ssl_keyfile: str | None = Field(None, description=f"Its key; the key's password is in {KEY_PASSWORD_VARIABLE}.")
    ssl_check_hostname: bool = Field(default=True, description="Whether the broker's certificate must name its host.")

    @model_validator(mode="after")
    def _take_effect(self) -> Self:
        """Whatever is asked for is done: else events would go out in the clear where somebody thinks otherwise."""
        for problem in (self._login(), self._encryption()):
            if problem is not None:
                raise ValueError(problem)
        return self

    def _login(self) -> str | None:
        said = [name for name in ("sasl_mechanism", "sasl_username") if getattr(self, name)]
        if not self.security_protocol.startswith("SASL"):
            told = f"{said[0] if said else ''} has no effect with security_protocol={self.security_protocol}"
            return f"{told}; say security_protocol=SASL_SSL, or SASL_PLAINTEXT without TLS" if said else None
        wanted = ("sasl_mechanism", "sasl_username") if self._by_password else ("sasl_mechanism",)
        missing = [name for name in wanted if name not in said]
        return f"security_protocol={self.security_protocol} needs {missing[0]}; add {missing[0]}=" if missing else None

    def _encryption(self) -> str | None:
        said = [name for name in type(self).model_fields if name.startswith("ssl_") and name in self.model_fields_set]
        if not self.security_protocol.endswith("SSL"):
            told = f"{said[0] if said else ''} has no effect with security_protocol={self.security_protocol}"
            return f"{told}; say security_protocol=SSL, or SASL_SSL with a password" if said else None
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            return "ssl_keyfile has no effect without ssl_certfile; name the certificate that it is the key of"
        return None

    @property
    def _by_password(self) -> bool:
        return self.sasl_mechanism not in _WITHOUT_PASSWORD

    def check_here(self) -> None:
        """Raise ConfigError where this machine lacks what the options name: a file, a package, a password."""
        problem = self._files() or self._codec()
        if problem is not None:
            raise ConfigError(problem, path="events")
        if self.sasl_mechanism is not None and self._by_password and not os.environ.get(PASSWORD_VARIABLE):
            raise ConfigError(
                f"there is no password for {self.sasl_username}", path="events", hint=f"set {PASSWORD_VARIABLE}"
            )

    def _files(self) -> str | None:
        context = ssl.create_default_context()
        told = f"ssl_cafile: {self.ssl_cafile}"
        advice = "name a PEM file"
        try:
            if self.ssl_cafile is not None:
                context.load_verify_locations(self.ssl_cafile)
            if self.ssl_certfile is not None:
                told = f"ssl_certfile: {' with '.join(filter(None, (self.ssl_certfile, self.ssl_keyfile)))}"
                advice = f"name PEM files, and the key's password in {KEY_PASSWORD_VARIABLE}"
                # With a password in any case: without one OpenSSL asks for it at the terminal.
                password = os.environ.get(KEY_PASSWORD_VARIABLE, "")
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password)
        except OSError as error:
            return f"{told} can't be used: {error.strerror or error}; {advice}"
        return None

    def _codec(self) -> str | None:
        if self.compression is None or _INSTALLED[self.compression]():
            return None
        package = CODECS[self.compression]
        return f"compression={self.compression} needs the package {package}; install it, or say compression=gzip"

    @property
    def dead_topic(self) -> str:
        """Where records go that can't be read or are refused."""
        return f"{self.topic}.dead"

    @property
    def canonical(self) -> str:
        """The URL without options: what logs and errors may show."""
        return f"kafka://{','.join(self.bootstrap)}/{self.topic}"

    def client(self) -> dict[str, Any]:
        """What every client of kafka-python is configured with. Raises as `check_here`."""
        self.check_here()
        security = {
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": os.environ.get(PASSWORD_VARIABLE),
            "ssl_cafile": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "ssl_password": os.environ.get(KEY_PASSWORD_VARIABLE),
            "ssl_check_hostname": self.ssl_check_hostname,
        }
        return {
            "bootstrap_servers": list(self.bootstrap),
            "bootstrap_timeout_ms": CONNECT_MS,
            "request_timeout_ms": REQUEST_MS,
            "reconnect_backoff_max_ms": 2000,
            **{name: value for name, value in security.items() if value is not None},
        }


def parse(url: str) -> KafkaOptions:
    """The options that a `kafka://` URL says.

    Raises:
        ConfigError: it names no topic, an unknown option, or an option's value that can't be; or holds a secret.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError(
            "a Kafka URL holds no user and password", path="events", hint=f"sasl_username= and {PASSWORD_VARIABLE}"
        )
    said: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if said.get("compression") == "none":
        said["compression"] = None
    said["bootstrap"] = tuple(_with_port(host) for host in parts.netloc.split(",") if host)
    said["topic"] = parts.path.strip("/")
    if not said["bootstrap"] or not said["topic"]:
        raise ConfigError("write it as kafka://host:9092/topic", path="events")
    return _checked(said)


def _with_port(host: str) -> str:
    return host if host.rpartition(":")[2].isdecimal() else f"{host}:{DEFAULT_PORT}"


def _checked(said: Mapping[str, Any]) -> KafkaOptions:
    try:
        return KafkaOptions(**said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if not name:
            raise ConfigError(first["msg"].removeprefix("Value error, "), path="events") from None
        known = ", ".join(sorted(KafkaOptions.model_fields.keys() - {"bootstrap", "topic"}))
        raise ConfigError(f"the option {name}: {first['msg']}", path="events", hint=f"options: {known}") from None
