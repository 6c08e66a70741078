"""Verbs that hold a source's store against the ledger: plan, verify."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from pipeline.cli import output
from pipeline.cli.options import ConfigPath, Json
from pipeline.config import Config, load
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.plan import Kind, Plan

FINDINGS_SHOWN = 1000
"""Findings that are listed; all are counted."""
WIDTH_SHOWN = 200
"""Characters of a task that a plan shows."""


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command()(plan)
    app.command()(verify)


def plan(
    sources: Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help="Only these sources.")] = None,
    config: ConfigPath = None,
    json: Json = False,
) -> None:
    """Show what a run would do: objects, bytes, tasks by a sample, the first tasks. Writes nothing."""
    loaded = load(config)
    print_plans(plans(loaded, sources or []), json=json)


def plans(config: Config, names: list[str]) -> list[Plan]:
    """The plans of a configuration's sources, or of those that are named."""
    from pipeline.app import App
    from pipeline.plan import plan as planned

    _check(config, names)
    with App.open(config, readonly=True) as app:
        return [
            planned(feed.source, feed.store, feed.rules, app.ledger, feed.source_id)
            for name, feed in app.feeds.items()
            if name in names or not names
        ]


def print_plans(made: list[Plan], *, json: bool) -> None:
    """Plans as tables or as JSON."""
    if json:
        output.as_json([_as_values(item) for item in made])
        return
    columns = {
        "source": "source", "new": "new", "changed": "changed", "ignored": "changed, ignored", "deleted": "deleted",
        "waiting": "waiting", "unchanged": "unchanged", "unsettled": "unsettled", "read": "to read",
        "tasks": "tasks, about",
    }  # fmt: skip
    rows: list[dict[str, Any]] = [asdict(item) | {"read": output.size(item.size)} for item in made]
    rare = ("ignored", "waiting", "unsettled", "deleted", "changed", "unchanged")
    quiet = [name for name in rare if not any(row[name] for row in rows)]
    output.table(rows, {name: text for name, text in columns.items() if name not in quiet})
    for item in made:
        _print_sampled(item)
    for item in made:
        for key, why in item.problems:
            output.note(f"{item.source}:{key} would not be imported: {why}")
        for task in item.first_tasks:
            output.note(f"{item.source}: {task.data[:WIDTH_SHOWN]}" + ("…" if len(task.data) > WIDTH_SHOWN else ""))


def _print_sampled(item: Plan) -> None:
    """What the sample says: files by extension, the keys with their types, what doesn't fit."""
    if len(item.kinds) > 1:
        kinds = [_kind(name, kind) for name, kind in sorted(item.kinds.items())]
        output.write("")
        headings = {"files": f"files of {item.source}", "count": "count", "read": "to read", "parser": "read as"}
        output.table(kinds, headings | {"tasks": "tasks, about"})
    if item.columns:
        keys = ", ".join(f"{key} ({' or '.join(sorted(types)) or 'empty'})" for key, types in item.columns.items())
        output.note(f"{item.source} has the keys: {keys}")
    if item.missing:
        output.note(f"{item.source} misses what the labelling configuration asks for: {', '.join(item.missing)}")
    if item.unused:
        output.note(f"{item.source} has what the labelling configuration does not use: {', '.join(item.unused)}")
    for code, (count, message) in item.rejected.items():
        rows = "1 row" if count == 1 else f"{count:,} rows"
        output.note(f"{item.source}: {rows} of the sample would be rejected as {code}; the first: {message}")


def _kind(name: str, kind: Kind) -> dict[str, Any]:
    return {
        "files": name or "(others)", "count": kind.count, "read": output.size(kind.size), "parser": kind.parser,
        "tasks": kind.estimate(),
    }  # fmt: skip


def _as_values(item: Plan) -> dict[str, Any]:
    tasks = [orjson.Fragment(task.data) for task in item.first_tasks]
    problems = [{"key": key, "why": why} for key, why in item.problems]
    return asdict(item) | {
        "first_tasks": tasks,
        "problems": problems,
        "kinds": {name: _kind(name, kind) | {"read": kind.size} for name, kind in item.kinds.items()},
        "columns": {key: sorted(types) for key, types in item.columns.items()},
        "rejected": {code: {"count": count, "first": why} for code, (count, why) in item.rejected.items()},
    }


def verify(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Only this source.")] = None,
    config: ConfigPath = None,
    recount: Annotated[
        bool, typer.Option("--recount", help="Put the ledger's counters right; others wait while that is done.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every object of the store with the ledger and the tasks, and the ledger's counters with a count.

    Exits 1 unless all is accounted for.
    """
    from pipeline.app import App
    from pipeline.verify import Finding, Subject
    from pipeline.verify import verify as verified

    loaded = load(config)
    _check(loaded, [source] if source else [])
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        if len(findings) < FINDINGS_SHOWN:
            findings.append(finding)

    with App.open(loaded, readonly=not recount) as app:
        reports = app.ledger.reports()
        counted = reports.recount() if recount else reports.miscounted()
        counters = {name: counted[name] for name in app.feeds if name in counted and source in (None, name)}
        results = [
            verified(Subject(feed.source, feed.source_id, feed.store, app.ledger), tell)
            for name, feed in app.feeds.items()
            if source in (None, name)
        ]
    rows = [asdict(result) | result.found for result in results]
    if json:
        values = [{name: value for name, value in row.items() if name != "found"} for row in rows]
        told = {"sources": values, "findings": [finding._asdict() for finding in findings]}
        output.as_json(told | {"counters": counters, "recounted": recount})
    else:
        _print_verified(rows, findings)
        _print_counters(counters, recounted=recount)
    if not all(result.ok for result in results) or (counters and not recount):
        raise typer.Exit(1)


def _print_verified(rows: list[dict[str, Any]], findings: list[Any]) -> None:
    names = ("source", "good", "failed", "skipped", "waiting", "missing", "doubled", "stale", "orphaned")
    output.table(rows, {name: {"failed": "of them failed"}.get(name, name) for name in names})
    if findings:
        shown = [
            {"kind": finding.kind, "object": f"{finding.source}:{finding.key}", "detail": finding.detail}
            for finding in findings
        ]
        output.write("")
        output.table(shown, {"kind": "kind", "object": "object", "detail": "detail"}, wide=["object", "detail"])


def _print_counters(counters: dict[str, dict[str, tuple[int, int]]], *, recounted: bool) -> None:
    for name, found in counters.items():
        for what, (kept, count) in found.items():
            done = ", and was put right" if recounted else f"; labelfeed verify {name} --recount puts it right"
            output.note(f"the counter {what} of {name} says {kept}, a count gives {count}{done}")


def _check(config: Config, names: list[str]) -> None:
    known = [source.name for source in config.sources]
    for name in names:
        if name not in known:
            raise UsageError(f"the configuration has no source {name!r}; there are {', '.join(known) or 'none'}")
