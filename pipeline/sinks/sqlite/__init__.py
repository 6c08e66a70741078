"""The embedded database: ledger and tasks in one SQLite file, written by one thread (`pipeline.sqlitefile`).

`ledger` is the whole of it; the transactions are in `record` (events), `schedule` (the scheduler's tick),
`work` and `commit` (what workers write), `passes` and `reports`; `schema` holds set-up and migrations, `owners` who
is alive on this machine.
"""

from pipeline.sinks.sqlite.ledger import SqliteLedger

__all__ = ["SqliteLedger"]
