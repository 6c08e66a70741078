"""The verbs that work: run, and its roles alone: watch, dispatch, work."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipeline import logs
from pipeline.cli import output
from pipeline.cli.ending import DRAIN_SECONDS, at_the_latest
from pipeline.cli.options import ConfigPath, Json, Listen, LogFormat, LogLevel
from pipeline.config import DEFAULT_NAME, Config, load

if TYPE_CHECKING:
    from pipeline.app import App, Progress

ROLES = frozenset({"watch", "dispatch", "work"})
FAILURES_SHOWN = 20
ONCE_LEVEL = "warning"
"""What a run with progress bars logs: the bars and the closing table tell the rest."""

COLUMNS = {
    "source": "source", "found": "found", "imported": "imported", "unchanged": "unchanged", "tasks": "tasks",
    "rejected": "rejected rows", "failed": "failed", "skipped": "skipped", "waiting": "waiting", "seconds": "seconds",
}  # fmt: skip


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    for verb in (run, watch, dispatch, work):
        app.command()(verb)


def run(
    config: ConfigPath = None,
    once: Annotated[
        bool, typer.Option("--once", help="One pass of every source, everything imported, then end.")
    ] = False,
    listen: Listen = None,
    json: Json = False,
    log_format: LogFormat = "text",
    log_level: LogLevel | None = None,
) -> None:
    """Import what lands in the sources: until SIGTERM, or with --once what is there now.

    With --once it exits 1 if any object failed, or storage did not answer within `limits.storage_patience`.

    SIGTERM finishes what runs and exits 0; a second one exits at once.
    """
    from pipeline.app import App

    if not once:
        _serve(ROLES, config, listen, log_format, log_level)
        return
    logs.set_up(log_format, log_level or ONCE_LEVEL)
    with App.open(load(config)) as app:
        finish(app, json=json, again=again(config))


def watch(
    config: ConfigPath = None, listen: Listen = None, log_format: LogFormat = "text", log_level: LogLevel | None = None
) -> None:
    """List and watch the sources, and put what changes on the event log: until SIGTERM.

    Of several, one leads each source and the others stand by.
    """
    _serve(frozenset({"watch"}), config, listen, log_format, log_level)


def dispatch(
    config: ConfigPath = None, listen: Listen = None, log_format: LogFormat = "text", log_level: LogLevel | None = None
) -> None:
    """Record the log's events in the ledger, and put objects that are due on the work queue: until SIGTERM."""
    _serve(frozenset({"dispatch"}), config, listen, log_format, log_level)


def work(
    config: ConfigPath = None, listen: Listen = None, log_format: LogFormat = "text", log_level: LogLevel | None = None
) -> None:
    """Read objects, and commit their tasks: until SIGTERM, which finishes or gives back what runs."""
    _serve(frozenset({"work"}), config, listen, log_format, log_level)


def _serve(
    roles: frozenset[str], config: Path | None, listen: str | None, log_format: LogFormat, log_level: LogLevel | None
) -> None:
    from pipeline.app import serve

    logs.set_up(log_format, log_level or "info")
    loaded = listening_at(load(config), listen)
    stop = Event()
    with signals(stop), at_the_latest(stop, loaded.shutdown_timeout + DRAIN_SECONDS):
        serve(loaded, roles, stop)


def listening_at(config: Config, listen: str | None) -> Config:
    """The configuration with another `server.listen`, if one is asked for."""
    if listen is None:
        return config
    return config.model_copy(update={"server": config.server.model_copy(update={"listen": listen})})


def finish(app: App, *, json: bool, again: str) -> None:
    """Run once with progress bars, print the closing table and exit 1 if an object failed or a store did not answer.

    `again` is the option for the commands that are named to try next.
    """
    with _bars() as show:
        done = app.run_once(show)
    rows = [{name: getattr(item, name) for name in COLUMNS} for item in done]
    if json:
        _tell_problems(done)
        output.as_json(
            [
                row
                | {"failures": list(item.failures), "skips": list(item.skips), "paused": item.paused, "held": item.held}
                | {"unanswered": item.unanswered, "problem": item.problem}
                for row, item in zip(rows, done, strict=True)
            ]
        )
    else:
        _summary(done, rows, again)
    if any(item.failed or item.problem or item.unanswered for item in done):
        raise typer.Exit(1)


def _summary(done: Sequence[Progress], rows: list[dict[str, Any]], again: str) -> None:
    quiet = [name for name in ("unchanged", "rejected", "waiting") if not any(row[name] for row in rows)]
    output.table(rows, {name: heading for name, heading in COLUMNS.items() if name not in quiet})
    failures: list[dict[str, Any]] = [failure | {"source": item.source} for item in done for failure in item.failures]
    if failures:
        shown = [
            {"object": f"{row['source']}:{row['key']}", "why": output.why(row.get("reason"))}
            for row in failures[:FAILURES_SHOWN]
        ]
        output.write("")
        output.table(shown, {"object": "failed", "why": "why"}, wide=["why", "object"])
    _print_skips(done)
    failed = sum(item.failed for item in done)
    if failed > len(failures[:FAILURES_SHOWN]):
        output.note(f"... {failed} failed in all: labelfeed objects --state failed{again}")
    _tell_problems(done)
    for item in done:
        if item.paused:
            output.note(output.paused(item.source, item.paused))
        elif item.held:
            output.note(f"{item.waiting:,} objects of {item.source} wait; {item.held}")
        if item.unanswered:
            output.note(f"{output.unanswered(item.source, item.unanswered)}; the next run goes on with them")
    unchanged = sum(item.unchanged for item in done)
    if unchanged:
        new = sum(item.imported for item in done)
        output.note(
            f"{unchanged} of {sum(item.found for item in done)} files were imported before, and were not imported again"
            + ("." if new else ": nothing is new.")
        )
    _next(failures, again)


def _tell_problems(done: Sequence[Progress]) -> None:
    for item in done:
        if item.problem:
            output.note(f"error: {item.source} could not be listed: {item.problem}")


def _print_skips(done: Sequence[Progress]) -> None:
    skips: list[dict[str, Any]] = [skip | {"source": item.source} for item in done for skip in item.skips]
    shown = [
        {
            "object": f"{row['source']}:{row['key']}"
            + (f" and {row['objects'] - 1:,} more" if row["objects"] > 1 else ""),
            "why": output.why(row.get("reason")),
        }
        for row in skips[:FAILURES_SHOWN]
    ]
    if shown:
        output.write("")
        output.table(shown, {"object": "skipped", "why": "why"}, wide=["why", "object"])


def _next(failures: Sequence[dict[str, Any]], again: str) -> None:
    command = program()
    tries = [
        (f"{command} status{again}", "what is where"),
        (f"{command} tasks{again} | head -3", "the tasks, as JSON Lines"),
        (f"{command} objects{again}", "every file, and what became of it"),
    ]
    if failures:
        first = f"{failures[0]['source']}:{failures[0]['key']}"
        tries[2] = (f"{command} explain{again} {_quoted(first)}", "why this one failed")
    width = max(len(line) for line, _ in tries)
    output.note("Try next:")
    for line, about in tries:
        output.note(f"  {line:<{width}}  # {about}")


def program() -> str:
    """How this program was called, so that a person can call it again."""
    found = shutil.which("labelfeed")
    called = sys.argv[0]
    if Path(called).name != "labelfeed" or (found and Path(found).absolute() == Path(called).absolute()):
        return "labelfeed"
    return os.path.relpath(called) if Path(called).is_relative_to(Path.cwd()) else called


def again(config: Path | None) -> str:
    """The option that names the configuration, for the commands to try next."""
    return "" if config is None or config == Path(DEFAULT_NAME) else f" --config {_quoted(str(config))}"


def _quoted(text: str) -> str:
    from shlex import quote

    return quote(text)


@contextmanager
def _bars() -> Iterator[Any]:
    console = output.err()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[tasks]:,} tasks"), TimeElapsedColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        ids: dict[str, Any] = {}

        def show(progress: Sequence[Progress]) -> None:
            for item in progress:
                if item.source not in ids:
                    ids[item.source] = bars.add_task(item.source, total=None, tasks=0)
                ended = item.imported + item.unchanged + item.failed + item.skipped
                bars.update(ids[item.source], total=max(item.found, ended) or None, completed=ended, tasks=item.tasks)

        yield show


@contextmanager
def signals(stop: Event) -> Iterator[None]:
    """Set `stop` at SIGTERM and SIGINT while the block runs; a second one ends the process at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)
        # From a thread of its own: the interrupted code may hold the event's lock right now.
        Thread(target=stop.set, name="stop").start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
