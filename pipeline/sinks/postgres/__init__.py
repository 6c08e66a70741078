"""The distributed setting's database: ledger and tasks in PostgreSQL (14 or newer), by `psycopg` 3.

`ledger` is the whole of it; `database` runs transactions and tries them again; the transactions are in
`record` (events), `schedule` (the scheduler's tick), `work` and `commit` (what workers write), `passes` and
`reports`; `schema` holds set-up and migrations. Nothing rests on a session, so that PgBouncer in transaction
mode may stand between.

Rows are locked in one order everywhere: leases, objects by their number, then counters.
"""

from pipeline.sinks.postgres.ledger import PostgresLedger

__all__ = ["PostgresLedger"]
