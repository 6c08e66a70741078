"""Passes on SQLite: how far a listing has come, and what the ledger knows of the keys in a page's range."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.ledger import Known, Pass
from pipeline.sinks.sqlite.record import Counts, add_counts
from pipeline.sqlitefile import now

_KNOWN = "id, key, state, wanted_version, imported_version, sequencer, last_event"
_COLUMNS = (
    "id, source_id, started, after_key, listed, published, candidates, finished, positions, stopped, left_out, whole,"
    " whole_at"
)


def _pass(row: tuple[Any, ...]) -> Pass:
    positions = {int(partition): offset for partition, offset in orjson.loads(str(row[8])).items()}
    return Pass(
        id=row[0],
        source_id=row[1],
        started=row[2],
        after=row[3],
        listed=row[4],
        published=row[5],
        candidates=row[6],
        finished=row[7],
        positions=positions,
        stopped=row[9],
        left_out=orjson.loads(str(row[10])),
        whole=bool(row[11]),
        whole_at=row[12],
    )


def begin(connection: sqlite3.Connection, source_id: int, previous: Pass | None) -> Pass:
    """As `Ledger.begin_pass`."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM passes WHERE source_id = ? AND finished IS NULL ORDER BY id DESC LIMIT 1", (source_id,)
    ).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO passes (source_id, started, after_key, whole, whole_at) VALUES (?, ?, ?, ?, ?)"
            f" RETURNING {_COLUMNS}",
            (
                source_id,
                now(),
                *((None, True, None) if previous is None else (previous.after, False, previous.whole_at)),
            ),
        ).fetchone()
    return _pass(row)


def last(connection: sqlite3.Connection, source_id: int) -> Pass | None:
    """As `Ledger.last_pass`."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM passes WHERE source_id = ? AND finished IS NOT NULL ORDER BY id DESC LIMIT 1",
        (source_id,),
    ).fetchone()
    return None if row is None else _pass(row)


def known(
    connection: sqlite3.Connection, source_id: int, after: str | None, upto: str | None, limit: int
) -> list[Known]:
    """As `Ledger.known`; SQLite compares text by its bytes, which is the order that passes go in."""
    bounds = "key > ?2" + ("" if upto is None else " AND key <= ?3")
    rows = connection.execute(
        f"SELECT {_KNOWN} FROM objects WHERE source_id = ?1 AND {bounds} ORDER BY key LIMIT ?4",
        (source_id, after or "", upto, limit),
    )
    return [Known(*row) for row in rows]


def save(connection: sqlite3.Connection, state: Pass, gone: Sequence[str], out_of_scope: Sequence[int]) -> None:
    """As `Ledger.save_pass`."""
    connection.execute(
        "UPDATE passes SET after_key = ?, listed = ?, published = ?, candidates = ?, positions = ?, left_out = ?"
        " WHERE id = ?",
        (
            state.after,
            state.listed,
            state.published,
            state.candidates,
            _positions(state),
            orjson.dumps(dict(state.left_out)).decode(),
            state.id,
        ),
    )
    connection.executemany(
        "INSERT INTO pass_gone (pass_id, key) VALUES (?, ?) ON CONFLICT DO NOTHING", [(state.id, key) for key in gone]
    )
    counts: Counts = Counter()
    for object_id in out_of_scope:
        row = connection.execute("SELECT state FROM objects WHERE id = ?", (object_id,)).fetchone()
        if row is None or row[0] in ("gone", "out_of_scope"):
            continue
        connection.execute("UPDATE objects SET state = 'out_of_scope', lease = NULL WHERE id = ?", (object_id,))
        counts[state.source_id, row[0]] -= 1
        counts[state.source_id, "out_of_scope"] += 1
    add_counts(connection, counts)


def gone_keys(connection: sqlite3.Connection, pass_id: int, after: str | None, limit: int) -> list[str]:
    """As `Ledger.gone_keys`."""
    rows = connection.execute(
        "SELECT key FROM pass_gone WHERE pass_id = ? AND key > ? ORDER BY key LIMIT ?", (pass_id, after or "", limit)
    )
    return [row[0] for row in rows]


def end(connection: sqlite3.Connection, state: Pass) -> None:
    """As `Ledger.end_pass`."""
    save(connection, state, (), ())
    connection.execute("UPDATE passes SET finished = ?, stopped = ? WHERE id = ?", (now(), state.stopped, state.id))
    connection.execute("DELETE FROM pass_gone WHERE pass_id = ?", (state.id,))
    if state.whole and state.stopped is None:
        connection.execute("UPDATE passes SET whole_at = started WHERE id = ?", (state.id,))
        connection.execute("UPDATE sources SET accepted = 0 WHERE id = ? AND accepted", (state.source_id,))


def accept_deletions(connection: sqlite3.Connection, source_id: int) -> None:
    """As `Ledger.accept_deletions`."""
    connection.execute("UPDATE sources SET accepted = 1 WHERE id = ?", (source_id,))


def deletions_accepted(connection: sqlite3.Connection, source_id: int) -> bool:
    """As `Ledger.deletions_accepted`."""
    row = connection.execute("SELECT accepted FROM sources WHERE id = ?", (source_id,)).fetchone()
    return bool(row and row[0])


def note_problem(connection: sqlite3.Connection, source_id: int, part: str, problem: tuple[str, str] | None) -> None:
    """As `Ledger.note_problem`; `since` is when it began, whatever has changed of it meanwhile."""
    if problem is None:
        connection.execute("DELETE FROM problems WHERE source_id = ? AND part = ?", (source_id, part))
    else:
        connection.execute(
            "INSERT INTO problems (source_id, part, code, message, since) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET code = excluded.code, message = excluded.message",
            (source_id, part, *problem, now()),
        )


def problems(connection: sqlite3.Connection, source_id: int) -> list[dict[str, Any]]:
    """What of a source does not work now, as `Reports.sources` tells it."""
    rows = connection.execute(
        "SELECT part, code, message, since FROM problems WHERE source_id = ? ORDER BY part", (source_id,)
    )
    return [dict(zip(("part", "code", "message", "since"), row, strict=True)) for row in rows]


def _positions(state: Pass) -> str:
    return orjson.dumps({str(partition): offset for partition, offset in state.positions.items()}).decode()
