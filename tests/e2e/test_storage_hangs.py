"""S3 that takes connections and does not answer, or stops in the middle of an answer: runs that end, end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from deploy.services import HOST, Service
from pipeline.app import once
from pipeline.stores.s3 import access
from tests.e2e.house import House
from tests.servers import s3_client

pytestmark = [pytest.mark.usefixtures("aws"), pytest.mark.timeout(300)]

OBJECTS = 5
LARGE = 3 * 1024 * 1024
PIECE = 64 * 1024
LIMITS = {"storage_patience": "2s", "backoff": "50ms", "attempts": 3, "workers": 1, "batch_objects": 10}
"""Patience for tests; and so few attempts that an outage which used them up would show."""
ENDS_SECONDS = 150.0
"""A run must end within this, however slow the machine: its client gives up after a second, and it after two."""


@dataclass
class Stalling:
    """A TCP proxy before an S3 server. Of an answer to a request for which `after` gives a number, so many bytes are
    passed on, and then nothing more, with the connection open."""

    port: int
    after: Callable[[bytes], int | None] = lambda _head: None
    stalled: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def stalling(upstream: int) -> Iterator[Stalling]:
    """The proxy at work."""
    listener = socket.create_server((HOST, 0))
    made = Stalling(listener.getsockname()[1])
    end = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                taken, _ = listener.accept()
                threading.Thread(target=connection, args=(taken,), daemon=True).start()

    def connection(client: socket.socket) -> None:
        with client, socket.create_connection((HOST, upstream)) as server, suppress(OSError):
            while head := _request(client):
                left = made.after(head)
                if left is not None:
                    made.stalled.append(head)
                server.sendall(head)
                _pass_on(server, client, left, head)
                if left is not None:
                    end.wait()
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        end.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def _request(client: socket.socket) -> bytes:
    """A request without a body; empty at the connection's end."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(PIECE)
        if not piece:
            return b""
        head += piece
    return head


def _pass_on(server: socket.socket, client: socket.socket, left: int | None, request: bytes) -> None:
    """One whole answer, or as many of its bytes as are left."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += server.recv(PIECE)
    head, _, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    whole = len(head) + 4 + (0 if request.startswith(b"HEAD") or not lengths else int(lengths[0].split(b":")[1]))
    chunked = b"transfer-encoding: chunked" in head.lower()
    sent = 0
    while True:
        piece = answer if left is None else answer[: max(0, left - sent)]
        if piece:
            client.sendall(piece)
        sent += len(answer)
        if (left is not None and sent >= left) or (body.endswith(b"0\r\n\r\n") if chunked else sent >= whole):
            return
        answer = server.recv(PIECE)
        body = (body + answer)[-5:]


@dataclass
class Bucket:
    """A bucket behind the proxy."""

    name: str
    proxy: Stalling
    url: str
    expected: list[str]


@pytest.fixture
def bucket(seaweedfs: Service, unique: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Small objects and a large one; whoever asks for them gives up after a second, and asks again a little later."""
    monkeypatch.setattr(access, "REQUEST_SECONDS", 1)
    monkeypatch.setattr(once, "ONCE_BACK_OFF_SECONDS", 0.5)
    client = s3_client(seaweedfs)
    client.create_bucket(Bucket=unique)
    for number in range(OBJECTS):
        client.put_object(Bucket=unique, Key=f"o{number}.json", Body=json.dumps({"text": f"o{number}"}).encode())
    rows = [json.dumps({"text": f"row {number} {'x' * 1000}"}) for number in range(LARGE // 1000)]
    client.put_object(Bucket=unique, Key="large.jsonl", Body="\n".join(rows).encode())
    with stalling(seaweedfs.port) as proxy:
        url = f"s3://{unique}?endpoint={proxy.url}"
        expected = [f"o{number}" for number in range(OBJECTS)] + [json.loads(row)["text"] for row in rows]
        yield Bucket(unique, proxy, url, sorted(expected))


def texts(house: House) -> list[str]:
    """The texts of all tasks, sorted."""
    return sorted(json.loads(line)["data"]["text"] for line in house.look("tasks").out.splitlines())


def of_all(_head: bytes) -> int | None:
    """Nothing is answered at all."""
    return 0


def of_listings(head: bytes) -> int | None:
    """Of a listing comes the beginning."""
    return 400 if b"list-type=2" in head else None


def of_objects(head: bytes) -> int | None:
    """Objects are not answered."""
    return 0 if b".json HTTP" in head or b".jsonl HTTP" in head else None


def in_large_objects(head: bytes) -> int | None:
    """Of the large object comes the beginning."""
    return 1000 if b"large.jsonl" in head and head.startswith(b"GET") else None


def in_small_objects(head: bytes) -> int | None:
    """Of a small object comes all but its end."""
    return 100 if b"o3.json" in head and head.startswith(b"GET") else None


HANGS = {"all": of_all, "listings": of_listings, "objects": of_objects, "large": in_large_objects,
         "small": in_small_objects}  # fmt: skip
LISTED = {"objects", "large", "small"}
"""Where the bucket can be listed."""


@pytest.mark.parametrize("what", list(HANGS))
def test_a_run_ends(house: House, bucket: Bucket, what: str) -> None:
    """It exits 1, says what waits and why, fails nothing and imports the rest; the next one goes on."""
    near = {"name": "near", "project": "p", "url": "./inbox"}
    away = {"name": "away", "project": "p", "url": bucket.url}
    house.configure(sources=[away, near], limits=LIMITS)
    beside = sorted(data["text"] for (data,) in house.put_tasks(3).values())
    bucket.proxy.after = HANGS[what]

    began = time.monotonic()
    ended = house.look("run", "--once", "--json")
    took = time.monotonic() - began

    assert ended.code == 1, ended.err
    assert bucket.proxy.stalled
    assert took < ENDS_SECONDS, took
    rows = {row["source"]: row for row in ended.json()}
    assert (rows["near"]["imported"], rows["near"]["problem"], rows["near"]["unanswered"]) == (3, "", None)
    assert rows["away"]["failed"] == rows["away"]["skipped"] == 0
    if what in LISTED:
        waits = rows["away"]["unanswered"]
        assert (waits["code"], waits["objects"]) == ("unavailable", rows["away"]["waiting"])
        assert waits["message"].startswith(f"s3://{bucket.name}/")
    else:
        assert rows["away"]["problem"].startswith("unavailable: ")
        assert f"s3://{bucket.name}/" in rows["away"]["problem"]
    found = texts(house)
    assert set(beside) <= set(found)
    assert len(set(found)) == len(found)

    bucket.proxy.after = lambda _head: None
    ended = house.look("run", "--once", "--json")
    assert ended.code == 0, ended.out + ended.err
    assert texts(house) == sorted(beside + bucket.expected)
    assert house.look("verify").code == 0


@pytest.mark.parametrize("what", ["all", "objects"])
def test_an_import_by_hand_ends(house: House, bucket: Bucket, what: str) -> None:
    """So does `import`, by the limits of the configuration that it finds."""
    house.configure(limits=LIMITS)
    bucket.proxy.after = HANGS[what]
    began = time.monotonic()
    ended = house.look("import", bucket.url, "--project", "p")

    assert ended.code == 1, ended.err
    assert time.monotonic() - began < ENDS_SECONDS
    said = "have waited for its storage since" if what in LISTED else "could not be listed: unavailable: "
    assert said in " ".join(ended.err.split())
    assert f"s3://{bucket.name}/" in ended.err
    assert texts(house) == []

    bucket.proxy.after = lambda _head: None
    assert house.look("import", bucket.url, "--project", "p").code == 0
    assert texts(house) == bucket.expected
