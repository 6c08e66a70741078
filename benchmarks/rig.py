"""What a benchmark on real servers stands on: the servers, a filled bucket, the roles as processes, and what each
of them has spent of the processors' time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import orjson
import psutil
import psycopg
import yaml
from obstore.store import S3Store

from benchmarks.measuring import tell
from deploy.services import ensure
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY, Service

SECONDS = 1800.0
"""How long a round may take."""
TELL_SECONDS = 5.0
PUTS = 64
"""Objects that are written at once."""
ACCESS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
NAMES = ("kafka", "redis", "postgres")
START_SECONDS = 300.0
ENDED_SECONDS = 60.0


class Bench:
    """The servers, a bucket, and what it takes to run roles on them.

    `begin` and `spent` account for the processor time of roles and servers between them.
    """

    def __init__(self, folder: Path, s3: str = "seaweedfs") -> None:
        self.folder = folder
        self.servers: dict[str, Service] = {name: ensure(name, keep=True) for name in (*NAMES, s3)}
        self.s3 = self.servers[s3].url
        self._processes = {service.pid: name for name, service in self.servers.items()}
        self._before: dict[int, float] = {}
        self.env = os.environ | ACCESS | {"AWS_ENDPOINT_URL": self.s3}
        os.environ.update(ACCESS)

    def bucket(self, name: str) -> S3Store:
        """A store of obstore on a new bucket."""
        boto3.client("s3", endpoint_url=self.s3, region_name=REGION).create_bucket(Bucket=name)
        return opened(self.s3, name)

    @contextlib.contextmanager
    def slow(self, milliseconds: int) -> Iterator[None]:
        """Let every answer of the S3 server come so much later, for the roles that start meanwhile."""
        proxies = f"{ensure('toxiproxy', keep=True).url}/proxies"
        name = uuid.uuid4().hex
        made = _post(proxies, {"name": name, "listen": "127.0.0.1:0", "upstream": self.s3.removeprefix("http://")})
        toxic = {"type": "latency", "stream": "downstream", "attributes": {"latency": milliseconds}}
        _post(f"{proxies}/{name}/toxics", toxic)
        before = self.env
        self.env = before | {"AWS_ENDPOINT_URL": f"http://{made['listen']}"}
        try:
            yield
        finally:
            self.env = before
            urllib.request.urlopen(urllib.request.Request(f"{proxies}/{name}", method="DELETE")).close()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new database, dropped afterwards."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        url = self.servers["postgres"].url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.rpartition("/")[0] + "/" + name
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def config(self, database: str, url: str) -> Path:
        """A configuration file of one source."""
        path = self.folder / f"{uuid.uuid4().hex}.yaml"
        path.write_text(
            yaml.safe_dump({
                "database": database,
                "events": f"{self.servers['kafka'].url}/bench-{uuid.uuid4().hex[:8]}?partitions=4",
                "queue": self.servers["redis"].url,
                "projects": {"bench": {}},
                "sources": [{"name": "bench", "project": "bench", "url": url, "poll": "1h", "watch": False}],
            })
        )  # fmt: skip
        return path

    @contextlib.contextmanager
    def roles(self, config: Path, names: Sequence[str]) -> Iterator[None]:
        """Processes of these roles; an error within tells what they said last."""
        log = self.folder / "roles.log"
        with log.open("ab") as stream:
            running = [
                subprocess.Popen(
                    [sys.executable, "-m", "pipeline.cli", name, "--config", str(config), "--listen", "127.0.0.1:0"],
                    env=self.env, stderr=stream, stdout=stream,
                )
                for name in names
            ]  # fmt: skip
        pids = {process.pid: name for name, process in zip(names, running, strict=True)}
        self._processes |= pids
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the roles said:\n{log.read_text(errors='replace')[-4000:]}") from None
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(ENDED_SECONDS)
                del self._processes[process.pid]

    @contextlib.contextmanager
    def with_server(self, name: str, service: Service) -> Iterator[None]:
        """Account for one more server."""
        self._processes[service.pid] = name
        try:
            yield
        finally:
            del self._processes[service.pid]

    def begin(self) -> None:
        """Account from now on."""
        self._before = {pid: seconds_of(pid) for pid in self._processes}

    def spent(self) -> dict[str, float]:
        """The processor time in seconds that each kind of role and each server has spent since `begin`."""
        found: dict[str, float] = {}
        for pid, name in self._processes.items():
            found[name] = found.get(name, 0.0) + seconds_of(pid) - self._before.get(pid, 0.0)
        return found


def opened(endpoint: str, bucket: str) -> S3Store:
    """A store of obstore on a bucket that is there, with the keys of the environment."""
    return S3Store(
        bucket, endpoint=endpoint, region=REGION,
        virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip


def seconds_of(pid: int) -> float:
    """The processor time of a process and all that came of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))
    return 0.0


def fill(store: Any, count: int, key: Callable[[int], str], body: Callable[[str], bytes]) -> list[str]:
    """Write so many objects, many at once; gives their keys."""
    keys = [key(number) for number in range(count)]
    asyncio.run(_fill(store, keys, body))
    return keys


async def _fill(store: Any, keys: Sequence[str], body: Callable[[str], bytes]) -> None:
    waiting, told = iter(keys), time.monotonic()
    left = itertools.count(1)

    async def some() -> None:
        nonlocal told
        for key in waiting:
            await store.put_async(key, body(key))
            done = next(left)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                tell(f"{done:,} of {len(keys):,} objects are written")

    await asyncio.gather(*(some() for _ in range(PUTS)))
    tell(f"{len(keys):,} objects are written")


def _post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, orjson.dumps(document), method="POST")) as answered:
        found: dict[str, Any] = orjson.loads(answered.read())
    return found


def wait(database: str, done: int, first: Callable[[], None] = lambda: None) -> tuple[float, int]:
    """Seconds from the first event to the last commit, and tasks, once so many objects are done; `first` is called
    when the first one is recorded."""
    with psycopg.connect(database, autocommit=True) as connection:
        _some(connection)
        first()
        _all_done(connection, done)
        seconds = connection.execute(
            "SELECT extract(epoch FROM max(finished_at) - min(first_seen)) FROM objects"
        ).fetchone()
        tasks = connection.execute("SELECT sum(tasks) FROM objects").fetchone()
    assert seconds is not None
    assert tasks is not None
    return float(seconds[0]), int(tasks[0])


def _some(connection: psycopg.Connection[Any]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            if connection.execute("SELECT 1 FROM objects LIMIT 1").fetchone() is not None:
                return
        time.sleep(0.05)
    raise RuntimeError("no object was recorded")


def _all_done(connection: psycopg.Connection[Any], wanted: int) -> None:
    deadline = time.monotonic() + SECONDS
    told, found = time.monotonic(), 0
    while time.monotonic() < deadline:
        time.sleep(0.25)
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            row = connection.execute("SELECT coalesce(sum(n), 0) FROM source_counts WHERE state = 'done'").fetchone()
            found = int(row[0]) if row is not None else 0
            if found >= wanted:
                return
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            tell(f"{found:,} of {wanted:,} objects are imported")
    raise RuntimeError(f"{found:,} of {wanted:,} objects were imported in {SECONDS:.0f} s")


def ready(database: str, workers: int = 1) -> None:
    """Wait until so many workers live: then the processes have started."""
    deadline = time.monotonic() + START_SECONDS
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                row = connection.execute("SELECT count(*) FROM workers WHERE threads > 0").fetchone()
                if row is not None and row[0] >= workers:
                    return
            time.sleep(0.1)
    raise RuntimeError("no worker started")
