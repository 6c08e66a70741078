"""The one file of the embedded setting: who writes when, and what its callers hear when it cannot be written."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from pipeline.errors import DataRefused, UnavailableError
from pipeline.sqlitefile import SqliteFile, boot_id, now, uptime

WAIT_SECONDS = 30.0


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    """A file with one table."""
    opened = SqliteFile(tmp_path / "deep" / "x.db")
    opened.write(lambda connection: connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT) STRICT"))
    yield opened
    opened.close()


def put(file: SqliteFile, number: int | None, text: str = "x") -> None:
    """Insert a row."""
    file.write(lambda connection: connection.execute("INSERT INTO t VALUES (?, ?)", (number, text)))


def rows(file: SqliteFile) -> list[int]:
    """What is committed."""
    with file.read() as connection:
        return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]


class Paused:
    """A job that holds the writer until it is let go, so that others gather behind it."""

    def __init__(self, file: SqliteFile) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: file.write(self._job))

    def _job(self, connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._go.wait(WAIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()

    def go(self) -> None:
        """Let the writer go on."""
        self._go.set()


def test_a_write_is_there_when_it_returns(file: SqliteFile) -> None:
    """What was written is seen by every reader, of this process and of others, once `write` has returned."""
    put(file, 1)
    assert rows(file) == [1]
    with sqlite3.connect(file.path) as other:
        assert other.execute("SELECT a FROM t").fetchall() == [(1,)]
    other.close()


def test_power_cut_settings(file: SqliteFile) -> None:
    """Commits are synced (FULL) into a write-ahead log."""
    found = file.write(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
        ]
    )
    assert found == [2, "wal"]


def test_what_is_not_lasting_is_not_synced_by_itself(file: SqliteFile) -> None:
    """A job that means nothing without a later one waits for no disk; the next job that lasts is synced again."""

    def synchronous(connection: sqlite3.Connection) -> int:
        found: int = connection.execute("PRAGMA synchronous").fetchone()[0]
        return found

    found = [file.write(synchronous, lasting=lasting) for lasting in (True, False, False, True)]
    assert found == [2, 1, 1, 2]


def test_who_lasts_does_not_join_who_does_not(file: SqliteFile) -> None:
    """Of jobs that gather, one that must be synced never shares a transaction that is not."""

    def synchronous(connection: sqlite3.Connection) -> int:
        found: int = connection.execute("PRAGMA synchronous").fetchone()[0]
        return found

    wishes = [False, True, False, False, True, True, False] * 3
    with ThreadPoolExecutor(len(wishes)) as pool:
        with Paused(file):
            jobs = [(lasting, pool.submit(file.write, synchronous, lasting=lasting)) for lasting in wishes]
        levels = [(lasting, job.result(timeout=WAIT_SECONDS)) for lasting, job in jobs]
    assert all(level == 2 for lasting, level in levels if lasting)


def test_a_job_that_fails_alone_leaves_the_writer_well(file: SqliteFile) -> None:
    """A job without company is undone as a whole, whatever it did, and the next one is written."""

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (9, 'x')")
        connection.execute("INSERT INTO t VALUES (9, 'again')")

    for _ in range(3):
        with pytest.raises(DataRefused):
            file.write(fails)
    put(file, 1)
    assert rows(file) == [1]


def test_a_job_gives_its_result_or_its_own_error(file: SqliteFile) -> None:
    """What a job returns or raises comes to its caller, and a failed job leaves nothing behind."""

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (9, 'x')")
        raise ZeroDivisionError

    assert file.write(lambda _: 42) == 42
    with pytest.raises(ZeroDivisionError):
        file.write(fails)
    assert rows(file) == []


def test_gathered_jobs_fail_alone(file: SqliteFile) -> None:
    """Of jobs that share a transaction, one that fails takes none of the others with it."""

    def wrong(_: int) -> None:
        file.write(lambda connection: connection.execute("INSERT INTO nowhere VALUES (1)"))

    def refused(_: int) -> None:
        put(file, 1, "again")

    put(file, 1)
    with ThreadPoolExecutor(20) as pool:
        with Paused(file):
            good = [pool.submit(put, file, number) for number in range(2, 12)]
            bad = [pool.submit(job, 0) for job in (wrong, refused)]
        assert [future.result() for future in good] == [None] * 10
        assert isinstance(bad[0].exception(), sqlite3.OperationalError)
        assert isinstance(bad[1].exception(), DataRefused)
    assert rows(file) == list(range(1, 12))


@pytest.mark.parametrize("value", ["\ud800", 2**70, b"bytes"])
def test_refused_data(file: SqliteFile, value: object) -> None:
    """Data that SQLite can't keep is refused as such."""
    with pytest.raises(DataRefused):
        file.write(lambda connection: connection.execute("INSERT INTO t VALUES (?, ?)", (value, value)))


def test_a_full_disk_is_told_and_over_when_there_is_room(file: SqliteFile) -> None:
    """When the disk is full nothing of the job is written and its caller is told; later jobs succeed."""
    pages = file.write(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    file.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}"))
    with pytest.raises(UnavailableError) as told:
        put(file, 1, "x" * 100_000)
    assert told.value.code == "disk_full"
    assert rows(file) == []
    file.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    put(file, 2, "x" * 100_000)
    assert rows(file) == [2]


def test_a_locked_file_is_waited_for(file: SqliteFile) -> None:
    """While another process writes, a job waits, and is done once the other has ended."""
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(put, file, 1)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        assert rows(file) == []
        other.execute("COMMIT")
        other.close()
        waiting.result(timeout=WAIT_SECONDS)
    assert rows(file) == [1]


def test_a_file_locked_for_too_long(file: SqliteFile) -> None:
    """After the time that is set the caller is told that the file is locked; the next job is tried anew."""
    file.write(lambda connection: connection.execute("PRAGMA busy_timeout = 50"))
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as told:
        put(file, 1)
    assert told.value.code == "locked"
    other.execute("ROLLBACK")
    other.close()
    put(file, 2)
    assert rows(file) == [2]


def test_closing_finishes_what_was_taken_on(tmp_path: Path) -> None:
    """Jobs that were given before `close` are done; later ones are told that it is closed."""
    file = SqliteFile(tmp_path / "x.db")
    file.write(lambda connection: connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"))
    with ThreadPoolExecutor(10) as pool:
        with Paused(file) as paused:
            jobs = [pool.submit(put, file, number) for number in range(5)]
            while file._jobs.qsize() < len(jobs):
                assert not any(job.done() for job in jobs)
            closing = pool.submit(file.close)
            paused.go()
            closing.result(timeout=WAIT_SECONDS)
        assert [job.result() for job in jobs] == [None] * 5
    file.close()
    for use in (lambda: put(file, 9), lambda: rows(file)):
        with pytest.raises(UnavailableError) as told:
            use()
        assert told.value.code == "closed"
    with sqlite3.connect(file.path) as other:
        assert other.execute("SELECT count(*) FROM t").fetchall() == [(5,)]
    other.close()


def test_closing_while_others_write(tmp_path: Path) -> None:
    """However writing and closing meet, every caller hears something."""
    for _ in range(20):
        file = SqliteFile(tmp_path / "x.db")
        with ThreadPoolExecutor(6) as pool:
            heard = [pool.submit(file.write, lambda _: 1) for _ in range(30)]
            pool.submit(file.close)
            heard += [pool.submit(file.write, lambda _: 1) for _ in range(30)]
            outcomes = [future.exception(timeout=WAIT_SECONDS) for future in heard]
        assert all(error is None or isinstance(error, UnavailableError) for error in outcomes)


def test_readers_do_not_write(file: SqliteFile) -> None:
    """A reading connection can't change anything."""
    with pytest.raises(UnavailableError), file.read() as connection:
        connection.execute("DELETE FROM t")


def test_a_file_for_reading_only(file: SqliteFile) -> None:
    """A file opened for reading shows what is there and refuses to write."""
    put(file, 1)
    reading = SqliteFile(file.path, readonly=True)
    assert rows(reading) == [1]
    with pytest.raises(UnavailableError):
        put(reading, 2)
    reading.close()


def test_what_is_no_database(tmp_path: Path) -> None:
    """A file that is no database, or a folder in its place, is told with its name."""
    (tmp_path / "text.db").write_text("this is no database, though it is long enough to be one " * 20)
    (tmp_path / "folder.db").mkdir()
    for name in ("text.db", "folder.db"):
        with pytest.raises(UnavailableError, match=name):
            SqliteFile(tmp_path / name)


def test_clocks() -> None:
    """The clock of the boot runs, and the boot has a name."""
    assert uptime() > 0
    assert now() > 1_700_000_000
    assert boot_id() == boot_id() != ""
