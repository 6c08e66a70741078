"""Events into the ledger: look up the rows a batch speaks of, apply `on_event`, write what changed."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pipeline.events import ObjectEvent, trace_of
from pipeline.ledger import HISTORY_LIMIT, Change, Effect, Known, OnChange, check_positions, on_event
from pipeline.sinks.texts import event_text, text_of
from pipeline.sqlitefile import now, write_rows

Counts = Counter[tuple[int, str]]
"""(source, state) → how many objects more are in it."""

_KNOWN = "o.id, o.key, o.state, o.wanted_version, o.imported_version, o.sequencer, o.last_event"
_QUIET: frozenset[Effect] = frozenset({"duplicate", "stale", "unknown", "new"})

_INSERT_OBJECTS = (
    "INSERT INTO objects (source_id, key, state, wanted_version, sequencer, due, first_seen, last_event, size,"
    " discovered_by, trace) VALUES {rows}"
)
_NEW_ROW = "(?,?,'ready',?,?,?,?,?,?,?,?)"


def record(
    connection: sqlite3.Connection,
    log: str,
    events: Sequence[ObjectEvent],
    positions: Mapping[int, int],
    policy: Mapping[str, OnChange],
    expected: Mapping[int, int],
) -> dict[Effect, int]:
    """As `Ledger.record`."""
    if expected:
        check_positions(known_positions(connection, log), expected)
    effects: Counter[Effect] = Counter()
    counts: Counts = Counter()
    at = now()
    sources = dict(connection.execute("SELECT name, id FROM sources WHERE retired = 0").fetchall())
    for name, group in _by_source(events).items():
        if name not in sources or name not in policy:
            effects["unknown"] += len(group)
            continue
        effects.update(record_source(connection, sources[name], group, policy[name], at, counts))
    add_counts(connection, counts)
    connection.executemany(
        "INSERT INTO positions (log, partition, position) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
        [(log, partition, position) for partition, position in positions.items()],
    )
    return dict(effects)


def known_positions(connection: sqlite3.Connection, log: str) -> dict[int, int]:
    """As `Ledger.positions`."""
    return dict(connection.execute("SELECT partition, position FROM positions WHERE log = ?", (log,)))


def _by_source(events: Sequence[ObjectEvent]) -> dict[str, list[ObjectEvent]]:
    groups: defaultdict[str, list[ObjectEvent]] = defaultdict(list)
    for event in events:
        groups[event.source].append(event)
    return groups


def record_source(
    connection: sqlite3.Connection,
    source_id: int,
    events: Sequence[ObjectEvent],
    on_change: OnChange,
    at: float,
    counts: Counts,
) -> Counter[Effect]:
    """Record events of one source; what became of them. `counts` gathers how many objects changed their state."""
    known = known_keys(connection, source_id, [event.key for event in events])
    effects: Counter[Effect] = Counter()
    new, changed, told = [], [], []
    for event in events:
        row = known.get(event.key)
        change = on_event(row, event, on_change)
        effects[change.effect] += 1
        if row is None:
            if change.effect == "new":
                new.append(
                    (source_id, event.key, change.wanted, change.sequencer, at, at, at, event.size, event.discovered_by,
                     trace_of(event.traceparent))
                )  # fmt: skip
        elif change.effect not in ("duplicate", "stale") or (change.wanted, change.sequencer) != (
            row.wanted,
            row.sequencer,
        ):
            changed.append((row, change, event))
            if change.effect not in _QUIET:
                told.append((row.id, at, "event", event_text(event, change)))
    _insert(connection, source_id, new, counts)
    _update(connection, source_id, changed, at, counts)
    write_history(connection, told)
    return effects


def _insert(connection: sqlite3.Connection, source_id: int, rows: Sequence[tuple[object, ...]], counts: Counts) -> None:
    write_rows(connection, _INSERT_OBJECTS, _NEW_ROW, rows)
    counts[source_id, "ready"] += len(rows)


def _update(
    connection: sqlite3.Connection,
    source_id: int,
    changed: Sequence[tuple[Known, Change, ObjectEvent]],
    at: float,
    counts: Counts,
) -> None:
    kept, moved = [], []
    ignored = 0
    for row, change, event in changed:
        if change.state is None:
            noted = change.effect == "ignored"
            ignored += noted
            kept.append((change.wanted, change.sequencer, at, noted, row.id))
        else:
            suspect = change.effect not in ("changed", "superseded")
            moved.append(
                (
                    change.state,
                    change.wanted,
                    change.sequencer,
                    at,
                    suspect,
                    event.size,
                    row.id,
                    trace_of(event.traceparent),
                )
            )
            counts[source_id, row.state] -= 1
            counts[source_id, change.state] += 1
    connection.executemany(
        "UPDATE objects SET wanted_version = ?, sequencer = ?, last_event = ?, changes = changes + ? WHERE id = ?", kept
    )
    # The lease goes in the same statement: a worker with an older version cannot commit any more.
    connection.executemany(
        "UPDATE objects SET state = ?1, wanted_version = ?2, sequencer = ?3, last_event = ?4, due = ?4, attempts = 0,"
        " lost = lost * ?5, lease = NULL, size = coalesce(?6, size), trace = ?8 WHERE id = ?7",
        moved,
    )
    if ignored:
        connection.execute("UPDATE sources SET changes = changes + ? WHERE id = ?", (ignored, source_id))


def known_keys(connection: sqlite3.Connection, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
    """As `Ledger.known_keys`."""
    rows = connection.execute(
        f"SELECT {_KNOWN} FROM json_each(?) AS j CROSS JOIN objects AS o ON o.source_id = ? AND o.key = j.value",
        (text_of(keys), source_id),
    )
    return {row[1]: Known(*row) for row in rows}


def add_counts(connection: sqlite3.Connection, counts: Counts) -> None:
    """Move the counters of objects by state."""
    connection.executemany(
        "INSERT INTO source_counts (source_id, state, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        [(source_id, state, n) for (source_id, state), n in counts.items() if n],
    )


def write_history(connection: sqlite3.Connection, entries: Sequence[tuple[int, float, str, str]]) -> None:
    """Add to objects' histories (object, time, kind, JSON detail), and forget what is beyond HISTORY_LIMIT."""
    connection.executemany("INSERT INTO history (object_id, at, kind, detail) VALUES (?, ?, ?, ?)", entries)
    connection.executemany(
        "DELETE FROM history WHERE object_id = ?1 AND id <="
        f" (SELECT id FROM history WHERE object_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET {HISTORY_LIMIT})",
        [(entry[0],) for entry in entries],
    )
