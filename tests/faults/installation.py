"""An installation on real servers, worked by roles in processes of their own, which can be killed and suspended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import yaml
from obstore.store import S3Store
from prometheus_client.parser import text_string_to_metric_families

from deploy.services import Service
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY
from pipeline import cli
from pipeline.app import App
from pipeline.config import load
from pipeline.errors import LabelfeedError
from tests.servers import s3_client

SECONDS = 60.0
"""How long anything may take before a test says that it never came true."""
HANDOVER_SECONDS = 15.0
POLL_SECONDS, POLL_MOST_SECONDS, POLL_SHARE = 0.05, 0.5, 0.02
PUT_THREADS = 16
COMMAND = (sys.executable, "-c", "from pipeline.cli import main; main()")


def until(condition: Callable[[], Any], seconds: float = SECONDS, what: str | Callable[[], Any] = "it") -> Any:
    """Wait for a condition; gives what it gave."""
    begun = time.monotonic()
    pause = Event()
    while not (found := condition()):
        waited = time.monotonic() - begun
        if waited > seconds:
            raise AssertionError(f"{what if isinstance(what, str) else what()} never came true")
        # Asking takes time from those who are waited for, so that a long wait asks less often.
        pause.wait(min(max(POLL_SECONDS, waited * POLL_SHARE), POLL_MOST_SECONDS))
    return found


class Place(Protocol):
    """Where the files are."""

    url: str

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""

    def delete(self, key: str) -> None:
        """Delete an object."""


@dataclass
class Folder:
    """A folder as a place."""

    root: Path

    @property
    def url(self) -> str:
        """As the configuration names it."""
        return str(self.root)

    def put(self, key: str, content: bytes) -> None:
        """As `Place.put`; renamed into place."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}")
        fresh.write_bytes(content)
        fresh.replace(path)

    def delete(self, key: str) -> None:
        """As `Place.delete`."""
        (self.root / key).unlink()


@dataclass
class Bucket:
    """A bucket as a place."""

    server: Service
    name: str

    def __post_init__(self) -> None:
        s3_client(self.server).create_bucket(Bucket=self.name)
        self._store = S3Store(
            self.name, endpoint=self.server.url, region=REGION, virtual_hosted_style_request=False,
            access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, client_options={"allow_http": True},
        )  # fmt: skip

    @property
    def url(self) -> str:
        """As the configuration names it."""
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes) -> None:
        """As `Place.put`."""
        self._store.put(key, content, use_multipart=False)

    def delete(self, key: str) -> None:
        """As `Place.delete`."""
        self._store.delete(key)


class Role:
    """One process of one role."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stderr=stream, stdout=stream, env={**os.environ, **env}, cwd=log.parent
            )

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far, of one event or all."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict) and event in (None, line.get("event"))]

    def said(self, event: str) -> bool:
        """Whether it has logged an event; fails if it has ended."""
        if self.lines(event):
            return True
        assert self.alive, f"{self.name} ended: {self.log.read_text(errors='replace')[-3000:]}"
        return False

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def killed(self) -> None:
        """Wait until it has been killed by its fault point."""
        until(lambda: not self.alive, what=lambda: f"the fault of {self.name}: {self.log.read_text()[-2000:]}")
        assert self.process.returncode == -signal.SIGKILL, self.log.read_text()

    def stopped(self) -> None:
        """Wait until it has been suspended by its fault point."""
        state = Path(f"/proc/{self.process.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", what=f"the stop of {self.name}")

    @property
    def port(self) -> int:
        """Where its HTTP server listens."""
        until(lambda: self.said("listening"), what="a port")
        return int(self.lines("listening")[0]["port"])

    def ready(self) -> tuple[int, dict[str, str | None]]:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, 0 where it has none; values of labels that are not given are added up."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == f"labelfeed_{name}"]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@dataclass
class Installation:
    """One configuration, its place, and the processes that work it.

    `wanted` are files of one task, and its text; `rows` are key and text of the tasks of others.
    """

    folder: Path
    place: Place
    database: str
    events: str
    queue: str
    env: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    roles: list[Role] = field(default_factory=list)
    wanted: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.write()

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.folder / "labelfeed.yaml"

    def write(self) -> None:
        """Write the configuration."""
        limits = {"lease": "3s", "batch_objects": 20, "workers": 2, "backoff": "100ms"} | self.limits
        source = {"name": "bucket", "project": "p", "url": self.place.url, "poll": "1s", "settle": "0s"} | self.source
        document = {
            "database": self.database,
            "events": self.events,
            "queue": self.queue,
            "projects": {"p": {"label_config": '<View><Text name="t" value="$text"/></View>'}},
            "sources": [source],
            "limits": limits,
            "shutdown_timeout": "10s",
        }
        self.config.write_text(yaml.safe_dump(document))

    def start(
        self, *names: str, fault: str = "", env: Mapping[str, str] | None = None, config: Path | None = None
    ) -> Role:
        """Start a role; give the last one where several are named."""
        for name in names:
            arguments = [
                name,
                "--config",
                str(config or self.config),
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ]
            log = self.folder / f"{len(self.roles)}-{name}.log"
            extra = {"LABELFEED_FAULT": fault, **self.env, **(env or {})}
            self.roles.append(Role(name, arguments, extra, log))
        return self.roles[-1]

    def put(self, count: int = 0, /, **named: str) -> list[str]:
        """Put so many new files into the place, or files with these names; each holds one task of its own."""
        texts = {f"o/{next(self._numbers):05}.json": "" for _ in range(count)}
        texts = {key: f"text of {key}" for key in texts} | {f"{name}.json": text for name, text in named.items()}
        with ThreadPoolExecutor(PUT_THREADS) as pool:
            list(pool.map(lambda item: self.place.put(item[0], _content(item[1])), texts.items()))
        self.wanted |= texts
        return list(texts)

    def overwrite(self, key: str, text: str) -> None:
        """Put another content under a key."""
        self.place.put(key, _content(text))
        self.wanted[key] = text

    def delete(self, key: str) -> None:
        """Delete an object that is not to become a task."""
        self.place.delete(key)
        del self.wanted[key]

    def counts(self) -> dict[str, int]:
        """Objects by state, as the ledger says; none while it does not answer."""
        try:
            with App.open(load(self.config), readonly=True) as app:
                rows = app.ledger.reports().sources()
        except LabelfeedError:
            return {}
        return {name: count for row in rows for name, count in row.items() if isinstance(count, int) and count}

    def tasks(self) -> list[tuple[str, str]]:
        """Key and text of every live task."""
        found: list[tuple[str, str]] = []
        with App.open(load(self.config), readonly=True) as app:
            after = 0
            while page := app.ledger.reports().tasks(None, after, 10_000):
                found += [(row["key"], json.loads(row["data"])["text"]) for row in page]
                after = page[-1]["id"]
        return found

    def explain(self) -> str:
        """What is where, and the ends of all logs: for a failed assertion."""
        parts = [str(self.counts())]
        parts += [f"--- {role.log.name}\n{role.log.read_text(errors='replace')[-3000:]}" for role in self.roles]
        return "\n".join(parts)

    def imported(self, count: int | None = None, seconds: float = SECONDS, **others: int) -> None:
        """Wait until all that was put (or `count`) is imported, and nothing waits; `others` are counts of others."""
        wanted = len(self.wanted) if count is None else count

        def there() -> bool:
            counts = self.counts()
            waiting = sum(counts.get(state, 0) for state in ("ready", "claimed", "running"))
            ended = all(counts.get(state, 0) >= number for state, number in others.items())
            return counts.get("done", 0) >= wanted and not waiting and ended

        until(there, seconds, what=lambda: f"{wanted} imported objects: {self.explain()}")

    def exactly_once(self) -> None:
        """Every object of the place is imported exactly once, and `labelfeed verify` agrees."""
        found = Counter(self.tasks())
        wanted = Counter(self.wanted.items()) + Counter(self.rows)
        assert found == wanted, (found - wanted, wanted - found, self.explain())
        assert cli.run(["verify", "--config", str(self.config)]) == 0, self.explain()

    def close(self) -> None:
        """Kill what still runs."""
        for role in self.roles:
            if role.alive:
                role.kill()


def _content(text: str) -> bytes:
    return json.dumps({"text": text}).encode()
