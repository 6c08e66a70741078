"""A bucket that is not there: an HTTP server that speaks as much of S3 as listing and reading need.

Its keys are counted, not kept, so that a million of them take no memory; and it fails where a test says so, as
the real service does and no server for tests can be made to.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "simulated"


class Asked(NamedTuple):
    """One request: `list`, `get`, `head` or `versioning`; the key, or for a list where it begins; how many of this
    operation came before."""

    operation: str
    key: str
    before: int


class Failure(NamedTuple):
    """What S3 answers instead."""

    status: int
    code: str


Fails = Callable[[Asked], Failure | None]


class Bucket:
    """`count` objects named by their numbers, each with the same content. `fails`, `modified` and `most`, the
    keys of one page, may be changed at any time."""

    def __init__(self, count: int, content: bytes = b'[{"text": "a"}]', pattern: str = "{:08}.json") -> None:
        self.count = count
        self.content = content
        self.fails: Fails = lambda _: None
        self.url = ""
        self.most = 1000
        self.modified = datetime(2024, 1, 1, tzinfo=UTC)
        self.asked: Counter[str] = Counter()
        self._pattern = pattern
        self._lock = threading.Lock()

    def key(self, number: int) -> str:
        """The key of an object."""
        return self._pattern.format(number)

    def etag(self, key: str) -> str:
        """The ETag of an object."""
        return hashlib.md5(key.encode() + self.content, usedforsecurity=False).hexdigest()

    def ask(self, operation: str, key: str) -> Failure | None:
        """Count a request, and say whether it fails."""
        with self._lock:
            before = self.asked[operation]
            self.asked[operation] += 1
        return self.fails(Asked(operation, key, before))

    def page(self, after: str, limit: int) -> str:
        """A page of the listing, as XML."""
        first = bisect_right(range(self.count), after, key=self.key) if after else 0
        end = min(first + min(limit, self.most), self.count)
        modified = f"{self.modified:%Y-%m-%dT%H:%M:%S}.000Z"
        rows = "".join([
            f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}</LastModified><ETag>&quot;{self.etag(key)}&quot;"
            f"</ETag><Size>{len(self.content)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in map(self.key, range(first, end))
        ])  # fmt: skip
        cut = end < self.count
        token = f"<NextContinuationToken>{escape(self.key(end - 1))}</NextContinuationToken>" if cut else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix></Prefix><KeyCount>{end - first}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{str(cut).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "SimulatedS3"
    bucket: ClassVar[Bucket]

    def do_GET(self) -> None:
        path, query = self._asked()
        key = path.partition("/")[2]
        if "versioning" in query:
            self._answer("versioning", "", lambda: b"<VersioningConfiguration/>")
        elif key:
            self._answer("get", key, lambda: self.bucket.content)
        else:
            after = query.get("continuation-token", query.get("start-after", [""]))[0]
            limit = int(query.get("max-keys", ["1000"])[0])
            self._answer("list", after, lambda: self.bucket.page(after, limit).encode())

    def do_HEAD(self) -> None:
        path, _ = self._asked()
        self._answer("head", path.partition("/")[2], lambda: self.bucket.content)

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path.lstrip("/")), parse_qs(parts.query, keep_blank_values=True)

    def _answer(self, operation: str, key: str, content: Callable[[], bytes]) -> None:
        failure = self.bucket.ask(operation, key)
        if failure is not None:
            body = f"<Error><Code>{failure.code}</Code><Message>simulated</Message></Error>".encode()
            self._send(failure.status, body, {"Content-Type": "application/xml"})
            return
        about = {} if operation in ("list", "versioning") else {
            "ETag": f'"{self.bucket.etag(key)}"', "Last-Modified": format_datetime(self.bucket.modified, usegmt=True),
        }  # fmt: skip
        self._send(200, content(), about)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing is logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's fault."""


@contextmanager
def served(bucket: Bucket) -> Iterator[Bucket]:
    """The bucket behind a port of this machine for as long as the block runs."""
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def credentials() -> dict[str, str]:
    """What a client needs in its environment; nobody checks it."""
    return {
        "AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        pause.wait(0.02)
