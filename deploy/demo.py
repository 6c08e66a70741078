"""`python -m deploy.demo`: the distributed setting at work, on real servers of its own that it starts and stops.

A bucket, Kafka, Redis and PostgreSQL; `watch`, `dispatch` and two `work` as processes; more files while they run;
then the table of what came of it, and `labelfeed verify`. Run again on servers
that still run, it imports nothing twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
import yaml
from botocore.config import Config as BotoConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy import services
from deploy.services import Service
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY
from pipeline import cli
from pipeline.app import App
from pipeline.cli import output
from pipeline.cli.running import COLUMNS
from pipeline.config import Config, load
from pipeline.ledger import Filter

NAME = "labelfeed-demo"
FOLDER = Path(".demo") / "distributed"
SERVERS = ("kafka", "redis", "postgres", "seaweedfs")
ROLES = ("watch", "dispatch", "work", "work")
FIRST, MORE = 300, 120
"""Files that are there at the start, and files that land while the roles run."""
PUT_THREADS = 8
OF_THE_SHELL = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""What may say of another account, or another server, how it is reached."""
LOOK_SECONDS = 0.1
LONGEST_SECONDS = 180.0
STOP_SECONDS = 30.0
STATES = ("ready", "claimed", "running", "done", "failed", "skipped")
QUIET = ("unchanged", "rejected", "waiting", "skipped")
"""Columns that are shown only where they say something."""

LABEL_CONFIG = """\
<View>
  <Text name="report" value="$text"/>
  <Choices name="kind" toName="report"><Choice value="sighting"/><Choice value="complaint"/></Choices>
</View>
"""
PLACES = ("the porch", "the shed", "the compost", "a tree", "the bin", "the roof")


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo works with: its servers, its configuration, and the bucket's client."""

    servers: Mapping[str, Service]
    path: Path
    config: Config
    bucket: Any

    def put(self, first: int, count: int) -> None:
        """Put files into the bucket; the same number always gives the same file."""
        with ThreadPoolExecutor(PUT_THREADS) as pool:
            list(pool.map(self._put, range(first, first + count)))

    def add(self) -> float:
        """Put more files; gives the time when the last one was there."""
        self.put(FIRST, MORE)
        return time.time()

    def _put(self, number: int) -> None:
        name, body = file(number)
        self.bucket.put_object(Bucket=NAME, Key=name, Body=body)

    def source(self) -> dict[str, Any]:
        """What the ledger says of the bucket; nothing before it was set up."""
        with App.open(self.config, readonly=True) as app:
            rows = app.ledger.reports().sources()
        return next(iter(rows), dict.fromkeys((*STATES, "tasks", "rejected", "finished", "last_pass"), 0))

    def failures(self) -> Sequence[Mapping[str, Any]]:
        """The objects that failed."""
        with App.open(self.config, readonly=True) as app:
            return app.ledger.reports().objects(Filter(state="failed"), 0, 20)


def file(number: int) -> tuple[str, bytes]:
    """The name and content of one file of the demo: most are JSON, some CSV, and one is broken."""
    text = f"Opossum number {number} was seen at {PLACES[number % len(PLACES)]}."
    if number == FIRST // 2:
        return "reports/broken.json", b'{"text": "cut off in the mid'
    if number % 20:
        return f"reports/{number:04}.json", json.dumps({"text": text}).encode()
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["text", "place"])
    rows.writerows([f"{text} ({row})", PLACES[row % len(PLACES)]] for row in range(10))
    return f"tables/{number:04}.csv", table.getvalue().encode()


def main() -> int:
    """Run the demo; gives the exit code."""
    console = Console(stderr=True, highlight=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in OF_THE_SHELL:
        os.environ.pop(name, None)
    os.environ.update(
        AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY, AWS_REGION=REGION, AWS_DEFAULT_REGION=REGION
    )
    with ExitStack() as stack:
        with console.status("starting Kafka, Redis, PostgreSQL and an S3 server"):
            servers = dict(zip(SERVERS, _started(stack), strict=True))
        demo = _prepared(servers)
        before = demo.source()
        with console.status(f"putting {FIRST} files into s3://{NAME}"):
            demo.put(0, FIRST)
        began = time.monotonic()
        with _roles(demo, console) as codes:
            complete = _watch(demo, console)
        _tell(demo, before, time.monotonic() - began)
        console.print("[bold]labelfeed verify[/bold]")
        verified = cli.run(["verify", "--config", str(demo.path)])
        return verified or int(not complete or any(codes))


def _started(stack: ExitStack) -> list[Service]:
    with ThreadPoolExecutor(len(SERVERS)) as pool:
        return list(pool.map(lambda name: stack.enter_context(services.using(name)), SERVERS))


def _prepared(servers: Mapping[str, Service]) -> Demo:
    """The configuration, the bucket and the database."""
    address = servers["postgres"].url.rpartition("/")[0]
    database = NAME.replace("-", "_")
    with psycopg.connect(servers["postgres"].url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
            connection.execute(f"CREATE DATABASE {database}".encode())
    source = {"name": "reports", "project": "opossums", "url": f"s3://{NAME}", "poll": "1s"}
    document = {
        "database": f"{address}/{database}",
        "events": f"{servers['kafka'].url}/{NAME}",
        "queue": f"{servers['redis'].url}?namespace={NAME}",
        "projects": {"opossums": {"label_config": LABEL_CONFIG}},
        "sources": [source | {"endpoint": servers["seaweedfs"].url}],
    }
    path = FOLDER / "labelfeed.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    style = BotoConfig(signature_version="s3v4", s3={"addressing_style": "path"})
    bucket = boto3.client("s3", endpoint_url=servers["seaweedfs"].url, config=style)
    with suppress(bucket.exceptions.BucketAlreadyOwnedByYou):
        bucket.create_bucket(Bucket=NAME)
    return Demo(servers, path, load(path), bucket)


@contextmanager
def _roles(demo: Demo, console: Console) -> Iterator[list[int]]:
    """The roles as processes of their own, for as long as the block runs; their logs are in the demo's folder. Gives
    their exit codes, once they have ended."""
    running = []
    codes: list[int] = []
    for number, role in enumerate(ROLES):
        log = FOLDER / f"{number}-{role}.log"
        command = ["-c", "from pipeline.cli import main; main()", role, "--config", str(demo.path)]
        with log.open("wb") as stream:
            process = subprocess.Popen([sys.executable, *command, "--listen", "127.0.0.1:0"], stderr=stream)
        running.append(process)
        console.print(f"labelfeed {role:<8} pid {process.pid:<7} log {log}")
    try:
        yield codes
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        codes += [_ended(process) for process in running]
        console.print(f"all roles were asked to stop; exit codes {', '.join(map(str, codes))}")


def _ended(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _watch(demo: Demo, console: Console) -> bool:
    """Show progress until all files have ended; put more of them half way. Whether all ended in time."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[tasks]:,} tasks"), TimeElapsedColumn(),
    )  # fmt: skip
    deadline = time.monotonic() + LONGEST_SECONDS
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars, ThreadPoolExecutor(1) as pool:
        bar = bars.add_task("imported", total=FIRST, tasks=0)
        adding = None
        while time.monotonic() < deadline:
            row = demo.source()
            ended = row["done"] + row["failed"] + row["skipped"]
            if adding is None and ended >= FIRST // 2:
                bars.console.print(f"{MORE} more files land in the bucket")
                adding = pool.submit(demo.add)
                bars.update(bar, total=FIRST + MORE)
            bars.update(bar, completed=ended, tasks=row["tasks"])
            if adding is not None and adding.done() and ended >= FIRST + MORE and _listed(row) > adding.result():
                return True
            time.sleep(LOOK_SECONDS)
    console.print("[bold red]not everything was imported in time; the logs say why[/bold red]")
    return False


def _listed(row: Mapping[str, Any]) -> float:
    """When the last complete pass began."""
    return row["last_pass"]["started"] if row["last_pass"] else 0.0


def _tell(demo: Demo, before: Mapping[str, Any], seconds: float) -> None:
    after = demo.source()
    found = sum(after[state] for state in STATES)
    failed, skipped = after["failed"], after["skipped"]
    ended = after["finished"] - before["finished"]
    imported = max(0, ended - (failed + skipped - before["failed"] - before["skipped"]))
    row = {
        "source": "reports",
        "found": found,
        "imported": imported,
        "unchanged": before["done"],
        "tasks": after["tasks"] - before["tasks"],
        "rejected": after["rejected"],
        "failed": failed,
        "skipped": skipped,
        "waiting": sum(after[state] for state in ("ready", "claimed", "running")),
        "seconds": seconds,
    }
    output.table([row], {name: text for name, text in COLUMNS.items() if row[name] or name not in QUIET})
    failures = demo.failures()
    if failures:
        output.write("")
        shown = [{"object": f"reports:{one['key']}", "why": output.why(one.get("reason"))} for one in failures]
        output.table(shown, {"object": "failed", "why": "why"}, wide=["why", "object"])
    if before["done"]:
        output.note(f"{before['done']} of {found} files were imported before, and were not imported again.")


if __name__ == "__main__":
    sys.exit(main())
