"""Verbs that look and change nothing: status, objects, explain, tasks."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from pipeline.bus import DeadLetter
from pipeline.cli import delivering, output, places, waiting
from pipeline.cli.notes import left_out, source_notes
from pipeline.cli.options import ConfigPath, Database, Json, State, chosen
from pipeline.cli.resolving import resolved
from pipeline.cli.revisions import change, told
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.events import ObjectEvent, check_key
from pipeline.ledger import Filter, Reports, RevisionFilter
from pipeline.tasks import ROW_CODES

if TYPE_CHECKING:
    from pipeline.app import App

PAGE = 1000
RATE_SECONDS = 0.5
"""How long `status` watches work under way to tell its rate."""
DEAD_LETTERS_SHOWN = 20
DEAD_LETTERS_SEARCHED = 10_000
TASKS_SHOWN = 5
ROWS_SHOWN = 20
PARTS = ("data", "annotations", "predictions", "meta", "extra")
HIDDEN = ("at", "source", "key", "object_id", "n")
EMPTY = {"data": "{}", "annotations": "[]", "predictions": "[]", "meta": "{}", "extra": "{}"}


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    for verb in (status, objects, explain, tasks):
        app.command()(verb)


def status(config: ConfigPath = None, database: Database = None, json: Json = False) -> None:
    """Show what is where, and what it waits for: per source and per project.

    Exits 1 if an object failed, or an event could not be recorded.
    """
    from pipeline.app import App

    loaded = chosen(config, database)
    with App.open(loaded, readonly=True) as app:
        reports = app.ledger.reports()
        sources = _sources(reports, app.ledger.now())
        projects = projects_of(reports, loaded)
        waiting.add(sources, projects, reports.scheduling(), app.ledger.now())
        delivered = delivering.told_of(app)
        letters = app.dead_letters(DEAD_LETTERS_SHOWN)
        refused = [_refused(letter) for letter in letters if not _recorded_since(reports, letter)]
    if json:
        output.as_json({"sources": sources, "projects": projects, "deliveries": delivered, "dead_letters": refused})
    else:
        _print_status(sources, projects)
        if delivered:
            output.write("")
            delivering.show(delivered)
        if refused:
            shown = [
                row | {"object": f"{row['source']}:{row['key']}", "at": output.clock(row["at"])} for row in refused
            ]
            output.table(shown, {"object": "not recorded", "reason": "why", "at": "at"}, wide=["object", "reason"])
    if refused or any(row["failed"] for row in sources if not row["retired"]):
        raise typer.Exit(1)


def _recorded_since(reports: Reports, letter: DeadLetter) -> bool:
    """Whether a later event of the same object could be recorded: then nothing is amiss any more."""
    event = letter.event
    if not isinstance(event, ObjectEvent) or check_key(event.key) is not None:
        return False
    return any(row["last_event"] > letter.at for row in reports.find(event.source, event.key))


def _refused(letter: DeadLetter) -> dict[str, Any]:
    event = letter.event if isinstance(letter.event, ObjectEvent) else None
    return {
        "at": letter.at, "reason": letter.reason, "source": event.source if event else None,
        "key": event.key if event else None,
    }  # fmt: skip


def _sources(reports: Reports, now: float) -> list[dict[str, Any]]:
    rows = reports.sources()
    if any(row["ready"] + row["claimed"] + row["running"] for row in rows if not row["retired"]):
        begun = time.monotonic()
        time.sleep(RATE_SECONDS)
        finished = {row["name"]: row["finished"] for row in rows}
        rows = reports.sources()
        seconds = time.monotonic() - begun
        for row in rows:
            row["rate"] = (row["finished"] - finished.get(row["name"], 0)) / seconds
    for row in rows:
        row.setdefault("rate", 0.0)
        oldest = row["oldest_ready"]
        row["oldest_waiting_seconds"] = None if oldest is None else max(0.0, now - oldest)
        open_ones = row["ready"] + row["claimed"] + row["running"]
        row["unanswered"] = reports.unanswered(row["name"]) if open_ones and not row["retired"] else None
    return rows


def projects_of(reports: Reports, config: Config) -> list[dict[str, Any]]:
    """Per project what the ledger knows, and its throttle by the configuration."""
    rows = {row["name"]: dict(row) for row in reports.projects()}
    for name, project in config.projects.items():
        row = rows.setdefault(name, {"name": name, "tasks": 0, "in_flight": 0, "paused": None})
        row |= project.throttle.model_dump()
    return list(rows.values())


def _print_status(sources: list[dict[str, Any]], projects: list[dict[str, Any]]) -> None:
    for row in sources:
        last = row["last_pass"]
        row["pass"] = "" if not last else last["stopped"] or output.clock(last["finished"] or last["started"])
        row["oldest"] = output.span(row["oldest_waiting_seconds"])
        row["shown"] = row["name"] + (" (retired)" if row["retired"] else " (paused)" if row["paused"] else "")
        row["waits for"] = (row["waits"] or {}).get("text", "")
    columns = {
        "shown": "source", "ready": "ready", "claimed": "claimed", "running": "running", "done": "done",
        "failed": "failed", "skipped": "skipped", "gone": "gone", "out_of_scope": "out of scope", "tasks": "tasks",
        "rejected": "rejected rows", "changes": "ignored changes", "oldest": "oldest waiting", "rate": "per second",
        "pass": "last pass", "waits for": "waits for",
    }  # fmt: skip
    rare = ("claimed", "running", "gone", "out_of_scope", "rejected", "changes", "oldest", "rate", "waits for")
    quiet = [name for name in rare if not any(row[name] for row in sources)]
    shown = {name: text for name, text in columns.items() if name not in quiet}
    output.table(sources, shown, wide=["pass", "waits for"])
    for row in sources:
        if row["paused"] and not row["retired"]:
            output.write(output.paused(row["name"], row["paused"]))
        for note in source_notes(row):
            output.write(note)
    for row in projects:
        row["throttle"] = _throttle(row)
        row["waits for"] = (row["waits"] or {}).get("text", "")
    output.write("")
    columns = {"name": "project", "tasks": "tasks", "throttle": "throttle"}
    if any(row["waits"] for row in projects):
        columns["waits for"] = "waits for"
    output.table(projects, columns, wide=["throttle", "waits for"])


def _throttle(row: Mapping[str, Any]) -> str:
    rate, most, unlabelled = row.get("tasks_per_second"), row.get("max_tasks"), row.get("open_tasks")
    parts = [
        f"{rate:g} tasks/s" if rate else "",
        f"at most {most:,} tasks" if most else "",
        f"at most {unlabelled:,} open" if unlabelled else "",
    ]
    return ", ".join(filter(None, parts)) or "none"


def objects(
    config: ConfigPath = None,
    source: Annotated[str | None, typer.Option("--source", help="Only objects of this source.")] = None,
    state: State = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    database: Database = None,
    json: Json = False,
) -> None:
    """List objects of the ledger: state, attempts, tasks, and why one ended as it did."""
    from pipeline.app import App

    with App.open(chosen(config, database), readonly=True) as app:
        reports = app.ledger.reports()
        places.check_source(reports, source)
        rows = list(places.objects(reports, Filter(source, state), limit))
    if json:
        output.as_json(rows)
        return
    for row in rows:
        row["object"], row["why"] = f"{row['source']}:{row['key']}", output.why(row["reason"])
    columns = {"object": "object", "state": "state", "attempts": "attempts", "tasks": "tasks", "why": "why"}
    output.table(rows, columns, wide=["object", "why"])


def explain(
    uri: Annotated[str, typer.Argument(metavar="URI", help="A path, a URI, or SOURCE:KEY.")],
    config: ConfigPath = None,
    database: Database = None,
    json: Json = False,
) -> None:
    """Tell everything that is known of one object: events, attempts, outcome, where it failed, its tasks."""
    from pipeline.app import App

    with App.open(chosen(config, database), readonly=True) as app:
        reports = app.ledger.reports()
        known = {row["name"]: row for row in reports.sources()}
        rows = [_explained(app, known, row) | _asked(app, row) for row in places.looked_up(reports, uri)]
        outside = left_out(app, uri)
        named = set(places.readings(reports.sources(), uri))
        refused = [
            row
            for row in map(_refused, app.dead_letters(DEAD_LETTERS_SEARCHED))
            if not named.isdisjoint({(row["source"], row["key"]), (None, row["key"])})
        ]
    known_keys = {(row["source"], row["key"]) for row in rows if row["state"] != "out_of_scope"}
    outside = [row for row in outside if (row["source"], row["key"]) not in known_keys]
    if not rows and not refused and not outside:
        raise places.unknown(uri)
    if json:
        shown = [row | {"state": "left_out"} for row in outside] + [row | {"state": "refused"} for row in refused]
        output.as_json(rows + shown)
        return
    for row in rows:
        _print_explained(row)
    for row in outside:
        output.write(f"{row['source']}:{row['key']}\nleft out by the configuration, {row['why']}")
    for row in refused:
        output.write(f"{row['source']}:{row['key']}\nnot recorded at {output.clock(row['at'])}: {row['reason']}")


def _explained(app: App, sources: dict[str, dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    reports = app.ledger.reports()
    tasks = reports.object_tasks(row["id"], TASKS_SHOWN)
    mine = [
        item
        for item in reports.rejected(Filter(row["source"]), (row["id"], -1, -1), ROWS_SHOWN)
        if item["object_id"] == row["id"]
    ]
    return row | {
        "uri": places.uri_of(sources, row["source"], row["key"]),
        "events": [
            {"at": row["first_seen"], "kind": "noticed", "by": row["discovered_by"]},
            *reports.history(row["id"]),
        ],
        "imports": reports.imports(row["id"]),
        "rejected_rows": mine,
        "revisions": [
            told(item) for item in reports.revisions(RevisionFilter(object_id=row["id"], decided=True), 0, ROWS_SHOWN)
        ],
        "first_tasks": [_task(item, sources) for item in tasks],
        "resolved": resolved(app, row["source"], tasks),
    }


def _asked(app: App, row: dict[str, Any]) -> dict[str, Any]:
    """What the labelling configuration asks for, where the object has rows that may not fit it; and what became of its
    tasks in deliveries."""
    feed = app.feeds.get(row["source"])
    config = feed.rules.label_config if feed is not None else None
    bad = row["rejected"] or (row["reason"] or {}).get("code") in ROW_CODES
    asks = config.told() if config is not None and bad else []
    return {"asks": asks, "deliveries": app.ledger.deliveries().of_object(row["id"])}


_LISTS = (
    ("events and attempts", "events"), ("imports", "imports"), ("deliveries", "deliveries"),
    ("rejected", "rejected_rows"),
)  # fmt: skip
"""What is told of an object as a list, each entry in a line."""


def _print_explained(row: dict[str, Any]) -> None:
    facts = {
        "object": f"{row['source']}:{row['key']}", "uri": row["uri"], "state": row["state"],
        "why": output.why(row["reason"]), "excerpt": (row["reason"] or {}).get("excerpt"), "attempts": row["attempts"],
        "version": row["version"], "imported version": row["imported_version"], "bytes": row["size"],
        "trace": row["trace"],
        "first seen": output.clock(row["first_seen"]), "last event": output.clock(row["last_event"]),
        "ended": output.clock(row["finished_at"]), "tasks": row["tasks"], "rejected rows": row["rejected"],
        "ignored changes": row["changes"] or None,
    }  # fmt: skip
    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, ""):
            output.write(f"{name:<{width}}  {value}")
    for title, name in _LISTS:
        if row[name]:
            output.write(f"\n{title}")
            for item in row[name]:
                output.write("  " + _line(item))
    _print_revisions(row)
    if row["asks"]:
        output.write("\nthe labelling configuration")
        for line in row["asks"]:
            output.write("  " + line)
    if row["first_tasks"]:
        output.write(f"\ntasks (the first {len(row['first_tasks'])} of {row['tasks']})")
        for task in row["first_tasks"]:
            output.write("  " + orjson.dumps(task).decode())
    _print_resolved(row)


def _print_resolved(row: dict[str, Any]) -> None:
    if row["resolved"]:
        output.write("\nwhat resolvers show")
    for one in row["resolved"]:
        shown = one["error"] if one["value"] is None else repr(one["value"])
        output.write(f"  task {one['task']}, {one['tag']}: {one['uri']} gives {shown}")


def _print_revisions(row: dict[str, Any]) -> None:
    if row["revisions"]:
        output.write("\nproposed revisions of annotated tasks")
    for item in row["revisions"]:
        at = output.clock(item["decided_at"] or item["proposed_at"])
        output.write(f"  {at}  id={item['id']}  task={item['task_id']}  {item['state']}  {change(item)}")


def _line(item: dict[str, Any]) -> str:
    at = output.clock(item["at"]) + "  " if "at" in item else ""
    parts = {name: _shown(name, value) for name, value in item.items() if name not in HIDDEN}
    return at + "  ".join(f"{name}={value}" for name, value in parts.items() if value not in ("", "None", "0"))


def _shown(name: str, value: Any) -> str:
    if name in ("reason", "seconds", "retry_after"):
        return output.why(value) if name == "reason" else f"{value:.3g}"
    return str(value).strip()


def tasks(
    config: ConfigPath = None,
    project: Annotated[str | None, typer.Option("--project", help="Only tasks of this project.")] = None,
    format: Annotated[Literal["jsonl", "json", "csv"], typer.Option("--format", help="The form.")] = "jsonl",  # noqa: A002 - the option's name
    database: Database = None,
) -> None:
    """Stream tasks to standard output."""
    from pipeline.app import App

    with App.open(chosen(config, database), readonly=True) as app:
        reports = app.ledger.reports()
        names = [row["name"] for row in reports.projects()]
        if project is not None and project not in names:
            raise UsageError(f"the ledger has no project {project!r}; there are {', '.join(names) or 'none'}")
        sources = {row["name"]: row for row in reports.sources()}
        {"jsonl": _as_lines, "json": _as_list, "csv": _as_csv}[format](_rows(reports, project), sources)


def _rows(reports: Reports, project: str | None) -> Iterator[dict[str, Any]]:
    after = 0
    while page := reports.tasks(project, after, PAGE):
        yield from page
        after = page[-1]["id"]


def _text(row: dict[str, Any], sources: dict[str, dict[str, Any]]) -> str:
    """A task as JSON text; its parts are JSON already, and are put together as they are."""
    head = orjson.dumps({"id": row["id"], "external_id": row["external_id"], "project": row["project"]})[:-1].decode()
    parts = ",".join(f'"{name}":{row[name] or EMPTY[name]}' for name in PARTS)
    source = {
        "name": row["source"], "uri": places.uri_of(sources, row["source"], row["key"]), "version": row["version"],
        "position": row["position"], "row": row["row"],
    }  # fmt: skip
    return f'{head},{parts},"source":{orjson.dumps(source).decode()}}}'


def _task(row: dict[str, Any], sources: dict[str, dict[str, Any]]) -> Any:
    return orjson.Fragment(_text(row, sources))


def _as_lines(rows: Iterator[dict[str, Any]], sources: dict[str, dict[str, Any]]) -> None:
    for row in rows:
        sys.stdout.write(_text(row, sources) + "\n")


def _as_list(rows: Iterator[dict[str, Any]], sources: dict[str, dict[str, Any]]) -> None:
    sys.stdout.write("[")
    for index, row in enumerate(rows):
        sys.stdout.write((",\n" if index else "\n") + _text(row, sources))
    sys.stdout.write("\n]\n")


def _as_csv(rows: Iterator[dict[str, Any]], sources: dict[str, dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["id", "external_id", "project", *PARTS, "source", "uri", "version", "position", "row"])
    for row in rows:
        parts = [row[name] or EMPTY[name] for name in PARTS]
        uri = places.uri_of(sources, row["source"], row["key"])
        writer.writerow([
            row["id"], row["external_id"], row["project"], *parts, row["source"], uri, row["version"],
            row["position"], row["row"],
        ])  # fmt: skip
