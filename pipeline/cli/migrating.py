"""The verb that takes an embedded installation along to a server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from pipeline import registry
from pipeline.cli import output
from pipeline.cli.options import SQLITE, Json
from pipeline.errors import UsageError


def add(app: typer.Typer) -> None:
    """Register this family's verbs."""
    app.command()(migrate)


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The SQLite file: sqlite:///labelfeed.db.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty PostgreSQL database: postgresql://…")],
    json: Json = False,
) -> None:
    """Take ledger and tasks from SQLite along to PostgreSQL: all of it or, after any error, nothing.

    Stop what runs on the file first. Then name the new database in the configuration; `labelfeed verify` holds what was
    moved against the stores, and nothing that was imported is imported again.
    """
    if not source.startswith(SQLITE) or registry.scheme(target) != "postgresql":
        raise UsageError("write it as: labelfeed migrate sqlite:///labelfeed.db postgresql://user@host/database")
    file = Path(source.removeprefix(SQLITE))
    if not file.is_file():
        raise UsageError(f"there is no {file}")
    from pipeline.sqlitefile import SqliteFile

    with closing(SqliteFile(file)) as opened:
        registry.load("sinks", "sqlite")(opened).migrate()
    with closing(registry.load("sinks", "postgresql")(target)) as ledger:
        ledger.migrate()
    from pipeline.sinks.postgres.moving import move

    moved: dict[str, int] = {}

    def told(table: str, rows: int) -> None:
        moved[table] = rows
        if not json:
            output.note(f"{table}: {rows:,} rows")

    move(file, target, told)
    if json:
        output.as_json(moved)
    else:
        output.note("everything was moved; name the new database in the configuration, then: labelfeed verify")
