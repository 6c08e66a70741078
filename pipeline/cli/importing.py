"""The verb for what is at hand: import. It makes a configuration in memory and runs it once."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from pipeline import logs
from pipeline.cli import output
from pipeline.cli.options import SQLITE, ConfigPath, Json
from pipeline.cli.places import objects
from pipeline.cli.planning import plans, print_plans
from pipeline.cli.running import ONCE_LEVEL, again, finish
from pipeline.config import DEFAULT_NAME, Config, build, load
from pipeline.errors import UsageError
from pipeline.ledger import Filter
from pipeline.registry import load as load_component
from pipeline.registry import scheme
from pipeline.stores.named import NamedFiles, url_of

STDIN = "-"
UPLOADS = "uploads"
"""The folder beside the database where standard input is kept, by the hash of its content."""
PREFIX = "import."
"""What the names of sources made here begin with."""
COPY_BYTES = 1024 * 1024
DEFAULT_DATABASE = "sqlite:///labelfeed.db"
WEB = frozenset({"http", "https"})
FOREVER = 10 * 365 * 86400
"""Sources made here are listed once; their `poll` must be something."""


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command("import")(import_)


def import_(
    places: Annotated[list[str], typer.Argument(metavar="PATH|URL", help="Files, folders, globs, URLs, or - .")],
    project: Annotated[str, typer.Option("--project", "-p", help="The project that the tasks go into.")],
    label_config: Annotated[str | None, typer.Option("--label-config", help="Its labelling configuration.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="Where the tasks go, as in labelfeed.yaml.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["json", "csv", "tsv", "txt", "html", "parquet", "arrow", "files"] | None,
        typer.Option("--format", help="The form of all files; without it each one's extension decides."),
    ] = None,
    on_bad_row: Annotated[
        Literal["reject", "fail"], typer.Option("--on-bad-row", help="What a bad row does.")
    ] = "reject",
    max_bad_rows: Annotated[
        str | None,
        typer.Option("--max-bad-rows", help="How many bad rows a file may have: a number, or a share like 5%."),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let http(s) URLs lead to private and loopback addresses.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be imported; write nothing.")] = False,
    config: ConfigPath = None,
    json: Json = False,
) -> None:
    """Import files, folders, globs, URLs or standard input (-) directly, without a configuration file.

    Importing a file twice imports it once. With a labelfeed.yaml its database, project and limits are used.
    """
    base = _base(config) if database is None else None
    target = database or (base.database if base is not None else DEFAULT_DATABASE)
    folder = base.folder if base is not None else Path.cwd()
    with TemporaryDirectory(prefix="labelfeed-") as scratch:
        uploads = Path(scratch) if dry_run else _beside(folder, target)
        sources = list(_sources(places, project, uploads, format))
        for source in sources:
            source |= {"format": format, "on_bad_row": on_bad_row, "max_bad_rows": max_bad_rows}
            source |= {"minify": True, "allow_private": allow_private}
            source |= {"settle": 0, "watch": False, "poll": FOREVER, "overlap": True}
        projects = {project: _project(base, project, label_config)}
        limits = base.limits.model_dump(by_alias=True) if base is not None else {}
        made = build({"database": target, "projects": projects, "sources": sources, "limits": limits}, folder)
        if dry_run:
            print_plans(plans(made, []), json=json)
            return
    _run(made, json=json, again=again(config) if base is not None else f" --database {_shown(target)}")


def _shown(database: str) -> str:
    """What may be printed of a database's URL: a password may stand in one of a server."""
    return database if database.startswith(SQLITE) else "URL"


def _run(made: Config, *, json: bool, again: str) -> None:
    from pipeline.app import App

    logs.set_up(level=ONCE_LEVEL)
    with App.open(made, direct=True) as app:
        reports = app.ledger.reports()
        for name, feed in app.feeds.items():
            named = feed.store.named if isinstance(feed.store, NamedFiles) else _every
            if isinstance(feed.store, NamedFiles) or scheme(feed.source.url) in WEB:
                failed = objects(reports, Filter(name, "failed"))
                # Who names a file that failed wants it tried again: with another configuration, say.
                reports.retry([row["id"] for row in failed if named(row["key"])], force=False)
        finish(app, json=json, again=again)


def _every(_key: str) -> bool:
    """Whether an object of a URL was named: that is all there is of its source."""
    return True


def _base(config: Path | None) -> Config | None:
    if config is not None or Path(DEFAULT_NAME).exists():
        return load(config)
    return None


def _project(base: Config | None, name: str, label_config: str | None) -> dict[str, Any]:
    known = base.projects.get(name) if base is not None else None
    values = known.model_dump(by_alias=True) if known is not None else {}
    if label_config is not None:
        values["label_config"] = (
            label_config if label_config.lstrip().startswith("<") else str(Path(label_config).absolute())
        )
    return values


# --- sources -----------------------------------------------------------------------------------------------


def _sources(places: Sequence[str], project: str, uploads: Path, form: str | None) -> Iterator[dict[str, Any]]:
    paths: list[Path] = []
    for place in dict.fromkeys(places):
        if place == STDIN:
            paths.append(_upload(uploads, form))
        elif scheme(place) == "file":
            paths.extend(_paths(place))
        elif scheme(place) in WEB:
            yield _on_the_web(place, project, form)
        else:
            yield {"name": _name(project, place), "project": project, "url": place}
    if paths:
        yield {"name": _name(project, ""), "project": project, "url": url_of(paths)}


def _on_the_web(place: str, project: str, form: str | None) -> dict[str, Any]:
    """The source of an http(s) URL. A text file is one of tasks here, not a list of URLs."""
    load_component("stores", scheme(place))
    from pipeline.stores.http.urls import canonical

    try:
        shown = canonical(place)
    except ValueError as error:
        raise UsageError(f"a URL cannot be imported: {error}") from None
    source = {"name": _name(project, shown), "project": project, "url": place}
    text = form is None and urlsplit(place).path.endswith(".txt")
    return source | ({"as": "tasks"} if text else {})


def _name(project: str, place: str) -> str:
    """A source's name that is always the same for the same project and place, and no other's."""
    word = re.sub(r"[^A-Za-z0-9._-]", "-", project)[:32]
    if place or word != project:
        word += "." + hashlib.blake2b(f"{project}\0{place}".encode(), digest_size=4).hexdigest()
    return PREFIX + word


def _paths(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.exists():
        return [path.resolve()]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - takes absolute ones too
    if not found:
        raise UsageError(f"there is no {place}")
    return [Path(item).resolve() for item in found]


def _beside(folder: Path, database: str) -> Path:
    """The folder for uploads: beside the database if that is a file, else beside the configuration."""
    if database.startswith(SQLITE):
        folder = (folder / database.removeprefix(SQLITE)).parent
    return folder / UPLOADS


def _upload(uploads: Path, form: str | None) -> Path:
    """Keep standard input in a file that its content names, so that the same input is the same object."""
    uploads = uploads.resolve()
    uploads.mkdir(parents=True, exist_ok=True)
    unfinished = uploads / f".{os.getpid()}.part"
    digest = hashlib.blake2b(digest_size=16)
    try:
        with unfinished.open("wb") as file:
            while piece := sys.stdin.buffer.read(COPY_BYTES):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        kept = uploads / (digest.hexdigest() + (f".{form}" if form and form != "files" else ""))
        if kept.exists():
            output.note("standard input was imported before")
        else:
            unfinished.rename(kept)
    finally:
        unfinished.unlink(missing_ok=True)
    return kept
