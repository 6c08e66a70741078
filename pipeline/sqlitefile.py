"""The one SQLite file of the embedded setting: a writer thread, and a reading connection a thread.

SQLite has one writer at a time and no queue for it, so all writing of a process goes through one thread
that takes jobs from a queue. Jobs that wait together share one transaction (each in a savepoint of its
own), so that they share its fsync; the transaction ends after `TRANSACTION_SECONDS` at the latest.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pipeline.errors import DataRefused, LabelfeedError, UnavailableError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

TRANSACTION_SECONDS = 0.25
"""A transaction takes no further job once it is this old, so that other processes get their turn."""
BUSY_SECONDS = 30.0
"""How long another process's transaction is waited for before the caller is told."""
CACHE_KIB = 32_768
CHECKPOINT_PAGES = 4_000
WAL_LIMIT_BYTES = 64 * 1024 * 1024


class SqliteFile:
    """A database file, opened for writing by one thread and for reading by any. Thread-safe."""

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        self.path = Path(path)
        self._readonly = readonly
        self._jobs: SimpleQueue[tuple[Job[Any], Future[Any]] | None] = SimpleQueue()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        if not readonly:
            self._writer = self._connect()
            self._thread = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
            self._thread.start()

    def write(self, job: Job[T]) -> T:
        """Run a job in the writer thread inside BEGIN IMMEDIATE; returns when it is durable.

        Raises:
            UnavailableError: the file is locked for too long, the disk is full or fails; nothing was written.
            DataRefused: SQLite refuses the job's data.
        """
        if self._closed or self._readonly:
            raise UnavailableError(f"{self.path.name} is not open for writing", code="closed")
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future.result()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """This thread's reading connection; statements see what is committed.

        Raises:
            UnavailableError: as `write`.
        """
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect(query_only=True)
            with self._lock:
                self._readers.append(connection)
        try:
            yield connection
        except sqlite3.Error as error:
            raise translated(error) from error

    def close(self) -> None:
        """Finish the jobs taken on, then close the file."""
        if self._closed:
            return
        self._closed = True
        if not self._readonly:
            self._jobs.put(None)
            self._thread.join()
        with self._lock:
            for connection in self._readers:
                connection.close()

    def _connect(self, *, query_only: bool = False) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            connection.execute("PRAGMA journal_mode=WAL")
            # FULL: an acknowledged commit survives a power cut; what it stands for may be deleted elsewhere.
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute("PRAGMA temp_store=MEMORY")
            if query_only:
                connection.execute("PRAGMA query_only=ON")
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(f"{self.path} cannot be opened: {error}", code="database") from error
        return connection

    def _work(self) -> None:
        while (taken := self._jobs.get()) is not None:
            if not self._transaction(taken):
                break
        self._writer.close()

    def _transaction(self, first: tuple[Job[Any], Future[Any]]) -> bool:
        """Run `first` and what waits behind it in one transaction; False when told to close."""
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        taken: tuple[Job[Any], Future[Any]] | None = first
        going = True
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            deadline = time.monotonic() + TRANSACTION_SECONDS
            while taken is not None:
                job, future = taken
                done.append((future, *self._savepoint(job)))
                taken = None
                if time.monotonic() < deadline:
                    try:
                        taken = self._jobs.get_nowait()
                    except Empty:
                        break
                    going = taken is not None
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            failure = translated(error)
            answered = {id(future) for future, _, _ in done}
            done = [(future, None, failure) for future, _, _ in done]
            if taken is not None and id(taken[1]) not in answered:
                done.append((taken[1], None, failure))
        for future, result, problem in done:
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(result)
        return going

    def _savepoint(self, job: Job[Any]) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT job")
        try:
            result = job(self._writer)
        except BaseException as error:  # noqa: BLE001 - a job's own error belongs to its caller, whatever it is
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._writer.execute("ROLLBACK TO job")
            self._writer.execute("RELEASE job")
            return None, translated(error)
        self._writer.execute("RELEASE job")
        return result, None


_REFUSED = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    UnicodeEncodeError,
    OverflowError,
)


def translated(error: BaseException) -> BaseException:
    """SQLite's error as ours; any other as it is."""
    if isinstance(error, LabelfeedError):
        return error
    if isinstance(error, _REFUSED):
        return DataRefused(f"the database refuses the data: {error}")
    if isinstance(error, sqlite3.OperationalError):
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            return UnavailableError(f"the disk of the database is full: {error}", code="disk_full")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return UnavailableError(f"the database is locked by another process: {error}", code="locked")
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return UnavailableError(f"the database's disk does not answer: {error}", code="database")
    return error


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
