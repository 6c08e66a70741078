"""Verbs for what new versions of files would make of annotated tasks: revisions, revisions accept and reject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer

from pipeline.cli import output, places
from pipeline.cli.options import ConfigPath, Json
from pipeline.config import load
from pipeline.errors import UsageError
from pipeline.ledger import Reports, RevisionFilter

PAGE = 500
PARTS = ("data", "annotations", "predictions", "meta", "extra")
TEXT_SHOWN = 200
"""Characters of a value that the table shows."""

Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID|OBJECT", help="Revisions by number, or all of an object: its path, URI, or SOURCE:KEY."),
]
OfSource = Annotated[str | None, typer.Option("--source", help="Only revisions of this source.")]
All = Annotated[bool, typer.Option("--all", help="All that wait.")]


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    family = typer.Typer(help="List and decide on revisions that were proposed of annotated tasks.")
    family.callback(invoke_without_command=True)(revisions)
    family.command("accept")(accept)
    family.command("reject")(reject)
    app.add_typer(family, name="revisions")


def revisions(
    context: typer.Context,
    config: ConfigPath = None,
    source: OfSource = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """List what new versions of files would make of tasks that carry annotations, until `accept` or `reject`.

    With `on_change: replace` such tasks are never written over.
    """
    if context.invoked_subcommand is not None:
        return
    from pipeline.app import App

    with App.open(load(config), readonly=True) as app:
        reports = app.ledger.reports()
        places.check_source(reports, source)
        rows = [told(row) for row in _rows(reports, RevisionFilter(source), limit)]
    if json:
        output.as_json(rows)
        return
    shown = [{"id": row["id"], "object": f"{row['source']}:{row['key']}", "task": row["task_id"],
              "proposed": output.clock(row["proposed_at"]), "change": change(row)} for row in rows]  # fmt: skip
    columns = {name: name for name in ("id", "object", "task", "proposed", "change")}
    output.table(shown, columns, wide=["object", "change"])


def accept(
    which: Which = None, config: ConfigPath = None, source: OfSource = None, everything: All = False, json: Json = False
) -> None:
    """Let tasks become what was proposed, annotations too; what they were is kept in the table of revisions."""
    _decide(which or [], config, source, everything=everything, json=json, accept=True)


def reject(
    which: Which = None, config: ConfigPath = None, source: OfSource = None, everything: All = False, json: Json = False
) -> None:
    """Leave tasks as they are; the same content is not proposed again."""
    _decide(which or [], config, source, everything=everything, json=json, accept=False)


def _decide(which: list[str], config: Any, source: str | None, *, everything: bool, json: bool, accept: bool) -> None:
    from pipeline.app import App

    if sum([bool(which), source is not None, everything]) != 1:
        raise UsageError("name revisions or objects, or give --source, or --all")
    with App.open(load(config)) as app:
        reports = app.ledger.reports()
        places.check_source(reports, source)
        chosen = list(_chosen(reports, which, source))
        refused: dict[int, str] = {}
        for start in range(0, len(chosen), PAGE):
            refused |= app.ledger.decide(chosen[start : start + PAGE], accept=accept)
    done = len(chosen) - len(refused)
    if json:
        output.as_json([{"id": number, "refused": refused.get(number, "")} for number in chosen])
    else:
        for number, why in refused.items():
            output.note(f"{number} was left: {why}")
        output.note(f"{done} revisions were {'accepted' if accept else 'rejected'}")
    if refused:
        raise typer.Exit(1)


def _chosen(reports: Reports, which: list[str], source: str | None) -> Iterator[int]:
    if not which:
        yield from (row["id"] for row in _rows(reports, RevisionFilter(source)))
    for word in dict.fromkeys(which):
        if word.isdecimal():
            yield int(word)
        else:
            for found in places.found(reports, word):
                yield from (row["id"] for row in _rows(reports, RevisionFilter(object_id=found["id"])))


def _rows(reports: Reports, which: RevisionFilter, limit: int | None = None) -> Iterator[dict[str, Any]]:
    after, left = 0, limit
    while left is None or left > 0:
        page = reports.revisions(which, after, PAGE if left is None else min(PAGE, left))
        yield from page
        if not page:
            return
        after, left = page[-1]["id"], None if left is None else left - len(page)


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A revision with the two contents of its task, as values: `task` now, and what is `proposed`."""
    about = ("id", "source", "key", "task_id", "version", "state", "proposed_at", "decided_at")
    return {name: row[name] for name in about} | {
        "task": {part: _value(row[f"task_{part}"]) for part in PARTS} | {"external_id": row["task_external_id"]},
        "proposed": {part: _value(row[part]) for part in PARTS} | {"external_id": row["external_id"]},
    }


def change(row: dict[str, Any]) -> str:
    """What of a task would change, in a line."""
    before, after = row["task"], row["proposed"]
    changed = []
    for key in dict.fromkeys([*before["data"], *after["data"]]):
        old, new = before["data"].get(key), after["data"].get(key)
        if old != new:
            changed.append(f"{key}: {_short(old)} → {_short(new)}")
    changed += [part for part in (*PARTS[1:], "external_id") if before[part] != after[part]]
    return "; ".join(changed)


def _value(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _short(value: Any) -> str:
    text = "nothing" if value is None else orjson.dumps(value).decode()
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…"
