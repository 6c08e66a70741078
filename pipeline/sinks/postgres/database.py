"""Transactions on PostgreSQL: short ones, tried again from their start where the server asks for that."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from pipeline.errors import DataRefused, LabelfeedError, UnavailableError, UsageError
from pipeline.sinks.postgres.connection import (
    CONNECT_SECONDS,
    KEEPALIVES,
    SILENT_SECONDS,
    STATEMENT_SECONDS,
    Connection,
    Outage,
)

T = TypeVar("T")
Job = Callable[["Transaction"], T]
Row = tuple[Any, ...]

CONNECTIONS = 10
"""Most connections of a process beside those of its worker threads."""
WORKERS_CONNECTIONS = 2
"""A worker thread commits while its stager writes a piece of a large file."""
CONNECTIONS_LIMIT = 64
"""Most in one process, of the hundred that a server has by default: what has none waits for one."""
PATIENCE_SECONDS = 10.0
"""How long one transaction is tried again before its caller is told."""
LONGEST_PAUSE_SECONDS = 0.25
SHARDS = 8
"""Rows that one counter is spread over, so that commits do not wait for one another."""

# To compile a statement (JIT) takes longer than any of ours.
_SETTINGS = (
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL lock_timeout = '2s';"
    " SET LOCAL idle_in_transaction_session_timeout = '15s'; SET LOCAL jit = off;"
)
# Rows are looked up by lists of numbers, which the planner may take for much longer ones: then it would read a
# whole index to join it. While a table grows it also takes it for much smaller than it is: then it would read all of
# it for each commit. Each transaction sets this for itself, because a pooler shares sessions. For the same reason
# lists are joined by `id = ANY(ARRAY[u.id])`, which can be nothing but a look into the index for each of them: with
# `id = u.id` it walked over the whole index and, for each row that it found there, over the list.
LOOKING_UP = (
    " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;"
    " SET LOCAL enable_seqscan = off; SET LOCAL enable_material = off;"
)
_BEGIN = (
    f"BEGIN; {_SETTINGS}{LOOKING_UP} SELECT pg_current_xact_id()::text, extract(epoch FROM clock_timestamp())::float8"
)
_BEGIN_READ = f"BEGIN READ ONLY; {_SETTINGS}"
_READ_AT = " SELECT NULL, extract(epoch FROM clock_timestamp())::float8"


class Transaction:
    """One transaction. `at` is the database's clock at its beginning, in seconds since 1970."""

    def __init__(self, connection: psycopg.Connection[Row], at: float) -> None:
        self.connection = connection
        self.at = at
        self.counts: Counter[tuple[int, str]] = Counter()

    def execute(
        self, statement: str, values: Sequence[object] | dict[str, object] | None = None
    ) -> psycopg.Cursor[Row]:
        """Run one statement."""
        return self.connection.execute(statement, values)

    def rows(self, statement: str, values: Sequence[object] | None = None) -> list[Row]:
        """What a statement gives; in PostgreSQL's binary formats, which cost a quarter less where rows are many."""
        return self.connection.execute(statement, values, binary=True).fetchall()

    def dicts(self, statement: str, values: Sequence[object] | None = None) -> list[dict[str, Any]]:
        """What a statement gives, by the columns' names."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()

    def copy(self, table: str, columns: str, lines: bytes) -> None:
        """COPY lines in the text format."""
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            copy.write(lines)

    def count(self, source_id: int, name: str, n: int) -> None:
        """Move a counter; it is written last, so that its row is locked for no longer than the commit takes."""
        self.counts[source_id, name] += n

    def finish(self) -> None:
        """Write what is left to be written."""
        moved = sorted((source_id, name, n) for (source_id, name), n in self.counts.items() if n)
        if moved:
            self.execute(
                "INSERT INTO counters (source_id, name, shard, n, at) SELECT u.source_id, u.name, %s, u.n,"
                " clock_timestamp()"
                " FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS u (source_id, name, n)"
                " ON CONFLICT (source_id, name, shard) DO UPDATE SET n = counters.n + excluded.n, at = excluded.at",
                (random.randrange(SHARDS), *columns(moved, 3)),  # noqa: S311 - spreads load, guards nothing
            )


def connections_for(workers: int) -> int:
    """Most connections of a process with so many worker threads."""
    return min(CONNECTIONS + WORKERS_CONNECTIONS * workers, CONNECTIONS_LIMIT)


class Database:
    """A pool of connections and how work is done on them; one that is silent for `silence` seconds in a transaction
    is lost. Thread-safe."""

    def __init__(self, url: str, connections: int = CONNECTIONS, silence: float = SILENT_SECONDS) -> None:
        self._url = url
        self._silence = silence
        self._outage = Outage(url)
        # The roles say once that the server does not answer; the pool would say it at every try.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._pool = ConnectionPool(
            url,
            connection_class=Connection,
            configure=self._made,
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,
                "connect_timeout": int(CONNECT_SECONDS),
                **KEEPALIVES,
            },
            min_size=0,
            max_size=connections,
            open=False,
            num_workers=1,
            reconnect_timeout=CONNECT_SECONDS,
        )
        self._pool.open()

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.close()

    def write(self, job: Job[T]) -> T:
        """Run a job in a transaction, again from its start after a conflict or a lost connection.

        Raises:
            UnavailableError: the server does not answer, or others hold locks for too long. Nothing was written,
                unless the server went away in the commit itself and did not come back in time to tell.
            DataRefused: the server refuses the job's data.
        """
        return self._patiently(lambda: self._write(job))

    def read(self, job: Job[T], settings: str = "") -> T:
        """Run a job that only reads, with statements before it that set up its transaction. Raises UnavailableError."""

        def once() -> T:
            with self._connection() as connection:
                _, at = _begin(connection, _BEGIN_READ + settings + _READ_AT)
                result = job(Transaction(connection, at))
                connection.execute("COMMIT")
                return result

        return self._patiently(once)

    def apart(self, job: Callable[[psycopg.Connection[Row], psycopg.Connection[Row]], None]) -> None:
        """Run a job that can be in no transaction of ours: on two connections, whose statements are committed one by
        one unless it begins a transaction itself, and may take any time. Again from its start after a conflict or a
        lost connection.

        Raises as `write`.
        """

        def once() -> None:
            with self._connection(lasting=True) as one, self._connection(lasting=True) as other:
                job(one, other)

        self._patiently(once)

    def _patiently(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = 0.01
        while True:
            try:
                return once()
            except psycopg.Error as error:
                if not _passing(error) or time.monotonic() > deadline:
                    raise translated(error) from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise DataRefused(f"the database refuses the data: {error}") from error
            time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load, guards nothing
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _write(self, job: Job[T]) -> T:
        with self._connection() as connection:
            number, at = _begin(connection, _BEGIN)
            transaction = Transaction(connection, at)
            result = job(transaction)
            transaction.finish()
            try:
                connection.execute("COMMIT")
            except psycopg.OperationalError as error:
                if not connection.broken:
                    raise
                lost = error
            else:
                return result
        # Nobody has said whether it was committed. The server knows, by the transaction's number.
        if not self._committed(number):
            raise lost
        return result

    def _committed(self, number: str) -> bool:
        """Whether a transaction that nobody has heard the end of was committed. Raises UnavailableError.

        No as well where the server cannot tell: a number in its future is of a transaction that it lost, as a replica
        that took over too early does, and of one that it has forgotten it knows nothing. Both are done again, and what
        is there already is not done twice.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self._connection() as connection:
                    row = connection.execute("SELECT pg_xact_status(%s::xid8)", (number,)).fetchone()
                if row is None or row[0] != "in progress":
                    return row is not None and row[0] == "committed"
            except errors.InvalidParameterValue:
                return False
            except (psycopg.OperationalError, UnavailableError) as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"the database went away in a commit: {error}") from error
            time.sleep(LONGEST_PAUSE_SECONDS)

    @contextmanager
    def _connection(self, *, lasting: bool = False) -> Iterator[Connection]:
        """A connection for the block alone. `lasting`: one of its statements may take any time."""
        connection = self._taken()
        connection.silence = None if lasting else self._silence
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _made(self, connection: Connection) -> None:
        connection.outage, connection.made = self._outage, time.monotonic()

    def _taken(self) -> Connection:
        while True:
            try:
                connection = self._pool.getconn(timeout=CONNECT_SECONDS)
            except PoolTimeout as error:
                raise self._cause(error) from error
            if connection.made > self._outage.at:
                return connection
            # Whatever lets nobody in may have forgotten this one, too.
            connection.close()
            self._pool.putconn(connection)

    def _give_back(self, connection: Connection) -> None:
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        self._pool.putconn(connection)

    def _cause(self, error: PoolTimeout) -> LabelfeedError:
        """Why there is no connection: the pool knows only that there is none."""
        try:
            psycopg.connect(self._url, connect_timeout=int(CONNECT_SECONDS)).close()
        except psycopg.OperationalError as cause:
            text = " ".join(str(cause).split())
            if any(sign in text for sign in ("authentication failed", "does not exist", "no password supplied")):
                return UsageError(f"the database cannot be used: {text}")
            return UnavailableError(f"the database does not answer: {text}")
        return UnavailableError(f"no connection to the database was free: {error}")


def _begin(connection: psycopg.Connection[Row], statements: str) -> tuple[str, float]:
    cursor = connection.execute(statements)
    while cursor.nextset():
        pass
    ((number, at),) = cursor.fetchall()
    return number, at


class Conflict(psycopg.Error):
    """What a transaction has read was changed by another before it wrote: it must begin again."""


_ENDED = {"25P03", "25P04", "53300"}
"""A transaction that idled or lasted for too long, which ends its connection, and a server with no connection left."""
_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable, Conflict)


def _passing(error: psycopg.Error) -> bool:
    """Whether the same transaction may succeed at once."""
    return isinstance(error, _CONFLICTS) or _disconnected(error)


def _disconnected(error: psycopg.Error) -> bool:
    """Whether the connection is lost, or was refused for now, by the server's own word where it gave one."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith(("08", "57P")) or state in _ENDED


def translated(error: psycopg.Error) -> Exception:
    """PostgreSQL's error as ours; any other as it is."""
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError | errors.ProgramLimitExceeded):
        return DataRefused(f"the database refuses the data: {text}")
    if isinstance(error, _CONFLICTS):
        return UnavailableError(f"others hold the database's rows for too long: {text}", code="locked")
    if isinstance(error, errors.DiskFull):
        return UnavailableError(f"the disk of the database is full: {text}", code="disk_full")
    if isinstance(error, psycopg.OperationalError | errors.ReadOnlySqlTransaction) or _disconnected(error):
        return UnavailableError(f"the database does not answer: {text}")
    return error


def columns(rows: Sequence[Sequence[object]], width: int) -> list[str]:
    """Rows as one array a column, as `unnest` takes them."""
    return [array(column) for column in zip(*rows, strict=True)] if rows else ["{}"] * width


def array(values: Iterable[object]) -> str:
    """An array in PostgreSQL's own text form: many times quicker to make than by the driver's adapters."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
