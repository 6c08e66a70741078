"""Reading values: strings, whatever their size, and hashes; each with the hash of its content as its version."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
import redis
from redis.exceptions import NoPermissionError, WatchError

from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, ObjectUnsettled
from pipeline.stores import SMALL_BYTES, Entry
from pipeline.stores.redis.access import is_wrong_type

CHUNK_BYTES = 1024 * 1024
TOGETHER_BYTES = 8 * 1024 * 1024
"""Strings that are listed together are fetched in requests of about this size."""
FIELDS_LIMIT = 100_000
"""A hash with more fields is no task."""
ATTEMPTS = 3
"""How often a large value that changes meanwhile is read for a listing."""
UNREADABLE = "unreadable"
"""The version of what our user may not read."""


class Value(NamedTuple):
    """A value, or what there is to say of it: its version and size, None where it kept changing."""

    version: str | None
    size: int


@dataclass(slots=True)
class ValueReading:
    """`pipeline.stores.Reading` of a value: in memory, or copied to a file while nothing could change it."""

    entry: Entry
    content: bytes | None
    path: Path = Path()
    streams: list[BinaryIO] = field(default_factory=list)

    def stream(self) -> BinaryIO:
        """As `Reading.stream`."""
        if self.content is not None:
            return BytesIO(self.content)
        self.streams.append(self.path.open("rb"))
        return self.streams[-1]


def version_of(content: bytes) -> str:
    """The version of some content."""
    return blake2b(content, digest_size=16).hexdigest()


def looked_at(client: redis.Redis, keys: Sequence[bytes]) -> list[Value | None]:
    """What the server has under each of some keys, in few requests; None for nothing."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.strlen(key)
    lengths = pipeline.execute(raise_on_error=False)
    found: dict[bytes, Value | None] = {}
    strings: list[tuple[bytes, int]] = []
    others: list[bytes] = []
    for key, length in zip(keys, lengths, strict=True):
        if isinstance(length, int):
            strings.append((key, length))
        elif isinstance(length, NoPermissionError):
            found[key] = Value(UNREADABLE, 0)
        elif is_wrong_type(length):
            others.append(key)
        else:
            raise length
    found |= _strings(client, strings)
    found |= _others(client, others)
    return [found[key] for key in keys]


def _strings(client: redis.Redis, lengths: Sequence[tuple[bytes, int]]) -> dict[bytes, Value | None]:
    found: dict[bytes, Value | None] = {}
    group: list[bytes] = []
    size = 0
    for key, length in lengths:
        if length > SMALL_BYTES:
            found[key] = _large(client, key)
            continue
        if group and size + length > TOGETHER_BYTES:
            found |= _fetched(client, group)
            group, size = [], 0
        group.append(key)
        size += length
    return found | (_fetched(client, group) if group else {})


def _fetched(client: redis.Redis, keys: Sequence[bytes]) -> dict[bytes, Value | None]:
    contents: Any = client.mget(keys)
    return {
        key: None if content is None else Value(version_of(content), len(content))
        for key, content in zip(keys, contents, strict=True)
    }


def _large(client: redis.Redis, key: bytes) -> Value | None:
    for _ in range(ATTEMPTS):
        digest, size = blake2b(digest_size=16), 0
        try:
            for chunk in _chunks(client, key):
                digest.update(chunk)
                size += len(chunk)
        except WatchError:
            continue
        return Value(digest.hexdigest(), size) if size else None
    return Value(None, 0)


def _others(client: redis.Redis, keys: Sequence[bytes]) -> dict[bytes, Value | None]:
    if not keys:
        return {}
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    kinds = {key: kind.decode() for key, kind in zip(keys, pipeline.execute(), strict=True)}
    found: dict[bytes, Value | None] = {
        key: None if kind == "none" else Value(f"type {kind}", 0) for key, kind in kinds.items()
    }
    for key in keys:
        if kinds[key] == "hash":
            fields = _fields(client, key)
            found[key] = _of_hash(fields) if fields is not None else Value("type hash", 0)
    return found


def _of_hash(fields: dict[bytes, bytes]) -> Value | None:
    content = _document(fields) if fields else b""
    return Value(version_of(content), len(content)) if fields else None


def _fields(client: redis.Redis, key: bytes) -> dict[bytes, bytes] | None:
    """The fields of a hash, none if it is no more; None if there are too many of them."""
    count: Any = client.hlen(key)
    if count > FIELDS_LIMIT:
        return None
    fields: Any = client.hgetall(key)
    return dict(fields)


def _document(fields: dict[bytes, bytes]) -> bytes:
    """A hash as the document of one task; bytes that are no text stay as they are, for `_checked` to find."""
    try:
        data = {name.decode(): value.decode() for name, value in sorted(fields.items())}
    except UnicodeDecodeError:
        return b"\x00".join(part for pair in sorted(fields.items()) for part in pair)
    return b'{"data":' + orjson.dumps(data) + b"}"


def _chunks(client: redis.Redis, key: bytes) -> Iterator[bytes]:
    """A string in pieces that are all of one moment; raises WatchError at the end if it changed meanwhile."""
    with client.pipeline() as watching:
        watching.watch(key)  # type: ignore[no-untyped-call]  # redis has no type here
        at = 0
        while True:
            chunk: Any = watching.getrange(key, at, at + CHUNK_BYTES - 1)
            yield chunk
            at += len(chunk)
            if len(chunk) < CHUNK_BYTES:
                break
        watching.multi()
        watching.ping()
        watching.execute()


@contextmanager
def opened(client: redis.Redis, raw: bytes, key: str, *, json: bool) -> Iterator[ValueReading]:
    """What the server has under a key, opened. `json` says that hashes can be read, too.

    Raises:
        ObjectGone, ObjectSkipped, ObjectFailed and ObjectUnsettled, and what the client raises.
    """
    try:
        content: Any = client.getrange(raw, 0, SMALL_BYTES)
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        content = _other(client, raw, json=json)
    if not content and not client.exists(raw):
        raise ObjectGone("there is no such key")
    if len(content) <= SMALL_BYTES:
        yield ValueReading(Entry(key, version_of(content), len(content), 0.0), content)
        return
    with tempfile.NamedTemporaryFile(prefix="labelfeed-") as file:
        digest, size = blake2b(digest_size=16), 0
        try:
            for chunk in _chunks(client, raw):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        except WatchError:
            raise ObjectUnsettled("the value changed while it was read") from None
        file.flush()
        reading = ValueReading(Entry(key, digest.hexdigest(), size, 0.0), None, Path(file.name))
        try:
            yield reading
        finally:
            for stream in reading.streams:
                stream.close()


def _other(client: redis.Redis, raw: bytes, *, json: bool) -> bytes:
    """The document of a hash. Raises what there is to say of any other type."""
    kind: Any = client.type(raw)
    if kind == b"none":
        raise ObjectGone("there is no such key")
    if kind != b"hash":
        name = kind.decode()
        hint = f"a {name} is a source of its own: redis+{name}://" if name in ("list", "stream") else "`exclude:` it"
        raise ObjectSkipped("unsupported_format", f"the value is a {name}; strings and hashes are read", hint=hint)
    if not json:
        raise ObjectSkipped("unsupported_format", "the value is a hash, which is no such file", hint="`exclude:` it")
    fields = _fields(client, raw)
    if fields is None:
        raise ObjectFailed("too_large", f"the hash has more than {FIELDS_LIMIT:,} fields")
    if not fields:
        raise ObjectGone("there is no such key")
    return _checked(_document(fields))


def _checked(document: bytes) -> bytes:
    if not document.startswith(b'{"data":'):
        raise ObjectFailed("encoding", "a field of the hash, or its name, is not UTF-8")
    return document
