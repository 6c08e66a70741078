"""The options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.config import Config, build, load
from pipeline.errors import UsageError

SQLITE = "sqlite:///"

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The configuration; without it, labelfeed.yaml in the current folder."
    ),
]
Database = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="Look into this database, without a configuration."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LogFormat = Annotated[Literal["text", "json"], typer.Option("--log-format", help="The form of the logs.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="How much is logged.")
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help="Where /metrics, /healthz and /readyz are, instead of server.listen; port 0 is any free one.",
    ),
]
State = Annotated[
    Literal["ready", "claimed", "running", "done", "failed", "skipped", "gone", "out_of_scope"] | None,
    typer.Option("--state", help="Only objects in this state."),
]


def chosen(config: Path | None, database: str | None) -> Config:
    """The configuration that is asked for; with a database alone, one that has just that."""
    if database is None:
        return load(config)
    if config is not None:
        raise UsageError("give --config or --database, not both")
    made = build({"database": database, "projects": {}, "sources": []}, Path.cwd())
    place = made.resolve(database.removeprefix(SQLITE))
    if database.startswith(SQLITE) and not place.exists():
        raise UsageError(f"there is no {place}")
    return made
