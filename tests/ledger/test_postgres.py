"""The contract over PostgreSQL, and what is PostgreSQL's own."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.services.model import Service
from pipeline.app.parts import open_data
from pipeline.config import Config, Limits, Project, Source
from pipeline.errors import DataRefused, NewerSchema, UnavailableError, UsageError
from pipeline.ledger import Tick
from pipeline.sinks.postgres import PostgresLedger, database, schedule
from pipeline.tasks import Task
from tests.ledger import processes
from tests.ledger.bench import SOURCES, Bench, done
from tests.ledger.contract import suites
from tests.ledger.plans import explained

globals().update(suites("Postgres"))


@pytest.fixture
def bench(postgres_bench: Bench) -> Bench:
    """The database that the contract is run over."""
    return postgres_bench


# --- faults ---------------------------------------------------------------------------------------------


def cut_sessions(bench: Bench, place: str) -> int:
    """End every session of this test's ledgers, as a restart or a failing network would."""
    name = place.rpartition("=")[2]
    ended = bench.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = '{name}' AND pid <> pg_backend_pid()"
    )
    return len(ended)


def test_processes_killed_at_random(postgres_bench: Bench, postgres_place: str) -> None:
    """Processes that claim and commit on one database and are killed at any moment lose nothing and double nothing."""
    killed = processes.kill_at_random(postgres_bench, postgres_place, seconds=5.0, keys=1000)
    assert killed >= 5
    processes.verify_killed(postgres_bench, 1000)


def test_sessions_cut_at_random(postgres_bench: Bench, postgres_place: str) -> None:
    """Workers whose connections are cut at any moment go on, lose nothing and double nothing."""
    bench, keys = postgres_bench, [f"k{number:04}" for number in range(800)]
    bench.policy.update(processes.POLICY)
    bench.note(*keys, version="v3")
    stop = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(processes.work, postgres_place, stop) for _ in range(3)]
        cut, end = 0, time.monotonic() + 3.0
        while time.monotonic() < end:
            stop.wait(0.05)
            cut += cut_sessions(bench, postgres_place)
            bench.note(*keys[:: 1 + cut % 7], version="v3")
        processes.until_done(bench)
        stop.set()
        for future in working:
            future.result(timeout=processes.DEADLINE_SECONDS)
    assert cut >= 10
    processes.verify_killed(bench, len(keys))


@pytest.mark.parametrize("end", ["committed", "aborted", "lost"])
def test_a_connection_lost_in_the_commit(postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """When nobody hears the end of a commit the server is asked: what is there isn't done twice, what isn't is done,
    also where the server has lost the transaction and its number is yet to come."""
    lease, (work,) = postgres_bench.begin("a")
    real = psycopg.Connection.execute
    cuts = []

    def execute(self: psycopg.Connection[Any], query: Any, *values: Any, **options: Any) -> Any:
        if "pg_xact_status" in str(query) and end == "lost":
            values = ((str(int(values[0][0]) + 1_000_000),),)
        if query != "COMMIT" or cuts:
            return real(self, query, *values, **options)
        cuts.append(query)
        if end == "committed":
            real(self, query)
        self.pgconn.finish()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    assert postgres_bench.commit(lease, done(work)).kept == {work.id}
    monkeypatch.undo()
    assert cuts
    assert postgres_bench.texts("a") == ["a"]


def test_leases_have_connections_of_their_own(postgres_bench: Bench, postgres_place: str) -> None:
    """While commits hold every connection there is, a lease is renewed and a process says that it lives."""
    lease, _ = postgres_bench.begin("a")
    with (
        closing(PostgresLedger(postgres_place, connections=1)) as ledger,
        ledger._database._connection(),
    ):
        assert ledger.renew(lease, 60.0)
        ledger.beat("worker", 2, 6.0)


def test_connections_for_every_worker(database_url: str, tmp_path: Path) -> None:
    """A process has connections for each of its worker threads and what it stages, up to a bound."""
    source = Source(name="inbox", project="p", url="inbox")
    parts = {"projects": {"p": Project()}, "sources": (source,), "limits": Limits(workers=12)}
    config = Config(database=database_url, folder=tmp_path, **parts)
    with ExitStack() as stack:
        ledger = open_data(config, stack, readonly=False).ledger
        assert isinstance(ledger, PostgresLedger)
        for _ in range(2 * 12 + 10):
            stack.enter_context(ledger._database._connection())
    assert [database.connections_for(workers) for workers in (2, 12, 256)] == [14, 34, 64]


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as such, with its place and without a password."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.3)
    with (
        closing(PostgresLedger("postgresql://me:secret@127.0.0.1:1/x")) as ledger,
        pytest.raises(UnavailableError, match=r"127\.0\.0\.1") as told,
    ):
        ledger.ping()
    assert "secret" not in str(told.value)


def test_a_database_that_is_not_there(postgres: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person must change is told as such."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.3)
    with (
        closing(PostgresLedger(postgres.url.removesuffix("/postgres") + "/nowhere")) as ledger,
        pytest.raises(UsageError, match="nowhere"),
    ):
        ledger.migrate()


def test_rows_held_by_others(postgres_bench: Bench, postgres_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that somebody holds for too long are waited for, then it is told that they are locked."""
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.1)
    postgres_bench.note("a")
    with psycopg.connect(postgres_place) as other:
        other.execute("SELECT 1 FROM objects FOR UPDATE")
        with pytest.raises(UnavailableError) as told:
            postgres_bench.note("a", version="v2")
        assert told.value.code == "locked"
    assert postgres_bench.note("a", version="v2") == {"changed": 1}


def test_transactions_that_wait_for_each_other(postgres_bench: Bench) -> None:
    """Of two that lock the same rows in another order the server ends one, which is done again from its start."""
    postgres_bench.note("a", "b")
    both = threading.Barrier(2)
    tries: list[str] = []

    def change(first: str, second: str) -> None:
        def job(tx: database.Transaction) -> None:
            tries.append(first)
            tx.execute("UPDATE objects SET attempts = attempts + 1 WHERE key = %s", (first,))
            if tries.count(first) == 1:
                both.wait(timeout=30)
            tx.execute("UPDATE objects SET attempts = attempts + 1 WHERE key = %s", (second,))

        postgres_bench.ledger._database.write(job)  # type: ignore[attr-defined]

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(change, "a", "b"), pool.submit(change, "b", "a")]:
            future.result(timeout=60)
    assert len(tries) > 2
    assert postgres_bench.execute("SELECT key, attempts FROM objects ORDER BY key") == [("a", 2), ("b", 2)]
    postgres_bench.execute("UPDATE objects SET attempts = 0")


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57P01", "08006", "25P03"])
def test_what_the_server_takes_back_is_done_again(postgres_bench: Bench, state: str) -> None:
    """A serialization failure, a deadlock, a lock that was not had, a server that shuts down, a transaction that idled
    for too long: the job begins anew."""
    tries: list[int] = []

    def job(tx: database.Transaction) -> int:
        tries.append(1)
        tx.count(1, "changes", 1)
        if len(tries) < 3:
            tx.execute(f"DO $$ BEGIN RAISE EXCEPTION 'taken back' USING ERRCODE = '{state}'; END $$")
        tx.count(1, "changes", -1)
        return len(tries)

    assert postgres_bench.ledger._database.write(job) == 3  # type: ignore[attr-defined]


def test_what_jsonb_cannot_hold(postgres_bench: Bench) -> None:
    """A task with a NUL in it is refused as data, and nothing of its batch is written."""
    lease, (work,) = postgres_bench.begin("a")
    for bad in ('{"text":"\\u0000"}', "not JSON"):
        with pytest.raises(DataRefused):
            postgres_bench.commit(lease, done(work, [Task(1, bad)]))
    assert postgres_bench.count("task_rows") == 0


def test_text_survives_copy(postgres_bench: Bench) -> None:
    """Backslashes, tabs, line ends and non-Latin text come through COPY and arrays as they are."""
    text = 'a\\b\tc\nd\re"f{},NULL\\N é 日本 \u2028'
    full = Task(1, json.dumps({"text": text}), external_id=text)
    lease, (work,) = postgres_bench.begin('k"\\,{}é\n', version='"v\\{},NULL')
    postgres_bench.commit(lease, done(work, [full]))
    (found,) = postgres_bench.ledger.reports().object_tasks(work.id, 1)
    assert (json.loads(found["data"])["text"], found["external_id"]) == (text, text)
    assert (found["key"], found["version"]) == ('k"\\,{}é\n', '"v\\{},NULL')


# --- set-up ---------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused(postgres_bench: Bench) -> None:
    """A database that a newer program has set up is left alone, and the message says what to do."""
    postgres_bench.execute("INSERT INTO labelfeed_schema (version) VALUES (99)")
    with pytest.raises(NewerSchema, match="schema 99"):
        postgres_bench.ledger.migrate()


def test_several_processes_set_up_one_database(postgres_place: str) -> None:
    """Roles that start at the same time on an empty database all succeed."""

    def set_up(_: int) -> list[str]:
        with closing(PostgresLedger(postgres_place, connections=1)) as ledger:
            ledger.migrate()
            return [row.name for row in ledger.register(SOURCES)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(set_up, range(4))) == [["inbox", "bucket"]] * 4


def test_nothing_is_left_in_a_session(postgres_bench: Bench, postgres_place: str) -> None:
    """A pooler may give a session to anybody after each transaction: no setting, lock or statement stays in it."""
    with closing(PostgresLedger(postgres_place, connections=1)) as ledger:
        ledger.record("log", [], {0: 1}, postgres_bench.policy)
        ledger.tick(lambda tick: tick.load())
        with ledger._database._connection() as connection:
            left = connection.execute(
                "SELECT current_setting('enable_hashjoin'), current_setting('lock_timeout'),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
                " (SELECT count(*) FROM pg_prepared_statements)"
            ).fetchone()
    assert left == ("on", "0", 0, 0)


# --- plans ----------------------------------------------------------------------------------------------

READY = 1_000_000
FAN = 20


def test_plans_with_many_ready_objects_and_an_old_transaction(postgres_bench: Bench, postgres_place: str) -> None:
    """With very many objects ready and a transaction open for long, a claim reads its own rows and no others."""
    bench = postgres_bench
    bench.execute(
        "INSERT INTO objects (source_id, key, state, due, first_seen, last_event) SELECT 1 + n % 20, 'key-' ||"
        " n, 'ready',"
        f" t + n * interval '1 microsecond', t, t FROM generate_series(1, {READY}) AS n, (SELECT now() -"
        " interval '1 hour') AS o (t)"
    )
    bench.execute(f"INSERT INTO counters SELECT 1, 'ready', 0, {READY // FAN}, now()")
    bench.execute("UPDATE objects SET tasks = 1, imported_version = 'v' WHERE id % 100000 = 1")
    bench.execute("ANALYZE objects")
    with psycopg.connect(postgres_place) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM sources")
        cursor = (0.0, 0)
        for _ in range(10):
            cursor = bench.tick(lambda tick, cursor=cursor: claim_from(tick, cursor))
        values = (1, *cursor, time.time(), 100)
        select = explained(bench, schedule.CANDIDATES, values)
        update = explained(bench, schedule.CLAIM, (1, [1], 1, False, "e", 60.0, 0.0, 0.0, list_of(bench, cursor)))
        leaving = explained(bench, schedule.LEAVING, (2, 0.0, 0, time.time(), 100))
        without_cursor = explained(bench, schedule.CANDIDATES, (1, 0.0, 0, time.time(), 100))
    assert "objects_ready" in select.text
    assert "objects_pkey" in update.text
    for plan in (select, update):
        assert not [bad for bad in ("Seq Scan", "Merge Join", "Hash Join", "Sort") if bad in plan.text]
        assert plan.buffers < 2500
    assert "objects_leaving" in leaving.text
    assert '"Actual Rows": 10' in leaving.text
    assert leaving.buffers < 100
    # What the cursor is for: without it every claim reads the dead entries of all before it.
    assert without_cursor.buffers > select.buffers
    bench.execute("TRUNCATE objects, counters, leases")


def claim_from(tick: Tick, cursor: tuple[float, int]) -> tuple[float, int]:
    """Claim a thousand objects of the first source; where it has come to."""
    source = tick.load().sources[0]._replace(cursor=cursor)
    found = tick.candidates(source, 1000)
    tick.claim(source, found, "e", 60.0, alone=False)
    return found[-1].not_before, found[-1].id


def list_of(bench: Bench, cursor: tuple[float, int]) -> str:
    """A hundred objects that come after a cursor, as the claim's array."""
    rows = bench.execute(f"SELECT id FROM objects WHERE state = 'ready' AND id > {cursor[1]} ORDER BY id LIMIT 100")
    return database.array(row[0] for row in rows)
