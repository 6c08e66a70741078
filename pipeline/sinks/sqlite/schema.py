"""Set-up of the SQLite database: numbered migrations, and the configuration's projects and sources."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from importlib.resources import files

from pipeline.errors import NewerSchema, UsageError
from pipeline.ledger import SourceIdentity, SourceRow
from pipeline.sinks.sqlite.queues import forget
from pipeline.sinks.sqlite.standings import forgive

_FOLDER = files("pipeline.sinks.schema").joinpath("sqlite")


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the migrations that the file has not had yet; all in the caller's transaction.

    Raises:
        NewerSchema: a newer program has written this file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    scripts = {int(script.name[:4]): script.read_text() for script in _FOLDER.iterdir() if script.name.endswith(".sql")}
    newest = max(scripts)
    if version > newest:
        raise NewerSchema(f"the database has schema {version}, this program knows {newest}; use the newer program")
    for number in range(version + 1, newest + 1):
        for statement in _statements(scripts[number]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def register(
    connection: sqlite3.Connection, sources: Sequence[SourceIdentity], accept: frozenset[str], *, keep: bool
) -> list[SourceRow]:
    """Make the tables know these sources; others become retired, but with `keep`.

    Raises:
        UsageError: a known name stands for another store now, and `accept` does not name it.
    """
    known = dict(connection.execute("SELECT name, identity FROM sources").fetchall())
    if not keep:
        connection.execute("UPDATE sources SET retired = 1")
    for source in sources:
        if known.get(source.name, source.identity) != source.identity and source.name not in accept:
            raise UsageError(
                f"source {source.name!r} was {known[source.name]} and is now {source.identity}; "
                f"`labelfeed sources accept {source.name}` keeps its ledger for the new place, another name"
                " starts afresh"
            )
        connection.execute("INSERT INTO projects (name) VALUES (?) ON CONFLICT DO NOTHING", (source.project,))
        forgive(connection, source.name, source.shape)
        # What a source that moves brings along was imported before: it must not be paid for again.
        connection.execute(
            "UPDATE projects SET tokens_at = 0 WHERE name = ?2 AND EXISTS"
            " (SELECT 1 FROM sources AS s WHERE s.name = ?1 AND s.project_id <> projects.id)",
            (source.name, source.project),
        )
        forget(connection, source.name, source.identity)
        connection.execute(
            "INSERT INTO sources (name, project_id, identity, uri, shape)"
            " VALUES (?1, (SELECT id FROM projects WHERE name = ?2), ?3, ?4, ?5)"
            " ON CONFLICT (name) DO UPDATE SET project_id = excluded.project_id, identity = excluded.identity,"
            " uri = excluded.uri, shape = excluded.shape, retired = 0",
            (source.name, source.project, source.identity, source.uri, source.shape),
        )
    names = {source.name for source in sources}
    rows = connection.execute(
        "SELECT s.id, s.name, p.name, s.identity FROM sources AS s JOIN projects AS p ON p.id = s.project_id"
    )
    return [SourceRow(*row) for row in rows if row[1] in names]
