"""Set-up of the PostgreSQL database: numbered migrations, and the configuration's projects and sources.

A migration only adds, so that roles of two versions can work at once; what it makes useless is removed a
version later. It waits at most `lock_timeout` for a table, because all that reads the table queues behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from pipeline.errors import NewerSchema, UsageError
from pipeline.ledger import SourceIdentity, SourceRow
from pipeline.sinks.postgres.database import Transaction
from pipeline.sinks.postgres.queues import forget
from pipeline.sinks.postgres.standings import forgive

_FOLDER = files("pipeline.sinks.schema").joinpath("postgres")

MIGRATING = 1_279_345_990
"""The advisory lock of migrations, beside a hash of the schema's name."""


def version(tx: Transaction) -> int:
    """The schema's number, 0 where there is none."""
    # Not to_regclass: it may answer from a session's cache, which has not heard of another's migration yet.
    if not tx.rows("SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'labelfeed_schema'"):
        return 0
    ((number,),) = tx.rows("SELECT coalesce(max(version), 0) FROM labelfeed_schema")
    return int(number)


def check(found: int) -> bool:
    """Whether a schema is this program's.

    Raises:
        NewerSchema: a newer program has set this database up.
    """
    newest = max(_scripts())
    if found > newest:
        raise NewerSchema(f"the database has schema {found}, this program knows {newest}; use the newer program")
    return found == newest


def migrate(tx: Transaction) -> None:
    """Apply the migrations that the database has not had yet; one process at a time, all in one transaction."""
    tx.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))", (MIGRATING,))
    found = version(tx)
    if check(found):
        return
    if not found:
        tx.execute("CREATE TABLE labelfeed_schema (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
    for number, script in sorted(_scripts().items()):
        if number > found:
            tx.execute(script)
            tx.execute("INSERT INTO labelfeed_schema (version) VALUES (%s)", (number,))


def _scripts() -> dict[int, str]:
    return {int(script.name[:4]): script.read_text() for script in _FOLDER.iterdir() if script.name.endswith(".sql")}


def register(
    tx: Transaction, sources: Sequence[SourceIdentity], accept: frozenset[str], *, keep: bool
) -> list[SourceRow]:
    """Make the tables know these sources; others become retired, but with `keep`.

    Raises:
        UsageError: a known name stands for another store now, and `accept` does not name it.
    """
    tx.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))", (MIGRATING,))
    known: dict[str, str] = dict(tx.rows("SELECT name, identity FROM sources"))
    for source in sources:
        if known.get(source.name, source.identity) != source.identity and source.name not in accept:
            raise UsageError(
                f"source {source.name!r} was {known[source.name]} and is now {source.identity};"
                f" `labelfeed sources accept {source.name}` keeps its ledger for the new place,"
                " another name starts afresh"
            )
        tx.execute("INSERT INTO projects (name) VALUES (%s) ON CONFLICT DO NOTHING", (source.project,))
        forgive(tx, source.name, source.shape)
        # What a source that moves brings along was imported before: it must not be paid for again.
        tx.execute(
            "UPDATE projects AS p SET tokens_at = 'epoch' FROM sources AS s"
            " WHERE p.name = %s AND s.name = %s AND s.project_id <> p.id",
            (source.project, source.name),
        )
        forget(tx, source.name, source.identity)
        tx.execute(
            "INSERT INTO sources (name, project_id, identity, uri, shape)"
            " SELECT %s, p.id, %s, %s, %s FROM projects AS p WHERE p.name = %s"
            " ON CONFLICT (name) DO UPDATE SET project_id = excluded.project_id, identity = excluded.identity,"
            " uri = excluded.uri, shape = excluded.shape, retired = false",
            (source.name, source.identity, source.uri, source.shape, source.project),
        )
    names = [source.name for source in sources]
    if not keep:
        tx.execute("UPDATE sources SET retired = true WHERE NOT retired AND name <> ALL(%s)", (names,))
    return [
        SourceRow(*row)
        for row in tx.rows(
            "SELECT s.id, s.name, p.name, s.identity FROM sources AS s JOIN projects AS p ON p.id = s.project_id"
            " WHERE s.name = ANY(%s) ORDER BY s.id",
            (names,),
        )
    ]
