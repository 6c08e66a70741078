"""The verb that feeds events to the ledger once more."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.cli.options import ConfigPath, Json
from pipeline.config import load, parse_duration
from pipeline.errors import UsageError


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command()(replay)


def replay(
    config: ConfigPath = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="All events of this long (2h), or from this time on (ISO 8601)."),
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, help="Events of this partition, with --from and --to.")
    ] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="The first offset.")] = 0,
    end: Annotated[
        int | None, typer.Option("--to", min=0, help="The offset after the last; without it, the log's end.")
    ] = None,
    json: Json = False,
) -> None:
    """Feed events to the ledger once more: dead letters, or a span of the event log.

    Without options, every dead letter that was not replayed yet. An event is a hint: what is imported already stays as
    it is, so replaying too much does no harm. What cannot be put back, as a letter of which only the beginning was
    kept, is named with the reason, and the exit code is 1; so is what of a span could not be read, with its offsets.
    """
    from pipeline.app import App

    if since is not None and partition is not None:
        raise UsageError("give --since or --partition, not both")
    if partition is None and (first or end is not None):
        raise UsageError("--from and --to are offsets of one partition: name it by --partition")
    refused: list[str] = []
    with App.open(load(config)) as app:
        if since is not None:
            count = app.log.replay(app.log.since(_moment(since)), refused.append)
        elif partition is not None:
            ends = app.log.end()
            if partition not in ends:
                raise UsageError(f"the event log has no partition {partition}; there are {', '.join(map(str, ends))}")
            last = ends[partition] if end is None else min(end, ends[partition])
            count = app.log.replay({partition: (first, last)}, refused.append)
        else:
            count = app.log.replay_dead(refused.append)
    if json:
        output.as_json({"replayed": count, "refused": refused})
    else:
        output.note(f"{count} events were put on the log again; `labelfeed run` or `dispatch` records them")
        for reason in refused:
            output.note(f"not put back: {reason}")
    if refused:
        raise typer.Exit(1)


def _moment(text: str) -> float:
    """Seconds since 1970 of `2h` (ago) or of an ISO 8601 time; local time where it names no zone."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is no time; write it like 2h or 2026-05-02T10:00") from None
