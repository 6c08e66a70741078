"""The verb that shows an installation live: what flows, what waits, and for what."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli import output, waiting
from pipeline.cli.looking import projects_of
from pipeline.cli.options import ConfigPath, Database, Json, chosen
from pipeline.config import Config
from pipeline.errors import RetriableError
from pipeline.ledger import Reports

if TYPE_CHECKING:
    from pipeline.app import App

FIRST_SECONDS = 0.5
"""How long `--once` and the first frame watch to tell rates."""
COLUMNS = {
    "source": "left", "objects/s": "right", "tasks/s": "right", "backlog": "right", "oldest": "right",
    "failed": "right", "tasks": "right", "waits for": "left",
}  # fmt: skip

Frame = dict[str, Any]
"""One look: `at`, `threads` alive, `sources` (with rates), `projects`."""


def add(app: typer.Typer) -> None:
    """Register this family's verb."""
    app.command()(top)


def top(
    config: ConfigPath = None,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")] = 1.0,
    database: Database = None,
    json: Json = False,
) -> None:
    """Show live what flows through each source, what waits, since when and for what; until Ctrl-C.

    With --json one line for each look.
    """
    from pipeline.app import App

    loaded = chosen(config, database)
    with App.open(loaded, readonly=True) as app:
        looks = frames(app, loaded, FIRST_SECONDS if once else interval)
        if once:
            _print(next(looks), json=json)
        elif json:
            for frame in looks:
                _print(frame, json=True)
        else:
            with Live(console=output.out(), screen=True, auto_refresh=False) as live:
                for frame in looks:
                    live.update(shown(frame), refresh=True)


def frames(app: App, config: Config, interval: float) -> Iterator[Frame]:
    """One look after another, each with the rates since the one before. While the database does not answer, the
    last one comes again, with its `problem`."""
    reports = app.ledger.reports()
    before, since, frame = _counts(reports), time.monotonic(), None
    pause = min(interval, FIRST_SECONDS)
    while True:
        time.sleep(pause)
        pause = interval
        try:
            frame = _look(app, config)
            now = time.monotonic()
            _rate(frame, before, now - since)
            before, since = {row["name"]: (row["finished"], row["tasks"]) for row in frame["sources"]}, now
        except RetriableError as error:
            if frame is None:
                raise
            frame |= {"problem": f"{error.code}: {error}"}
        yield frame


def _counts(reports: Reports) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["finished"], row["tasks"]) for row in reports.sources()}


def _look(app: App, config: Config) -> Frame:
    reports = app.ledger.reports()
    now = app.ledger.now()
    sources = [row for row in reports.sources() if not row["retired"]]
    projects = projects_of(reports, config)
    for row in sources:
        oldest = row["oldest_ready"]
        row["oldest_waiting_seconds"] = None if oldest is None else max(0.0, now - oldest)
        row["backlog"] = row["ready"] + row["claimed"] + row["running"]
    waiting.add(sources, projects, reports.scheduling(), now)
    return {"at": now, "threads": reports.threads(), "sources": sources, "projects": projects, "problem": None}


def _rate(frame: Frame, before: Mapping[str, tuple[int, int]], seconds: float) -> None:
    for row in frame["sources"]:
        finished, tasks = before.get(row["name"], (0, 0))
        row["rate"] = (row["finished"] - finished) / seconds
        row["task_rate"] = (row["tasks"] - tasks) / seconds


def _print(frame: Frame, *, json: bool) -> None:
    if json:
        output.as_line(frame)
    else:
        output.out().print(shown(frame))


def shown(frame: Frame) -> Group:
    """A look as a person sees it."""
    rows = frame["sources"]
    head = (
        f"{output.clock(frame['at'])}   {sum(row['rate'] for row in rows):,.0f} objects/s"
        f"   {sum(row['task_rate'] for row in rows):,.0f} tasks/s"
        f"   {sum(row['backlog'] for row in rows):,} waiting   {frame['threads']} worker threads"
    )
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name, justify in COLUMNS.items():
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "waits for")
    for row in rows:
        table.add_row(*_cells(row))
    parts: list[Text | Table] = [Text(head), Text(""), table]
    waits = {row["name"]: row["waits"]["text"] for row in frame["projects"] if row["waits"]}
    parts += [Text(f"project {name}: {text}", style="yellow") for name, text in waits.items()]
    if frame["problem"]:
        parts.append(Text(frame["problem"], style="red"))
    return Group(*parts)


def _cells(row: Mapping[str, Any]) -> list[Text]:
    return [
        Text(row["name"]),
        Text(f"{row['rate']:,.0f}", style="green" if row["rate"] else "dim"),
        Text(f"{row['task_rate']:,.0f}", style="green" if row["task_rate"] else "dim"),
        Text(f"{row['backlog']:,}"),
        Text(output.span(row["oldest_waiting_seconds"])),
        Text(f"{row['failed']:,}", style="red" if row["failed"] else "dim"),
        Text(f"{row['tasks']:,}"),
        Text((row["waits"] or {}).get("text", ""), style="yellow"),
    ]
