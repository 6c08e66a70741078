"""The verb that streams rejected rows in a form that can be repaired and given back to `labelfeed import`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
import typer

from pipeline.cli import output, places
from pipeline.cli.options import ConfigPath, Database, chosen
from pipeline.ledger import Filter, Reports
from pipeline.tasks import ROW_CODES, is_whole

PAGE = 1000
NOTHING_KEPT = "(no text of this row was kept)"
_OF_TASKS = frozenset({"annotations", "predictions", "completions"})
_TOLD = ("row", "line", "column", "code", "message")
_COLUMNS = {"object": "object", "row": "row", "line": "line", "column": "column", "code": "code", "message": "message"}


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command()(rejected)


def rejected(
    config: ConfigPath = None,
    source: Annotated[str | None, typer.Option("--source", help="Only rows of this source.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only rows that were rejected with this code.")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["jsonl", "table"], typer.Option("--format", help="The form.")
    ] = "jsonl",
    database: Database = None,
) -> None:
    """Stream rejected rows, to be repaired and given back to `labelfeed import`.

    Each line is a task document: the row is under `data`, as text where it could not be read, and `rejected` tells
    where it stood and why it was rejected. Replace the text by an object; what is not repaired is rejected again.
    """
    from pipeline.app import App

    if code is not None and code not in ROW_CODES:
        raise typer.BadParameter(f"there is no code {code!r}; there are {', '.join(sorted(ROW_CODES))}")
    with App.open(chosen(config, database), readonly=True) as app:
        reports = app.ledger.reports()
        places.check_source(reports, source)
        sources = {row["name"]: row for row in reports.sources()}
        rows = _rows(reports, Filter(source, None, code))
        if format == "table":
            shown = [row | {"object": f"{row['source']}:{row['key']}"} for row in rows]
            output.table(shown, _COLUMNS, wide=["object", "message"])
            return
        for row in rows:
            sys.stdout.write(document(row, sources) + "\n")


def _rows(reports: Reports, which: Filter) -> Iterator[dict[str, Any]]:
    after = (0, 0, -1)
    while page := reports.rejected(which, after, PAGE):
        yield from page
        last = page[-1]
        after = (last["object_id"], last["lease"], last["n"])


def document(row: dict[str, Any], sources: dict[str, dict[str, Any]]) -> str:
    """A rejected row as a task document in one line, which is rejected for as long as it isn't repaired.

    What can be read is put in as it stands, so that no number of it changes.
    """
    text = row["excerpt"]
    about = {"source": row["source"], "uri": places.uri_of(sources, row["source"], row["key"])}
    about |= {name: row[name] for name in _TOLD} | {"excerpt": text, "complete": is_whole(text)}
    told = orjson.dumps(about).decode()
    item = _item(text)
    if item is None:
        return f'{{"data":{orjson.dumps(text or NOTHING_KEPT).decode()},"rejected":{told}}}'
    # Within a text of JSON there is no line end as such, so that these stand between its parts.
    line = text.strip().replace("\r", " ").replace("\n", " ")
    if item.get("data") or not _OF_TASKS.isdisjoint(item):
        return f'{line[:-1]},"rejected":{told}}}'
    return f'{{"data":{line},"rejected":{told}}}'


def _item(text: str) -> dict[str, Any] | None:
    """The object that a row's text is; None where it is none, or an empty one, which would be no data."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and found else None
