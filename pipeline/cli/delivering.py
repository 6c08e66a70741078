"""The verbs of deliveries: how far they are, what was refused, pause, resume, retry."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import output
from pipeline.cli.options import ConfigPath, Database, Json, chosen
from pipeline.cli.waiting import FRESH_SECONDS, UNSCHEDULED
from pipeline.config import load
from pipeline.errors import UsageError
from pipeline.ledger.waits import WAITING, delivery_waits

if TYPE_CHECKING:
    from pipeline.app import App

REFUSED_SHOWN = 20
REFUSED_PAGE = 1000
TURN_SECONDS = 1.0
"""What may be begun, and is not after so long, is granted by nobody: turns are a quarter of that apart."""

Name = Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery, as PROJECT/NAME.")]


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    family = typer.Typer(help="Show where tasks go on to, and how far they are; pause, resume and retry.")
    family.callback(invoke_without_command=True)(deliveries)
    for verb in (pause, resume, retry):
        family.command()(verb)
    app.add_typer(family, name="deliveries")


def deliveries(
    context: typer.Context, config: ConfigPath = None, database: Database = None, json: Json = False
) -> None:
    """Show where tasks go on to, how far they are, and what was refused; exit 1 if a delivery fails."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.app import App

    loaded = chosen(config, database)
    with App.open(loaded, readonly=True) as app:
        rows = told_of(app)
        refused = [row | {"delivery": one["name"]} for one in rows for row in _refused(app, one["id"], REFUSED_SHOWN)]
    if json:
        output.as_json({"deliveries": rows, "refused": refused})
    else:
        show(rows)
        if refused:
            shown = [row | {"task": f"{row['source']}:{row['key']} row {row['row']}"} for row in refused]
            columns = {"task": "set aside", "delivery": "delivery", "reason": "why"}
            output.table(shown, columns, wide=["task", "reason"])
    if any(row["failing"] for row in rows):
        raise typer.Exit(1)


def told_of(app: App) -> list[dict[str, Any]]:
    """The deliveries of the configuration, each with what it `waits` for."""
    rows = _looked(app)
    # Of a project that the configuration does not name nobody knows how long it waits between two imports.
    due = {row["name"] for row in rows if row["waits"] == WAITING and row["project"] in app.config.projects}
    if due and app.ledger.now() - app.ledger.reports().scheduling()["at"] >= FRESH_SECONDS:
        time.sleep(TURN_SECONDS)
        rows = _looked(app)
        for row in rows:
            if row["name"] in due and row["waits"] == WAITING:
                row["waits"] = UNSCHEDULED["text"]
    return rows


def _looked(app: App) -> list[dict[str, Any]]:
    rows, workers = app.ledger.deliveries().report(), app.ledger.reports().threads() > 0
    every = {name: project.throttle.imports_every for name, project in app.config.projects.items()}
    waits = delivery_waits(rows, app.ledger.now(), every, workers=workers)
    for row in rows:
        project = app.config.projects.get(row["project"])
        if project is None or not project.throttle.open_tasks:
            row["open_there"] = row["uncounted"] = None  # from a time when they were counted
        untold = f"cannot count open tasks: {row['uncounted']}" if row["uncounted"] else ""
        row["waits"] = waits[row["name"]].text or untold
        del row["label_config"]
    return [row for row in rows if not row["retired"]]


def show(rows: list[dict[str, Any]]) -> None:
    """A table of deliveries, and why those fail that do."""
    columns = {
        "name": "delivery", "waiting_tasks": "waiting", "delivered": "delivered", "updated": "updated",
        "deleted": "deleted", "kept": "kept there", "refused": "refused", "imports": "imports", "waits": "waits",
    }  # fmt: skip
    quiet = [name for name in ("updated", "deleted", "kept") if not any(row[name] for row in rows)]
    output.table(rows, {name: text for name, text in columns.items() if name not in quiet}, wide=["waits"])
    for row in rows:
        if row["failing"]:
            output.write(f"{row['name']}: {row['reason']}")


def _refused(app: App, delivery: int, limit: int) -> list[dict[str, Any]]:
    return app.ledger.deliveries().refused(delivery, 0, limit)


def pause(name: Name, config: ConfigPath = None) -> None:
    """Begin no import into a delivery until `resume`; its tasks are imported here, and wait."""
    for app, delivery in _opened(name, config):
        app.ledger.deliveries().pause(delivery)
    output.note(f"{name} is paused: an import under way is finished, and no other begun until it is resumed")


def resume(name: Name, config: ConfigPath = None) -> None:
    """Let a delivery go on at once: one that was paused, or that waits after failures."""
    for app, delivery in _opened(name, config):
        app.ledger.deliveries().resume(delivery)
    output.note(f"{name} goes on")


def retry(name: Name, config: ConfigPath = None) -> None:
    """Send the tasks again that were refused."""
    put = 0
    for app, delivery in _opened(name, config):
        put = app.ledger.deliveries().retry(delivery)
    output.note(f"{put} tasks were put back; `labelfeed run` delivers them")


def _opened(name: str, config: Any) -> Iterator[tuple[App, int]]:
    """The installation and the number of a delivery. Raises UsageError if there is none of this name."""
    from pipeline.app import App

    with App.open(load(config)) as app:
        known = {row["name"]: row["id"] for row in app.ledger.deliveries().report() if not row["retired"]}
        if name not in known:
            raise UsageError(f"there is no delivery {name!r}; there are {', '.join(known) or 'none'}")
        yield app, known[name]
