"""The options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The configuration; without it, labelfeed.yaml in the current folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LogFormat = Annotated[Literal["text", "json"], typer.Option("--log-format", help="The form of the logs.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="How much is logged.")
]
State = Annotated[
    Literal["ready", "claimed", "running", "done", "failed", "skipped", "gone", "out_of_scope"] | None,
    typer.Option("--state", help="Only objects in this state."),
]
