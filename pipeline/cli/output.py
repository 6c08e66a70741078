"""What verbs print: data on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

NARROW = 100
"""Columns of a table whose reader is no terminal; wider than a terminal's 80, for keys and reasons."""


def out() -> Console:
    """Where tables go. Made anew each time, as what it prints to may have changed."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else NARROW, soft_wrap=False)


def err() -> Console:
    """Where everything goes that is no data."""
    return Console(stderr=True, highlight=False)


def write(text: str) -> None:
    """A line of data, as it is."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line to the person, beside the data."""
    err().print(Text(text), soft_wrap=True)


def help_alone(context: typer.Context) -> None:
    """Without a verb: show the verbs."""
    if context.invoked_subcommand is None:
        note(context.get_help())
        raise typer.Exit(2)


def as_json(value: Any) -> None:
    """A value as one JSON document."""
    write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def as_line(value: Any) -> None:
    """A value as JSON in one line."""
    write(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
    sys.stdout.flush()


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, wide: Iterable[str] = ()) -> None:
    """Rows as a table: `columns` maps each key to its heading; numbers stand to the right, `wide` ones fold."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for key, heading in columns.items():
        numeric = bool(rows) and all(isinstance(row.get(key), int | float | None) for row in rows)
        made.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=key not in wide)
    for row in rows:
        made.add_row(*(_cell(key, row.get(key)) for key in columns))
    out().print(made)


def clock(seconds: float | None) -> str:
    """A moment in local time; empty for None."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def span(seconds: float | None) -> str:
    """A length of time as people say it: 0.3s, 12s, 5m, 3h, 2d."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"  # noqa: PLR2004 - tenths matter below ten


def size(count: float) -> str:
    """Bytes as people say them: 512 B, 2.1 kB, 3.0 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the step from one unit to the next
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def why(reason: Mapping[str, Any] | None) -> str:
    """An outcome's reason in one line: code, message, place, hint."""
    if not reason:
        return ""
    place = ", ".join(f"{name} {reason[name]}" for name in ("line", "column", "byte") if reason.get(name) is not None)
    text = f"{reason.get('code', '')}: {reason.get('message', '')}" + (f" ({place})" if place else "")
    return text + (f" — {reason['hint']}" if reason.get("hint") else "")


def paused(source: str, row: Mapping[str, Any]) -> str:
    """What to say of a source that is paused: since when, why, and what ends it."""
    since = f"{source} is paused since {clock(row['since'])}"
    if row["by"] == "hand":
        return f"{since}, by hand; `labelfeed resume {source}` lets it go on"
    return (
        f"{since}: its last {row['failing']} objects all failed as {row['code']}. One at a time is tried until one"
        f" passes; `labelfeed resume {source}` lets it go on at once"
    )


def unanswered(source: str, row: Mapping[str, Any]) -> str:
    """What to say of objects that wait for storage that does not answer: how many, since when, and why."""
    waiting = f"{row['objects']:,} objects of {source} have waited for its storage since {clock(row['since'])}"
    return f"{waiting}: {row['code']}: {row['message']}"


_COLOURS = {"failed": "red", "rejected": "yellow", "skipped": "yellow", "imported": "green", "missing": "red"}


def _cell(key: str, value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "")
    if isinstance(value, float):
        return Text(f"{value:.1f}")
    if isinstance(value, int):
        return Text(f"{value:,}", style=_COLOURS.get(key, "") if value else "dim")
    return Text(str(value))
