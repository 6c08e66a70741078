"""The verb that answers links of our own: serve."""

from __future__ import annotations

from threading import Event

import typer

from pipeline import logs
from pipeline.cli.options import ConfigPath, Listen, LogFormat, LogLevel
from pipeline.cli.running import listening_at, signals
from pipeline.config import load
from pipeline.errors import UsageError


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command()(serve)


def serve(
    config: ConfigPath = None, listen: Listen = None, log_format: LogFormat = "text", log_level: LogLevel | None = None
) -> None:
    """Answer the links that sources with `links: durable` write into tasks: until SIGTERM.

    GET /o/TOKEN leads to a freshly signed URL, or gives the object's bytes. Loopback, unless server.listen differs.
    """
    logs.set_up(log_format, log_level or "info")
    loaded = listening_at(load(config), listen)
    try:
        from pipeline.app.serving.process import serve as work
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pipeline":
            raise
        raise UsageError(
            f'serve needs {error.name}, which is not installed: pip install "labelfeed[console]"'
        ) from None
    stop = Event()
    with signals(stop):
        work(loaded, stop)
