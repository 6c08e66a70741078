"""What a source's URL says of its Redis: `redis://user:password@host:port/db?option=value&…`.

With `rediss` for `redis` the connection is by TLS. The password may stand in a variable of the environment
instead, which `password_variable` names. What is shown of a URL holds neither user nor password.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pipeline.errors import UsageError

PORT = 6379
BATCH_ENTRIES = 500
LARGEST_BATCH = 10_000


class Server(BaseModel):
    """Where a server is and how to get in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    host: str = Field(min_length=1)
    port: int = PORT
    db: int = Field(0, ge=0, description="The number of the database; in the URL's path.")
    username: str | None = None
    password: SecretStr | None = None
    password_variable: str | None = Field(None, description="The environment variable that holds the password.")
    ca_file: Path | None = Field(None, description="Who signs the server's certificate, where the system doesn't know.")
    cert_file: Path | None = Field(None, description="Our own certificate, where the server asks for one ...")
    key_file: Path | None = Field(None, description="... and its key.")
    verify: bool = Field(default=True, description="Whether the server's certificate must be right.")

    @property
    def tls(self) -> bool:
        """Whether the connection is by TLS."""
        return self.scheme.startswith("rediss")

    @property
    def address(self) -> str:
        """Host and port, as URLs write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def canonical(self) -> str:
        """The server and database as logs and errors may show them."""
        return f"{self.scheme}://{self.address}/{self.db}"

    def secret(self) -> str | None:
        """The password. Raises UsageError if the variable that should hold it is not set."""
        if self.password_variable is None:
            return self.password.get_secret_value() if self.password is not None else None
        found = os.environ.get(self.password_variable)
        if found is None:
            raise UsageError(f"{self.canonical}: the environment has no {self.password_variable}")
        return found


class ValuesOptions(Server):
    """Strings and hashes under a prefix."""

    prefix: str = Field("", description="What the keys begin with.")
    notify: Literal["leave", "set"] = Field(
        "leave", description="`set` lets us switch the server's keyspace notifications on, where they are off."
    )
    concurrency: int = Field(4, ge=1, le=256, description="Values that are read at once for each worker thread.")


class StreamOptions(Server):
    """A stream."""

    key: str = Field(min_length=1)
    group: str | None = Field(None, description="A consumer group that is moved along, for tools that show lag.")
    trim: bool = Field(default=False, description="Whether the stream is trimmed behind what is imported.")
    batch: int = Field(BATCH_ENTRIES, ge=1, le=LARGEST_BATCH, description="Most entries of one range.")


class ListOptions(Server):
    """A list."""

    key: str = Field(min_length=1)
    batch: int = Field(BATCH_ENTRIES, ge=1, le=LARGEST_BATCH, description="Most items of one batch.")


Options = TypeVar("Options", bound=Server)

_OURS = frozenset({"scheme", "host", "port", "db", "username", "password", "key"})
"""What stands in the URL itself, not behind its question mark."""


def parse(kind: type[Options], url: str, folder: Path = Path()) -> Options:
    """The options that a URL says; files' paths start from `folder`.

    Raises:
        UsageError: it names no database or no key, an unknown option, or a value that can't be.
    """
    parts = urlsplit(url, allow_fragments=False)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    said: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    wrong = sorted(_OURS & said.keys())
    if wrong:
        raise UsageError(f"{shown}: {wrong[0]} is no option: it stands before the question mark")
    said |= _place(parts, shown, keyed="key" in kind.model_fields)
    for name in ("ca_file", "cert_file", "key_file"):
        if isinstance(said.get(name), str):
            said[name] = folder / Path(str(said[name])).expanduser()
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(kind.model_fields.keys() - _OURS))
        raise UsageError(f"{shown}: {name}: {first['msg']} (options: {known})") from None


def _place(parts: SplitResult, shown: str, *, keyed: bool) -> dict[str, object]:
    """What stands before the question mark: server, who asks, database, and the key where there is one."""
    try:
        place: dict[str, object] = {"scheme": parts.scheme.lower(), "host": parts.hostname, "port": parts.port or PORT}
    except ValueError:
        raise UsageError(f"{shown}: the port is no port") from None
    if parts.hostname is None:
        raise UsageError(f"{shown}: it names no host")
    database, slash, key = parts.path.removeprefix("/").partition("/")
    if keyed and not key:
        raise UsageError(f"{shown}: it names no key; write {parts.scheme}://host:port/0/key")
    if not keyed and slash:
        raise UsageError(f"{shown}: a prefix is an option; write {parts.scheme}://host:port/0?prefix={key or 'tasks:'}")
    if not (database.isdecimal() or (not database and not keyed)):
        raise UsageError(f"{shown}: {database!r} is no number of a database")
    place["db"] = int(database or 0)
    if keyed:
        place["key"] = unquote(key)
    if parts.username:
        place["username"] = unquote(parts.username)
    if parts.password is not None:
        place["password"] = unquote(parts.password)
    return place
