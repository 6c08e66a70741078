"""While a table grows, PostgreSQL's statistics are from a time when it was small, or when no row was claimed: what the
roles ask must not become a walk over all that is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.sinks.postgres import batching, paging
from pipeline.sinks.postgres.database import Database, Transaction, array
from tests.ledger.bench import Bench, done
from tests.ledger.plans import explained

OBJECTS = 12_000
CLAIMED = 400
DELIVERED = 20_000
LOOKS = 3
"""Rows that are read for each that is meant, at most: a row is looked at, locked, and written in another version."""


def reads(tx: Transaction) -> Counter[str]:
    """How many rows of each table a session has read of late."""
    return Counter(
        dict(
            tx.rows(
                "SELECT relname::text, (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint"
                " FROM pg_stat_xact_user_tables WHERE schemaname = current_schema()"
            )
        )
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many rows of each table transactions have read since it was emptied."""
    counted: Counter[str] = Counter()
    before: dict[int, Counter[str]] = {}
    begin, finish = Transaction.__init__, Transaction.finish

    def begun(tx: Transaction, connection: Any, at: float) -> None:
        begin(tx, connection, at)
        before[id(tx)] = reads(tx)

    def finished(tx: Transaction) -> None:
        finish(tx)
        counted.update(reads(tx) - before.pop(id(tx)))

    monkeypatch.setattr(Transaction, "__init__", begun)
    monkeypatch.setattr(Transaction, "finish", finished)
    return counted


@pytest.fixture
def bench(postgres_bench: Bench) -> Bench:
    """A ledger with many objects, of which none was claimed when the statistics were made."""
    bench = postgres_bench
    bench.execute("ALTER TABLE objects SET (autovacuum_enabled = off)")
    bench.execute(
        "INSERT INTO objects (source_id, key, state, wanted_version, due, first_seen, last_event)"
        " SELECT s.id, lpad(n::text, 6, '0'), 'ready', 'v1', now() - interval '1 hour', now(), now()"
        f" FROM sources AS s, generate_series(1, {OBJECTS}) AS n WHERE s.name = 'inbox' ORDER BY n"
    )
    bench.execute(f"INSERT INTO counters SELECT id, 'ready', 0, {OBJECTS}, now() FROM sources WHERE name = 'inbox'")
    bench.execute("ANALYZE objects")
    return bench


def counted(read: Counter[str], table: str, step: Callable[[], object]) -> int:
    """How many rows of a table a step reads."""
    read.clear()
    step()
    return read[table]


def test_commits_and_events_read_their_own_objects(bench: Bench, read: Counter[str]) -> None:
    """To commit a claim, and to record new versions, costs looks at their own objects and no others."""
    for claim in bench.claims(size=CLAIMED)[:2]:
        work = bench.ledger.start(claim.lease, "worker", 60.0)
        outcomes = [done(each) for each in work]
        rows = counted(read, "objects", lambda: bench.ledger.commit(claim.lease, outcomes))  # noqa: B023 - at once
        assert CLAIMED <= rows <= LOOKS * CLAIMED
    changed = [f"{number:06}" for number in range(1, CLAIMED + 1)]
    for version, policy in (("v2", "ignore"), ("v3", "replace")):
        bench.policy["inbox"] = policy  # type: ignore[assignment]  # a literal
        rows = counted(read, "objects", lambda: bench.note(*changed, version=version))  # noqa: B023 - at once
        assert CLAIMED <= rows <= LOOKS * CLAIMED
    ready = "SELECT count(*) FROM objects WHERE state = 'ready' AND wanted_version = 'v3'"
    assert bench.execute(ready) == [(CLAIMED,)]


def test_answers_are_written_to_their_own_tasks(bench: Bench, read: Counter[str]) -> None:
    """Names and reasons that a remote gives come to their own tasks, and names without a walk over any others."""
    delivered(bench)
    database: Database = bench.ledger._database  # type: ignore[attr-defined]
    rows = [(number, f"remote {number}") for number in range(1, CLAIMED + 1)]
    bench.execute(f"UPDATE delivered SET state = 'batched' WHERE task_id BETWEEN 1 AND {2 * CLAIMED}")

    def remember() -> None:
        database.write(lambda tx: batching.remember(tx, 1, rows))

    def refuse() -> None:
        reasons = {number + CLAIMED: told for number, told in rows}
        database.write(lambda tx: batching.refuse(tx, 1, 1, reasons, sent=True))

    assert CLAIMED <= counted(read, "delivered", remember) <= LOOKS * CLAIMED
    told = "SELECT count(*) FROM delivered WHERE state = '{}' AND {} = 'remote ' || (task_id - {})"
    assert bench.execute(told.format("done", "remote_id", 0)) == [(CLAIMED,)]
    bench.execute("INSERT INTO deliveries (id, project_id, name, kind, target, stamp, backfill, backfill_from)"
                  " OVERRIDING SYSTEM VALUE SELECT 1, id, 'd', 'k', 't', 's', 0, pg_current_xact_id() FROM projects"
                  " LIMIT 1")  # fmt: skip
    refuse()
    assert bench.execute(told.format("refused", "reason", CLAIMED)) == [(CLAIMED,)]
    bench.execute("TRUNCATE objects, counters, delivered, deliveries CASCADE")


def delivered(bench: Bench) -> None:
    """Many delivered tasks, of which the statistics know one."""
    bench.execute("ALTER TABLE delivered SET (autovacuum_enabled = off)")
    bench.execute("INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state) VALUES (1, 0, 1, 1, 'done')")
    bench.execute("ANALYZE delivered")
    bench.execute(
        "INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state)"
        f" SELECT 1, n, 1, 1, 'done' FROM generate_series(1, {DELIVERED}) AS n"
    )


def test_a_page_of_the_outbox_reads_its_own_tasks(bench: Bench) -> None:
    """What is known of a delivery's tasks is looked up for each, however little was delivered when it was counted; so
    are the tasks of a batch, and those that have changed."""
    delivered(bench)
    bench.execute(
        "INSERT INTO imports (object_id, lease, state, mode, at) SELECT id, 1, 'live', 'new', now() FROM objects"
    )
    bench.execute("INSERT INTO task_rows (object_id, lease, position, row, data) SELECT id, 1, 0, 1, '{}' FROM objects")
    bench.execute("ANALYZE imports, task_rows")
    bench.execute(
        "INSERT INTO outbox (delivery_id, object_id, lease, position, to_lease, to_position, tasks, at)"
        f" SELECT 1, id, 1, 0, 1, 1, 1, now() FROM objects ORDER BY id LIMIT {CLAIMED}"
    )
    ids = [row[0] for row in bench.execute("SELECT id FROM outbox")]
    for statement in paging.PEEK:
        plan = explained(bench, statement, {"rows": array(ids), "limit": CLAIMED})
        assert plan.buffers < 20 * CLAIMED
    some = f"SELECT id FROM task_rows ORDER BY id LIMIT {CLAIMED}"
    bench.execute(f"UPDATE delivered SET batch_id = 2, state = 'batched' WHERE task_id IN ({some})")
    bench.execute(f"UPDATE delivered SET pending = 'update' WHERE task_id IN ({some} OFFSET {CLAIMED})")
    for count, reading, values in (
        ("batch_id = 2", paging.ITEMS, (2, 0, CLAIMED)),
        ("pending = 'update'", paging.CHANGES, (1, 0, CLAIMED)),
    ):
        assert bench.execute(f"SELECT count(*) FROM delivered WHERE {count}") == [(CLAIMED,)]
        for statement in reading:
            assert explained(bench, statement, values).buffers < 20 * CLAIMED
    bench.execute("TRUNCATE objects, counters, outbox, delivered, imports, task_rows")
