"""The one SQLite file of the embedded setting: a writer thread, and a reading connection a thread.

SQLite has one writer at a time and no queue for it, so all writing of a process goes through one thread
that takes jobs from a queue. Jobs that wait together share one transaction (each in a savepoint of its
own), so that they share its fsync; the transaction ends after `TRANSACTION_SECONDS` at the latest.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import DataRefused, UnavailableError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

TRANSACTION_SECONDS = 0.25
"""A transaction takes no further job once it is this old, so that other processes get their turn."""
BUSY_SECONDS = 30.0
"""How long another process's transaction is waited for before the caller is told."""
BUSY_PAUSE_SECONDS = 0.01
PAGE_BYTES = 8192
"""Of a file that is made new. Tasks of about 2 KB lie three in a page, and not one in one of 4,096: the file was a
tenth smaller, and commits wrote a quarter less."""
CACHE_KIB = 32_768
READER_CACHE_KIB = 4_096
"""Readers go through the file in order, and there may be one for each thread."""
CHECKPOINT_PAGES = 4_000
WAL_LIMIT_BYTES = 64 * 1024 * 1024
ROWS_A_STATEMENT = 512


class _Taken(NamedTuple):
    """A job that the writer was given; `lasting` as in `SqliteFile.write`."""

    job: Job[Any]
    future: Future[Any]
    lasting: bool


class SqliteFile:
    """A database file, opened for writing by one thread and for reading by any. Thread-safe."""

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        self.path = Path(path)
        self._readonly = readonly
        self._jobs: SimpleQueue[_Taken | None] = SimpleQueue()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._lasting = True
        if not readonly:
            self._writer = self._connect()
            self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
            self._thread.start()

    def write(self, job: Job[T], *, lasting: bool = True) -> T:
        """Run a job in the writer thread inside BEGIN IMMEDIATE; returns when it is durable.

        What is not `lasting` may be undone by a power cut, though by nothing less: it is synced together with the next
        job that is. That is for what means nothing without something written later, as a claim without its commit.

        Raises:
            UnavailableError: the file is locked for too long, the disk is full or fails; nothing was written.
            DataRefused: SQLite refuses the job's data.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed or self._readonly:
                raise UnavailableError(f"{self.path.name} is not open for writing", code="closed")
            self._jobs.put(_Taken(job, future, lasting))
        return future.result()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """This thread's reading connection; statements see what is committed.

        Raises:
            UnavailableError: as `write`.
        """
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect(query_only=True)
            with self._lock:
                if self._closed:
                    connection.close()
                    raise UnavailableError(f"{self.path.name} is closed", code="closed")
                self._readers.append(connection)
            self._local.connection = connection
        try:
            yield connection
        except sqlite3.Error as error:
            raise translated(error) from error

    def close(self) -> None:
        """Finish the jobs taken on, then close the file."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            readers = list(self._readers)
        if not self._readonly:
            self._jobs.put(None)
            self._thread.join()
        for connection in readers:
            connection.close()

    def _connect(self, *, query_only: bool = False) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            _into_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB if query_only else CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute("PRAGMA temp_store=MEMORY")
            if query_only:
                connection.execute("PRAGMA query_only=ON")
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"{self.path} cannot be opened: {error}", code="database") from error
        return connection

    def _work(self) -> None:
        taken = self._jobs.get()
        while taken is not None:
            waiting = self._transaction(taken)
            taken = self._jobs.get() if waiting is _NOBODY else waiting
        self._writer.close()

    def _transaction(self, first: _Taken) -> _Taken | None:
        """Run `first` and what waits behind it in one transaction; gives who must wait for the next one, or None when
        told to close. Who has to be synced does not join those who need not be."""
        batch = _Batch(self._writer)
        running: _Taken | None = first
        waiting: _Taken | None = _NOBODY
        try:
            self._sync(lasting=first.lasting)
            self._writer.execute("BEGIN IMMEDIATE")
            deadline = time.monotonic() + TRANSACTION_SECONDS
            alone = self._jobs.empty()
            while running is not None:
                batch.run(running, alone=alone)
                alone = False
                running, waiting = None, self._next() if time.monotonic() < deadline else _NOBODY
                if waiting is not None and waiting is not _NOBODY and waiting.lasting <= first.lasting:
                    running, waiting = waiting, _NOBODY
            self._writer.execute("COMMIT")
        except _Undone:
            self._undo()
        except sqlite3.Error as error:
            if running is not None:
                batch.add(running.future)
            batch.fail(translated(error))
            self._undo()
        batch.answer()
        return waiting

    def _next(self) -> _Taken | None:
        try:
            return self._jobs.get_nowait()
        except Empty:
            return _NOBODY

    def _sync(self, *, lasting: bool) -> None:
        """FULL: an acknowledged commit survives a power cut; what it stands for may be deleted elsewhere."""
        if lasting is not self._lasting:
            self._writer.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            self._lasting = lasting

    def _undo(self) -> None:
        """Leave no transaction open, whatever it takes: the next one must be able to begin."""
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer.close()
            self._lasting = True
            with suppress(UnavailableError):  # a closed writer tells each later job so
                self._writer = self._connect()


def _nobodys(_: sqlite3.Connection) -> None:
    """Is never run."""


_NOBODY = _Taken(_nobodys, Future(), lasting=False)
"""Stands for no job, where None stands for the end of all."""


class _Undone(Exception):
    """The only job of a transaction has failed."""


class _Batch:
    """The jobs of one transaction, and what to answer when it has ended."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._answers: dict[Future[Any], tuple[Any, BaseException | None]] = {}

    def run(self, taken: _Taken, *, alone: bool) -> None:
        """Run a job in a savepoint of its own, so that its failure is its own. One that is `alone` in the transaction
        needs none: if it fails, _Undone is raised, and there is nothing to keep."""
        execute = self._connection.execute
        if not alone:
            execute("SAVEPOINT job")
        try:
            answer: tuple[Any, BaseException | None] = (taken.job(self._connection), None)
        except BaseException as error:
            # Some errors (a full disk) end the whole transaction, and then everybody in it must be told.
            if not self._connection.in_transaction:
                raise
            answer = (None, translated(error))
            if alone:
                self._answers[taken.future] = answer
                raise _Undone from error
            execute("ROLLBACK TO job")
        if not alone:
            execute("RELEASE job")
        self._answers[taken.future] = answer

    def add(self, future: Future[Any]) -> None:
        """Take in a job that has not come to its end."""
        self._answers[future] = (None, None)

    def fail(self, error: BaseException) -> None:
        """Nothing of this transaction was written: that is the answer to every job."""
        self._answers = dict.fromkeys(self._answers, (None, error))

    def answer(self) -> None:
        """Tell the callers."""
        for future, (result, error) in self._answers.items():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def write_rows(connection: sqlite3.Connection, statement: str, row: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a statement, in which `{rows}` stands for a list like `row` (`(?, ?, 'ready')`), over many rows.

    Each run takes up to ROWS_A_STATEMENT rows at once. The interpreter's lock is given up once a run and not
    once a row, as `executemany` does, so that other threads work while SQLite does: with one busy thread
    beside it, a row took 31 µs instead of 86. A statement of a length not seen of late is prepared anew, which
    takes less than another hand-over.
    """
    at, length = 0, ROWS_A_STATEMENT
    while at < len(rows):
        length = min(length, len(rows) - at)
        values = tuple(chain.from_iterable(rows[at : at + length]))
        connection.execute(_with_rows(statement, row, length), values)
        at += length


@lru_cache(maxsize=256)
def _with_rows(statement: str, row: str, length: int) -> str:
    return statement.format(rows=",".join([row] * length))


def _into_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to its write-ahead log. SQLite does not wait for others there, so it is done here."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _name(error) != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_SECONDS)
        else:
            return


_REFUSED = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, UnicodeEncodeError, OverflowError)
_UNAVAILABLE = {
    "SQLITE_FULL": ("disk_full", "the disk of the database is full"),
    "SQLITE_BUSY": ("locked", "the database is locked by another process"),
    "SQLITE_LOCKED": ("locked", "the database is locked by another process"),
    "SQLITE_IOERR": ("database", "the database's disk does not answer"),
    "SQLITE_CANTOPEN": ("database", "the database's disk does not answer"),
    "SQLITE_READONLY": ("database", "the database cannot be written"),
    "SQLITE_CORRUPT": ("database", "the database file is damaged"),
    "SQLITE_NOTADB": ("database", "the file is no database"),
}
"""The first two words of SQLite's name of an error → our code, and what to say."""


def translated(error: BaseException) -> BaseException:
    """SQLite's error as ours; any other as it is."""
    if isinstance(error, _REFUSED):
        return DataRefused(f"the database refuses the data: {error}")
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error):
        return UnavailableError("the database file is closed", code="closed")
    if isinstance(error, sqlite3.Error) and (known := _UNAVAILABLE.get(_name(error))):
        code, message = known
        return UnavailableError(f"{message}: {error}", code=code)
    return error


def _name(error: sqlite3.Error) -> str:
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


def now() -> float:
    """The clock that decides in the embedded setting: this machine's, in seconds since 1970."""
    return time.time()


def uptime() -> float:
    """Seconds since this machine started; unlike the time of day it is never set back or forward."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """A name of this machine's present boot: `uptime` of another boot says nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
