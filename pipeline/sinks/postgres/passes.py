"""Passes on PostgreSQL: how far a listing has come, and what the ledger knows of the keys in a page's range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from pipeline.ledger import Known, Pass
from pipeline.sinks.postgres.database import Row, Transaction
from pipeline.sinks.postgres.record import KNOWN

_COLUMNS = (
    "id, source_id, extract(epoch FROM started)::float8, after_key, listed, published, candidates,"
    " extract(epoch FROM finished)::float8, positions, stopped, left_out, whole,"
    " extract(epoch FROM whole_at)::float8"
)
BY_KEY = " SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;"
"""Of a table that grows, the planner takes all that comes after a key for a few rows, and would sort them."""


def _pass(row: Row) -> Pass:
    positions = {int(partition): offset for partition, offset in row[8].items()}
    return Pass(*row[:8], positions=positions, stopped=row[9], left_out=row[10], whole=row[11], whole_at=row[12])  # type: ignore[misc]  # only the first eight


def begin(tx: Transaction, source_id: int, previous: Pass | None) -> Pass:
    """As `Ledger.begin_pass`."""
    found = tx.rows(
        f"SELECT {_COLUMNS} FROM passes WHERE source_id = %s AND finished IS NULL ORDER BY id DESC LIMIT 1",
        (source_id,),
    ) or tx.rows(
        "INSERT INTO passes (source_id, started, after_key, whole, whole_at)"
        f" VALUES (%s, clock_timestamp(), %s, %s, to_timestamp(%s)) RETURNING {_COLUMNS}",
        (source_id, *((None, True, None) if previous is None else (previous.after, False, previous.whole_at))),
    )
    return _pass(found[0])


def last(tx: Transaction, source_id: int) -> Pass | None:
    """As `Ledger.last_pass`."""
    found = tx.rows(
        f"SELECT {_COLUMNS} FROM passes WHERE source_id = %s AND finished IS NOT NULL ORDER BY id DESC LIMIT 1",
        (source_id,),
    )
    return _pass(found[0]) if found else None


def known(tx: Transaction, source_id: int, after: str | None, upto: str | None, limit: int) -> list[Known]:
    """As `Ledger.known`; the column's own order is that of bytes."""
    bound = "" if upto is None else " AND key <= %s"
    values = (source_id, after or "", limit) if upto is None else (source_id, after or "", upto, limit)
    rows = tx.rows(f"SELECT {KNOWN} WHERE source_id = %s AND key > %s{bound} ORDER BY key LIMIT %s", values)
    return list(map(Known._make, rows))


def save(tx: Transaction, state: Pass, gone: Sequence[str], out_of_scope: Sequence[int]) -> None:
    """As `Ledger.save_pass`."""
    tx.execute(
        "UPDATE passes SET after_key = %s, listed = %s, published = %s, candidates = %s, positions = %s,"
        " left_out = %s WHERE id = %s",
        (
            state.after,
            state.listed,
            state.published,
            state.candidates,
            _positions(state),
            Jsonb(dict(state.left_out)),
            state.id,
        ),
    )
    if gone:
        tx.execute(
            "INSERT INTO pass_gone (pass_id, key) SELECT DISTINCT %s::bigint, k FROM unnest(%s::text[]) AS k"
            " ON CONFLICT DO NOTHING",
            (state.id, list(gone)),
        )
    if out_of_scope:
        _set_aside(tx, state.source_id, out_of_scope)


def _set_aside(tx: Transaction, source_id: int, ids: Sequence[int]) -> None:
    locked = tx.rows(
        "SELECT id, state FROM objects WHERE id = ANY(%s) AND state NOT IN ('gone', 'out_of_scope')"
        " ORDER BY id FOR UPDATE",
        (list(ids),),
    )
    tx.execute(
        "UPDATE objects SET state = 'out_of_scope', lease = NULL WHERE id = ANY(%s)", ([row[0] for row in locked],)
    )
    for _, state in locked:
        tx.count(source_id, state, -1)
        tx.count(source_id, "out_of_scope", 1)


def gone_keys(tx: Transaction, pass_id: int, after: str | None, limit: int) -> list[str]:
    """As `Ledger.gone_keys`."""
    rows = tx.rows(
        "SELECT key FROM pass_gone WHERE pass_id = %s AND key > %s ORDER BY key LIMIT %s", (pass_id, after or "", limit)
    )
    return [row[0] for row in rows]


def end(tx: Transaction, state: Pass) -> None:
    """As `Ledger.end_pass`."""
    save(tx, state, (), ())
    tx.execute("UPDATE passes SET finished = clock_timestamp(), stopped = %s WHERE id = %s", (state.stopped, state.id))
    tx.execute("DELETE FROM pass_gone WHERE pass_id = %s", (state.id,))
    if state.whole and state.stopped is None:
        tx.execute("UPDATE passes SET whole_at = started WHERE id = %s", (state.id,))
        tx.execute("UPDATE sources SET accepted = false WHERE id = %s AND accepted", (state.source_id,))


def accept_deletions(tx: Transaction, source_id: int) -> None:
    """As `Ledger.accept_deletions`."""
    tx.execute("UPDATE sources SET accepted = true WHERE id = %s", (source_id,))


def deletions_accepted(tx: Transaction, source_id: int) -> bool:
    """As `Ledger.deletions_accepted`."""
    return tx.rows("SELECT accepted FROM sources WHERE id = %s", (source_id,)) == [(True,)]


def lead(tx: Transaction, source_id: int, holder: str, seconds: float) -> bool:
    """As `Ledger.lead`."""
    led = tx.rows(
        "INSERT INTO leaders AS l (source_id, holder, until)"
        " VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))"
        " ON CONFLICT (source_id) DO UPDATE SET holder = excluded.holder, until = excluded.until"
        " WHERE l.holder = excluded.holder OR l.until <= clock_timestamp() RETURNING true",
        (source_id, holder, seconds),
    )
    return bool(led)


def yield_lead(tx: Transaction, source_id: int, holder: str) -> None:
    """As `Ledger.yield_lead`."""
    tx.execute("DELETE FROM leaders WHERE source_id = %s AND holder = %s", (source_id, holder))


def note_problem(tx: Transaction, source_id: int, part: str, problem: tuple[str, str] | None) -> None:
    """As `Ledger.note_problem`; `since` is when it began, whatever has changed of it meanwhile."""
    if problem is None:
        tx.execute("DELETE FROM problems WHERE source_id = %s AND part = %s", (source_id, part))
    else:
        tx.execute(
            "INSERT INTO problems (source_id, part, code, message, since) VALUES (%s, %s, %s, %s, clock_timestamp())"
            " ON CONFLICT (source_id, part) DO UPDATE SET code = excluded.code, message = excluded.message",
            (source_id, part, *problem),
        )


def problems(tx: Transaction, source_id: int) -> list[dict[str, Any]]:
    """What of a source does not work now, as `Reports.sources` tells it."""
    return tx.dicts(
        "SELECT part, code, message, extract(epoch FROM since)::float8 AS since FROM problems WHERE source_id = %s"
        " ORDER BY part",
        (source_id,),
    )


def _positions(state: Pass) -> Jsonb:
    return Jsonb({str(partition): offset for partition, offset in state.positions.items()})
