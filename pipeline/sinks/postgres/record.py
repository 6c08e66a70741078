"""Events into the ledger: look up the rows a batch speaks of, apply `on_event`, write what changed.

Most events of a running installation change nothing, so rows are read without a lock first; those that will
change are locked, in the order of their numbers, and judged again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pipeline.events import ObjectEvent, trace_of
from pipeline.ledger import HISTORY_LIMIT, Change, Effect, Known, OnChange, check_positions, on_event
from pipeline.sinks.postgres.database import Transaction, array, columns
from pipeline.sinks.texts import event_text

KNOWN = "id, key, state, wanted_version, imported_version, sequencer, date_part('epoch', last_event) FROM objects"
_QUIET: frozenset[Effect] = frozenset({"duplicate", "stale", "unknown", "new"})


def record(
    tx: Transaction,
    log: str,
    events: Sequence[ObjectEvent],
    positions: Mapping[int, int],
    policy: Mapping[str, OnChange],
    expected: Mapping[int, int],
) -> dict[Effect, int]:
    """As `Ledger.record`."""
    if expected:
        check_positions(known_positions(tx, log), expected)
    effects: Counter[Effect] = Counter()
    sources: dict[str, int] = dict(tx.rows("SELECT name, id FROM sources WHERE NOT retired"))
    for name, group in _by_source(events).items():
        if name in sources and name in policy:
            effects.update(record_source(tx, sources[name], group, policy[name]))
        else:
            effects["unknown"] += len(group)
    if positions:
        tx.execute(
            "INSERT INTO positions (log, partition, position) SELECT %s, * FROM unnest(%s::integer[], %s::bigint[])"
            " ON CONFLICT (log, partition) DO UPDATE SET position = greatest(positions.position, excluded.position)",
            (log, *columns(sorted(positions.items()), 2)),
        )
    return dict(effects)


def known_positions(tx: Transaction, log: str) -> dict[int, int]:
    """As `Ledger.positions`."""
    return dict(tx.rows("SELECT partition, position FROM positions WHERE log = %s", (log,)))


def _by_source(events: Sequence[ObjectEvent]) -> dict[str, list[ObjectEvent]]:
    groups: defaultdict[str, list[ObjectEvent]] = defaultdict(list)
    for event in events:
        groups[event.source].append(event)
    return groups


def record_source(
    tx: Transaction, source_id: int, events: Sequence[ObjectEvent], on_change: OnChange
) -> Counter[Effect]:
    """Record events of one source; what became of them."""
    known = known_keys(tx, source_id, [event.key for event in events])
    effects: Counter[Effect] = Counter()
    new: list[tuple[ObjectEvent, Change]] = []
    open_: list[ObjectEvent] = []
    for event in events:
        row = known.get(event.key)
        change = on_event(row, event, on_change)
        if change.effect == "new":
            new.append((event, change))
        elif row is not None and _changes(row, change):
            open_.append(event)
        else:
            effects[change.effect] += 1
    inserted = _insert(tx, source_id, new)
    effects["new"] += len(inserted)
    # Another recorder was quicker with these keys.
    open_.extend(event for event, _ in new if event.key not in inserted)
    if open_:
        effects.update(_change(tx, source_id, open_, on_change))
    return +effects


def _changes(row: Known, change: Change) -> bool:
    return change.effect not in ("duplicate", "stale") or (change.wanted, change.sequencer) != (
        row.wanted,
        row.sequencer,
    )


def _insert(tx: Transaction, source_id: int, new: Sequence[tuple[ObjectEvent, Change]]) -> set[str]:
    """Insert new objects; gives the keys that nobody else had inserted meanwhile."""
    if not new:
        return set()
    rows = [
        (event.key, change.wanted, change.sequencer, event.size, event.discovered_by, trace_of(event.traceparent))
        for event, change in sorted(new, key=lambda each: each[0].key)
    ]
    found = tx.rows(
        "INSERT INTO objects (source_id, key, state, wanted_version, sequencer, size, discovered_by, trace, due,"
        " first_seen, last_event)"
        " SELECT %s, u.key, 'ready', u.version, u.sequencer, u.size, u.discovered_by, u.trace, t, t, t"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::uuid[])"
        " AS u (key, version, sequencer, size, discovered_by, trace), clock_timestamp() AS t"
        " ON CONFLICT (source_id, key) DO NOTHING RETURNING key",
        (source_id, *columns(rows, 6)),
    )
    tx.count(source_id, "ready", len(found))
    return {key for (key,) in found}


def _change(tx: Transaction, source_id: int, events: Sequence[ObjectEvent], on_change: OnChange) -> Counter[Effect]:
    """Lock rows, and apply to them what the events do to them as they are now."""
    by_key = {event.key: event for event in events}
    effects: Counter[Effect] = Counter()
    kept, moved = [], []
    told: list[tuple[int, float, str, str]] = []
    locked = tx.rows(
        f"SELECT {KNOWN} WHERE source_id = %s AND key = ANY(%s) ORDER BY id FOR UPDATE", (source_id, list(by_key))
    )
    for row in map(Known._make, locked):
        event = by_key[row.key]
        change = on_event(row, event, on_change)
        effects[change.effect] += 1
        if not _changes(row, change):
            continue
        if change.state is None:
            kept.append((change.wanted, change.sequencer, int(change.effect == "ignored"), row.id))
        else:
            suspect = change.effect not in ("changed", "superseded")
            trace = trace_of(event.traceparent)
            moved.append((change.state, change.wanted, change.sequencer, suspect, event.size, trace, row.id))
            tx.count(source_id, row.state, -1)
            tx.count(source_id, change.state, 1)
        if change.effect not in _QUIET:
            told.append((row.id, tx.at, "event", event_text(event, change)))
    _update(tx, kept, moved)
    tx.count(source_id, "changes", sum(row[2] for row in kept))
    write_history(tx, told)
    return effects


def _update(tx: Transaction, kept: Sequence[Sequence[object]], moved: Sequence[Sequence[object]]) -> None:
    if kept:
        tx.execute(
            "UPDATE objects AS o SET wanted_version = u.version, sequencer = u.sequencer, changes = o.changes"
            " + u.changes,"
            " last_event = clock_timestamp()"
            " FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[]) AS u (version, sequencer, changes, id)"
            " WHERE o.id = ANY(ARRAY[u.id])",
            columns(kept, 4),
        )
    if moved:
        # The lease goes in the same statement: a worker with an older version cannot commit any more.
        tx.execute(
            "UPDATE objects AS o SET state = u.state, wanted_version = u.version, sequencer = u.sequencer,"
            " attempts = 0,"
            " lost = CASE WHEN u.suspect THEN o.lost ELSE 0 END, lease = NULL, size = coalesce(u.size, o.size),"
            " trace = u.trace, due = t, last_event = t"
            " FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::bigint[], %s::uuid[], %s::bigint[])"
            " AS u (state, version, sequencer, suspect, size, trace, id), clock_timestamp() AS t"
            " WHERE o.id = ANY(ARRAY[u.id])",
            columns(moved, 7),
        )


def forget_log(tx: Transaction, log: str) -> None:
    """As `Ledger.forget_log`."""
    tx.execute("DELETE FROM positions WHERE log = %s", (log,))


def known_keys(tx: Transaction, source_id: int, keys: Sequence[str]) -> dict[str, Known]:
    """As `Ledger.known_keys`."""
    rows = tx.rows(f"SELECT {KNOWN} WHERE source_id = %s AND key = ANY(%s::text[])", (source_id, array(keys)))
    return {row[1]: Known(*row) for row in rows}


def write_history(tx: Transaction, entries: Sequence[tuple[int, float, str, str]]) -> None:
    """Add to objects' histories (object, time, kind, JSON detail), and forget what is beyond HISTORY_LIMIT."""
    if not entries:
        return
    tx.execute(
        "INSERT INTO history (object_id, at, kind, detail) SELECT u.id, to_timestamp(u.at), u.kind, u.detail"
        " FROM unnest(%s::bigint[], %s::float8[], %s::text[], %s::jsonb[]) AS u (id, at, kind, detail)",
        columns(entries, 4),
    )
    tx.execute(
        "DELETE FROM history AS h USING (SELECT u.id, (SELECT b.id FROM history AS b WHERE b.object_id = u.id"
        " ORDER BY b.id DESC OFFSET %s LIMIT 1) AS last FROM unnest(%s::bigint[]) AS u (id)) AS old"
        " WHERE h.object_id = old.id AND h.id <= old.last",
        (HISTORY_LIMIT, sorted({entry[0] for entry in entries})),
    )
