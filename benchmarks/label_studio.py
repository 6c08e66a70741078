"""Tasks in the outbox → a real Label Studio, against POSTing the same tasks as prepared batches of the same size.

`LABELFEED_BENCH_TASKS` is how many, 100,000 otherwise; `LABELFEED_BENCH_BATCH` how many in one import, 10,000.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path

import httpx

from benchmarks.measuring import Figure, answer, in_process, scratch
from deploy import services
from pipeline.app import App
from pipeline.config import Config

TASKS = int(os.environ.get("LABELFEED_BENCH_TASKS", "100000"))
BATCH = int(os.environ.get("LABELFEED_BENCH_BATCH", "10000"))
ROUNDS = 5
META = b'{"labelfeed":{"batch":"0a1b2c3d-1","key":"1"}}'
"""What ours carry in their own meta."""
LABELS = '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="a"/></Choices></View>'


def measure() -> list[Figure]:
    """Tasks a second of both, in turn, and the median of the ratios."""
    pairs = []
    with services.using("label_studio") as service:
        for _ in range(ROUNDS):
            raw = in_process("benchmarks.label_studio", "raw", service.url, service.env["LABEL_STUDIO_TOKEN"])
            ours = in_process("benchmarks.label_studio", "ours", service.url, service.env["LABEL_STUDIO_TOKEN"])
            pairs.append((ours["rate"], raw["rate"]))
    ratio = statistics.median(ours / raw for ours, raw in pairs)
    return [
        Figure(
            "deliver_to_label_studio",
            "tasks/s",
            statistics.median(ours for ours, _ in pairs),
            statistics.median(raw for _, raw in pairs),
            ratio,
            "≥ 0.9 of prepared POSTs",
            ratio >= 0.9,
            pairs,
        )
    ]


def text(number: int) -> str:
    """A task's text, of a common length."""
    return f"{number:07} " + "the quick brown opossum jumps over the lazy dog " * 3


def raw(url: str, token: str) -> None:
    """Prepared batches, one after another."""
    project, client = begin(url, token)
    meta = json.loads(META)
    numbers = range(TASKS)
    bodies = [
        json.dumps([{"data": {"text": text(n)}, "meta": meta} for n in numbers[first : first + BATCH]]).encode()
        for first in range(0, TASKS, BATCH)
    ]
    begun = time.perf_counter()
    for body in bodies:
        post(client, project, body)
    answer(rate=TASKS / (time.perf_counter() - begun))
    end(project, client)


def post(client: httpx.Client, project: int, body: bytes) -> None:
    """Import a prepared batch."""
    path = f"/api/projects/{project}/import?return_task_ids=true"
    client.post(path, content=body, headers={"Content-Type": "application/json"}).raise_for_status()


def ours(url: str, token: str) -> None:
    """The same tasks from the outbox, from the opening of the installation to its end."""
    project, client = begin(url, token)
    with scratch() as place:
        folder = Path(place) / "inbox"
        folder.mkdir()
        lines = (json.dumps({"text": text(number)}) + "\n" for number in range(TASKS))
        (folder / "tasks.jsonl").write_text("".join(lines))
        config = _config(Path(place), url, token, project)
        with App.open(config) as app:
            (row,) = app.ledger.deliveries().report()
            app.ledger.deliveries().pause(row["id"])
            app.run_once(lambda _: None)
            app.ledger.deliveries().resume(row["id"])
        begun = time.perf_counter()
        with App.open(config) as app:
            app.run_once(lambda _: None)
        seconds = time.perf_counter() - begun
        with closing(sqlite3.connect(Path(place) / "bench.db")) as connection:
            ((delivered,),) = connection.execute("SELECT count(DISTINCT remote_id) FROM delivered")
    if delivered != TASKS:
        raise RuntimeError(f"{delivered} of {TASKS} tasks were delivered")
    answer(rate=TASKS / seconds)
    end(project, client)


def _config(place: Path, url: str, token: str, project: int) -> Config:
    throttle = {"imports_every": 0, "tasks_per_import": BATCH}
    deliveries = [{"label_studio": {"url": url, "project": project, "token": token}}]
    return Config.model_validate({
        "database": f"sqlite:///{place}/bench.db",
        "projects": {"bench": {"throttle": throttle, "deliveries": deliveries}},
        "sources": [{"name": "bench", "project": "bench", "url": str(place / "inbox"), "settle": 0}],
    })  # fmt: skip


def begin(url: str, token: str) -> tuple[int, httpx.Client]:
    """A new project, and a client."""
    client = httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600, trust_env=False)
    made = client.post("/api/projects/", json={"title": f"bench {uuid.uuid4().hex[:8]}", "label_config": LABELS})
    return int(made.raise_for_status().json()["id"]), client


def end(remote: int, client: httpx.Client) -> None:
    """Delete the project."""
    client.delete(f"/api/projects/{remote}/")
    client.close()


if __name__ == "__main__":
    {"raw": raw, "ours": ours}[sys.argv[1]](sys.argv[2], sys.argv[3])
