"""Verbs that change the ledger by hand: retry, pause, resume, sources accept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli import output, places
from pipeline.cli.options import ConfigPath, Json, State
from pipeline.config import Config, load
from pipeline.errors import UsageError
from pipeline.ledger import Filter

if TYPE_CHECKING:
    from pipeline.app import App

BATCH = 500


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    for verb in (retry, pause, resume):
        app.command()(verb)
    sources = typer.Typer(help="Change what the ledger knows of sources.")
    sources.command("accept")(accept)
    sources.callback(invoke_without_command=True)(output.help_alone)
    app.add_typer(sources, name="sources")


def retry(
    uris: Annotated[list[str] | None, typer.Argument(metavar="URI", help="Paths, URIs, or SOURCE:KEY.")] = None,
    config: ConfigPath = None,
    source: Annotated[str | None, typer.Option("--source", help="Only objects of this source.")] = None,
    state: State = None,
    code: Annotated[str | None, typer.Option("--code", help="Only objects that ended with this code.")] = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Imported objects that the present configuration would import otherwise.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Imported ones too: their tasks are replaced.")] = False,
    json: Json = False,
) -> None:
    """Put objects back, so that the next run imports them again: those named, or all that failed."""
    from pipeline.app import App

    with App.open(load(config)) as app:
        chosen = list(_chosen(app, uris or [], Filter(source, state, code), outdated=outdated))
        refused: dict[int, str] = {}
        reports = app.ledger.reports()
        for start in range(0, len(chosen), BATCH):
            ids = [row["id"] for row in chosen[start : start + BATCH]]
            refused |= reports.retry(ids, force=force or outdated)
    rows = [{"object": f"{row['source']}:{row['key']}", "refused": refused.get(row["id"], "")} for row in chosen]
    _print_retried(rows, json=json)
    if refused and uris:
        raise typer.Exit(1)


def _print_retried(rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.as_json(rows)
        return
    refused = [row for row in rows if row["refused"]]
    if refused:
        output.table(refused, {"object": "not put back", "refused": "why"}, wide=["object", "refused"])
    output.note(f"{len(rows) - len(refused)} objects were put back; `labelfeed run` imports them.")


def _chosen(app: App, uris: list[str], which: Filter, *, outdated: bool) -> Iterator[dict[str, Any]]:
    reports = app.ledger.reports()
    if uris and (outdated or any(which)):
        raise UsageError("name objects, or choose them by options; not both")
    if uris:
        seen = {row["id"]: row for text in uris for row in places.found(reports, text)}
        yield from seen.values()
    elif outdated:
        for row in places.objects(reports, which._replace(state="done")):
            imports = reports.imports(row["id"])
            feed = app.feeds.get(row["source"])
            if imports and feed is not None and imports[-1]["shape"] != feed.shape:
                yield row
    else:
        yield from places.objects(reports, which if which.state else which._replace(state="failed"))


Name = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT|SOURCE", help="A project or a source; `project:NAME` or `source:NAME` where both have it."
    ),
]


def pause(name: Name, config: ConfigPath = None) -> None:
    """Import nothing of a project or a source until `resume`; what lands there is noticed, and waits."""
    from pipeline.app import App

    loaded = load(config)
    kind, called = _named(loaded, name)
    with App.open(loaded) as app:
        if kind == "project":
            app.ledger.pause_project(called, paused=True)
        else:
            app.ledger.pause(app.feeds[called].source_id)
    output.note(f"{name} is paused: what runs is finished, and nothing more is begun until `labelfeed resume {name}`")


def resume(name: Name, config: ConfigPath = None) -> None:
    """Let a project or a source go on that was paused, by hand or by its failures."""
    from pipeline.app import App

    loaded = load(config)
    kind, called = _named(loaded, name)
    with App.open(loaded) as app:
        if kind == "project":
            paused = app.ledger.pause_project(called, paused=False)
        else:
            paused = any(row["paused"] for row in app.ledger.reports().sources() if row["name"] == called)
            app.ledger.resume(app.feeds[called].source_id)
    output.note(f"{name} goes on" if paused else f"{name} was not paused")


def _named(config: Config, name: str) -> tuple[Literal["project", "source"], str]:
    """What a name stands for. Raises UsageError if that is nothing, or two things."""
    sources = {source.name for source in config.sources}
    kind, _, called = name.rpartition(":")
    if kind == "project" and called in config.projects:
        return "project", called
    if kind == "source" and called in sources:
        return "source", called
    if name in sources and name in config.projects:
        raise UsageError(f"a project and a source are called {name!r}; write project:{name} or source:{name}")
    if name in config.projects:
        return "project", name
    if name in sources:
        return "source", name
    names = ", ".join([*config.projects, *sorted(sources)])
    raise UsageError(f"the configuration has no project and no source {name!r}; there are {names or 'none'}")


def _naming(name: str, path: Path | None) -> Config:
    """The configuration, which must have a source of this name."""
    loaded = load(path)
    if name not in {source.name for source in loaded.sources}:
        names = ", ".join(source.name for source in loaded.sources)
        raise UsageError(f"the configuration has no source {name!r}; there are {names or 'none'}")
    return loaded


def accept(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source.")],
    config: ConfigPath = None,
    deletions: Annotated[
        bool, typer.Option("--deletions", help="Archive all that the last pass found gone, however much it is.")
    ] = False,
) -> None:
    """Accept that a known source now points at another store, whose ledger then goes on; or its deletions."""
    from pipeline.app import App

    loaded = _naming(name, config)
    with App.open(loaded, accept=frozenset() if deletions else frozenset({name})) as app:
        feed = app.feeds[name]
        if deletions:
            app.ledger.accept_deletions(feed.source_id)
            output.note(f"the next pass of {name} archives what it finds gone")
        else:
            output.note(f"{name} is now {feed.store.identity()}")
