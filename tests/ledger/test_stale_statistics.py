"""While a table grows, PostgreSQL's statistics are from a time when it was small, or when no row was claimed: what the
roles ask must not become a walk over all that is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.sinks.postgres import batching
from pipeline.sinks.postgres.database import Transaction, array
from tests.ledger.bench import Bench, done
from tests.ledger.test_postgres import explained

OBJECTS = 12_000
CLAIMED = 400
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
    claims = bench.claims(size=CLAIMED)
    first, second = claims[:2]
    for claim in (first, second):
        work = bench.ledger.start(claim.lease, "worker", 60.0)
        outcomes = [done(each) for each in work]
        rows = counted(read, "objects", lambda: bench.ledger.commit(claim.lease, outcomes))  # noqa: B023 - at once
        assert rows <= LOOKS * CLAIMED
    changed = [f"{number:06}" for number in range(1, CLAIMED + 1)]
    for version in ("v2", "v3"):
        rows = counted(read, "objects", lambda: bench.note(*changed, version=version))  # noqa: B023 - at once
        assert rows <= LOOKS * CLAIMED


def test_a_page_of_the_outbox_reads_its_own_tasks(bench: Bench) -> None:
    """What is known of a delivery's tasks is looked up for each, however little was delivered when it was counted."""
    bench.execute("ALTER TABLE delivered SET (autovacuum_enabled = off)")
    bench.execute("INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state) VALUES (1, 0, 1, 1, 'done')")
    bench.execute("ANALYZE delivered")
    bench.execute(
        "INSERT INTO imports (object_id, lease, state, mode, at) SELECT id, 1, 'live', 'new', now() FROM objects"
    )
    bench.execute("INSERT INTO task_rows (object_id, lease, position, row, data) SELECT id, 1, 0, 1, '{}' FROM objects")
    bench.execute("ANALYZE imports, task_rows")
    bench.execute(
        "INSERT INTO delivered (delivery_id, task_id, batch_id, revision, state)"
        " SELECT 1, -n, 1, 1, 'done' FROM generate_series(1, 20000) AS n"
    )
    bench.execute(
        "INSERT INTO outbox (delivery_id, object_id, lease, position, to_lease, to_position, tasks, at)"
        f" SELECT 1, id, 1, 0, 1, 1, 1, now() FROM objects ORDER BY id LIMIT {CLAIMED}"
    )
    ids = [row[0] for row in bench.execute("SELECT id FROM outbox")]
    plan = explained(bench, batching.PEEK, {"rows": array(ids), "limit": CLAIMED})
    assert plan.buffers < 20 * CLAIMED
    bench.execute("TRUNCATE objects, counters, outbox, delivered, imports, task_rows")
