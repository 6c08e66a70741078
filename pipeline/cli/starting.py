"""Verbs to begin with: init, check, schema, components, version."""

from __future__ import annotations

import time
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from pipeline import registry
from pipeline.cli import output
from pipeline.cli.options import ConfigPath, Json
from pipeline.config import DEFAULT_NAME, Config, load
from pipeline.errors import LabelfeedError, UsageError

SAMPLE = "sample"
"""The folder of this package that `init` copies."""


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    for verb in (init, check, schema, components, version):
        app.command()(verb)


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")] = Path()) -> None:
    """Write a commented labelfeed.yaml, a labelling configuration and an inbox to start from."""
    written = []
    for sample in sorted(files("pipeline.cli").joinpath(SAMPLE).iterdir(), key=lambda item: item.name):
        place = folder / sample.name
        if place.exists():
            raise UsageError(f"{place} is there already; nothing was written over it")
        written.append((place, sample.read_text()))
    try:
        (folder / "inbox").mkdir(parents=True, exist_ok=True)
        for place, text in written:
            place.write_text(text)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {(error.strerror or str(error)).lower()}") from None
    for place, _ in written:
        output.write(str(place))
    option = "" if folder == Path() else f" --config {folder / DEFAULT_NAME}"
    output.note(f"Put files into {folder / 'inbox'}, then: labelfeed run --once{option}")


def check(config: ConfigPath = None, json: Json = False) -> None:
    """Validate the configuration, ping every component, and tell what labelling configurations ask for.

    Of each source it lists, reads one object, asks the queue of its notifications and signs a link, where it has
    them, and names the permission that is missing. It holds the servers' clocks against this machine's, and says how
    much is free on the disks that it writes to and when tokens end. Exits 1 if a component fails.
    """
    loaded = load(config)
    rows = _checked(loaded)
    asked = [_asked(name, text) for name, project in loaded.projects.items() if (text := project.label_config)]
    if json:
        output.as_json(rows + asked)
    else:
        output.table(rows + asked, {"component": "component", "ok": "ok", "found": "found"}, wide=["found"])
        for project in asked:
            _print_asked(project)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _asked(name: str, text: str) -> dict[str, Any]:
    """What a project's labelling configuration asks for."""
    from pipeline.labelconfig import LabelConfig

    config = LabelConfig.parse(text)
    return {
        "component": f"project {name}",
        "ok": True,
        "found": f"asks for {', '.join(config.data_keys) or 'no key'}",
        "asks": [
            {"key": ask.key, "tag": str(ask), "types": list(ask.type_names()) + (["URL"] if ask.url else [])}
            for ask in config.asks
        ],
        "feeds": list(config.feeds()),
        "example": config.example(),
    }


def _print_asked(project: dict[str, Any]) -> None:
    if not project["asks"]:
        return
    output.write("")
    rows = [row | {"types": " or ".join(row["types"])} for row in project["asks"]]
    output.table(
        rows, {"key": f"{project['component']} asks for", "types": "which is", "tag": "because of"}, wide=["tag"]
    )
    output.write("may be fed by " + "; ".join(project["feeds"]))
    output.write("for example " + orjson.dumps(project["example"]).decode())


def _checked(config: Config) -> list[dict[str, Any]]:
    from pipeline.app import App

    try:
        with App.open(config) as app:
            pings = {
                "database": app.ledger.ping,
                "event log": app.ping_log,
                "work queue": app.ping_queue,
                "server": app.ping_server,
                "clocks": app.ping_clocks,
                "disks": app.ping_disks,
                **{f"delivery {name}": ping for name, ping in app.delivery_pings().items()},
                **{f"source {name}": ping for name, ping in app.source_pings().items()},
            }
            return [_pinged(name, ping) for name, ping in pings.items()] + _tokens(config)
    except UsageError:
        raise
    except LabelfeedError as error:
        return [{"component": "database", "ok": False, "found": str(error)}]


def _tokens(config: Config) -> list[dict[str, Any]]:
    """The tokens that say when they end, and when that is."""
    from pipeline.app.credentials import expiries

    return [
        {"component": f"token {path}", "ok": at > time.time(), "found": f"ends at {output.clock(at)}"}
        for path, at in expiries(config).items()
    ]


def _pinged(name: str, ping: Any) -> dict[str, Any]:
    try:
        return {"component": name, "ok": True, "found": ping()}
    except LabelfeedError as error:
        return {"component": name, "ok": False, "found": str(error)}


def schema() -> None:
    """Print the configuration's JSON Schema, for editors."""
    from pipeline.config.reference import schema as made

    output.as_json(made())


def components(json: Json = False) -> None:
    """List the registered stores, producers, parsers, event logs and sinks, and the keys that they go by."""
    rows: list[dict[str, Any]] = []
    for component in registry.components():
        summary, missing = registry.described(component)
        rows.append({
            "kind": registry.NOUNS[component.kind],
            "name": component.name,
            "from": component.distribution + (f"[{component.extra}]" if component.extra else ""),
            "usable": missing is None,
            "options": list(component.options),
            "about": summary or missing,
        })  # fmt: skip
    if json:
        output.as_json(rows)
    else:
        shown = [row | {"options": ", ".join(row["options"])} for row in rows]
        columns = {name: name for name in ("kind", "name", "from", "usable", "options", "about")}
        output.table(shown, columns, wide=["about", "options"])


def version() -> None:
    """Print the version."""
    output.write(version_of("labelfeed"))
