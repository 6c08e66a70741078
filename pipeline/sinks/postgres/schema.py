"""Set-up of the PostgreSQL database: numbered migrations, and the configuration's projects and sources.

A migration only adds, so that roles of two versions can work at once; what it makes useless is removed a
version later. It waits at most `lock_timeout` for a table, because all that reads the table queues behind it. An index
of a table of an earlier one is a migration by itself, `CREATE INDEX CONCURRENTLY`, and is built while others write.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import psycopg

from pipeline import logs
from pipeline.errors import NewerSchema, UnavailableError, UsageError
from pipeline.ledger import SourceIdentity, SourceRow
from pipeline.sinks.postgres.database import Row, Transaction
from pipeline.sinks.postgres.queues import forget
from pipeline.sinks.postgres.standings import forgive

_FOLDER = files("pipeline.sinks.schema").joinpath("postgres")

MIGRATING = 1_279_345_990
"""The advisory lock of migrations, beside a hash of the schema's name ..."""
BUILDING = 1_279_345_992
"""... and the one of building an index, which may take long: who only registers sources does not wait for that."""

_CONCURRENTLY = " CONCURRENTLY"
_INDEX = re.compile(rf"^CREATE INDEX{_CONCURRENTLY} (\w+) ON ", re.MULTILINE)
_log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The migration of a `version` that is an index of a table in use, by its `name` and the `statement`."""

    version: int
    name: str
    statement: str


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


def migrate(tx: Transaction) -> Index | None:
    """Apply the migrations that the database has not had yet; one process at a time, all in one transaction. Stops
    before an index that must be built outside of it, and gives that. In a new database, nobody writes yet."""
    tx.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))", (MIGRATING,))
    found = version(tx)
    if check(found):
        return None
    if not found:
        tx.execute("CREATE TABLE labelfeed_schema (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())")
    for number, script in sorted(_scripts().items()):
        if number <= found:
            continue
        index = _INDEX.search(script)
        if index is not None and found:
            return Index(number, index[1], script)
        tx.execute(script.replace(_CONCURRENTLY, ""))
        tx.execute("INSERT INTO labelfeed_schema (version) VALUES (%s)", (number,))
    return None


def build(holding: psycopg.Connection[Row], connection: psycopg.Connection[Row], index: Index) -> None:
    """Build an index on one connection, while a transaction of the other one holds a lock that keeps others from it.
    What a process that died in the middle left of it goes first.

    Raises:
        UnavailableError: another process builds it, or the server still does for one that is gone.
    """
    # A snapshot that lasts as long as the transaction would be waited for: so the isolation, and no parameters.
    holding.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 0")
    locked = holding.execute(f"SELECT pg_try_advisory_xact_lock({BUILDING}, hashtext(current_schema()))")
    found = connection.execute(
        "SELECT i.indisvalid, EXISTS (SELECT 1 FROM pg_stat_progress_create_index AS b"
        " WHERE b.index_relid = i.indexrelid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
        (index.name,),
    ).fetchone()
    valid, building = found or (None, False)
    if locked.fetchone() != (True,) or (building and not valid):
        why = f"another process builds the index {index.name}; roles of this version go on when it is there"
        raise UnavailableError(why, code="locked")
    if valid is False:
        connection.execute(f"DROP INDEX{_CONCURRENTLY} {index.name}")
    if not valid:
        _log.info(logs.INDEX_BUILDING, extra={"index": index.name, "version": index.version})
        connection.execute(index.statement)
    # By whoever holds the lock still: another one, which got it meanwhile, may have dropped what was built here.
    holding.execute("INSERT INTO labelfeed_schema (version) VALUES (%s) ON CONFLICT DO NOTHING", (index.version,))
    holding.execute("COMMIT")


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
