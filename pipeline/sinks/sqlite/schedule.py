"""The scheduler's tick on SQLite: what waits, what may be claimed, which claims have ended."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pipeline.ledger import Candidates, Claim, Load, ProjectLoad, Shared, SourceLoad, Standing
from pipeline.sinks.sqlite.granting import SqliteDeliveryTick
from pipeline.sinks.sqlite.owners import LOCAL, Owners
from pipeline.sinks.sqlite.record import Counts, add_counts, write_history
from pipeline.sinks.sqlite.standings import standings
from pipeline.sinks.texts import text_of
from pipeline.sqlitefile import now, uptime

_SOURCES = (
    "SELECT s.id, s.name, s.project_id, coalesce(r.n, 0), coalesce(c.n, 0), s.cursor_due, s.cursor_id,"
    " s.deficit, s.passed_over, s.bytes_allowed, s.bytes_at, s.read_objects, s.read_tasks, s.read_bytes, s.finished"
    " FROM sources AS s LEFT JOIN source_counts AS r ON r.source_id = s.id AND r.state = 'ready'"
    " LEFT JOIN source_counts AS c ON c.source_id = s.id AND c.state = 'claimed' WHERE s.retired = 0"
)


_READY = "FROM objects WHERE state = 'ready' AND source_id = ?"
FOUND = f"SELECT id, due, coalesce(size, 0), lost {_READY} AND (due, id) > (?, ?) AND due <= ? ORDER BY due, id LIMIT ?"
# A row costs a step, and a step gives up the interpreter's lock: what became due together comes in one.
TOGETHER = (
    "SELECT max(lost), json_group_array(id), json_group_array(size) FROM"
    f" (SELECT id, coalesce(size, 0) AS size, lost {_READY} AND due = ? AND id > ? ORDER BY id LIMIT ?)"
)
NEXT_DUE = f"SELECT min(due) {_READY} AND due > ? AND due <= ?"
LEAVING = (
    f"SELECT id, due, coalesce(size, 0), lost {_READY} AND wanted_version IS NULL AND tasks > 0 AND (due, id) > (?, ?)"
    " AND due <= ? ORDER BY due, id LIMIT ?"
)
FEW_CANDIDATES = 64
"""So few are read row by row, as they became due one after another for the most part ..."""
MOST_DUE = 8
"""... and what is left after so many groups that became due together."""


class SqliteTick:
    """`pipeline.ledger.Tick` inside the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection, boot: str, owners: Owners) -> None:
        self._connection = connection
        self._boot = boot
        self._owners = owners

    def load(self) -> Load:
        """As `Tick.load`."""
        execute = self._connection.execute
        leases = execute(
            "SELECT source_id, alone, sum(open) FILTER (WHERE started_at IS NULL), count(*) - count(started_at),"
            " count(started_at), total(open * tasks_each), total(open * bytes_each) FROM leases GROUP BY 1, 2"
        ).fetchall()
        expected: dict[int, tuple[float, float]] = {}
        for source_id, _, _, _, _, tasks, size in leases:
            before = expected.get(source_id, (0.0, 0.0))
            expected[source_id] = (before[0] + tasks, before[1] + size)
        usual = [row for row in leases if not row[1]]
        (threads, commits, seconds) = execute(
            "SELECT coalesce(sum(threads), 0), coalesce(sum(commits), 0), total(commit_seconds) FROM workers"
            " WHERE boot = ? AND until > ?",
            (self._boot, uptime()),
        ).fetchone()
        rows = execute(_SOURCES).fetchall()
        return Load(
            now=now(),
            sources=self._sources(rows, expected),
            projects=self._projects(),
            unstarted=sum(row[2] or 0 for row in usual),
            running=sum(row[4] for row in usual),
            threads=threads,
            finished=sum(row[14] for row in rows),
            waiting=sum(row[3] for row in usual),
            alone=sum(row[3] + row[4] for row in leases if row[1]),
            commits=(commits, seconds),
            shared=self._shared(),
        )

    def _sources(
        self, rows: Sequence[tuple[Any, ...]], expected: Mapping[int, tuple[float, float]]
    ) -> list[SourceLoad]:
        known = standings(self._connection)
        return [
            SourceLoad(
                row[0],
                row[1],
                row[2],
                row[3],
                row[4],
                (row[5], row[6]),
                row[7],
                known.get(row[0], Standing()),
                row[8],
                (row[9], row[10]),
                expected.get(row[0], (0.0, 0.0)),
                row[11:14],
            )
            for row in rows
        ]

    def _projects(self) -> list[ProjectLoad]:
        rows = self._connection.execute(
            "SELECT p.id, p.name, coalesce(sum(s.tasks), 0), p.tokens, p.tokens_at, coalesce(sum(s.read_tasks), 0),"
            " p.paused FROM projects AS p LEFT JOIN sources AS s ON s.project_id = p.id GROUP BY p.id"
        )
        return [ProjectLoad(*row) for row in rows]

    def _shared(self) -> Shared:
        row = self._connection.execute(
            "SELECT noted_at, notes, bound, best, commits, commit_seconds, adapted_at FROM scheduling"
        ).fetchone()
        return Shared(row[0], row[1], row[2:])

    def release(self, epoch: str) -> int:
        """As `Tick.release`."""
        others = [
            row[0] for row in self._connection.execute("SELECT DISTINCT epoch FROM leases WHERE epoch <> ?", (epoch,))
        ]
        dead = [other for other in others if other.startswith(LOCAL) and self._owners.dead(other)]
        freed = end_leases(self._connection, "started_at IS NULL AND epoch IN", dead, lost=False)
        freed += end_leases(self._connection, "epoch IN", dead, lost=True)
        if not epoch.startswith(LOCAL):
            flushed = [other for other in others if not other.startswith(LOCAL)]
            freed += end_leases(self._connection, "started_at IS NULL AND epoch IN", flushed, lost=False)
        return freed

    def expire(self, limit: int) -> int:
        """As `Tick.expire`."""
        ended = self._connection.execute(
            "SELECT id, started_at FROM leases WHERE boot <> ? OR until < ? LIMIT ?", (self._boot, uptime(), limit)
        ).fetchall()
        unstarted = [lease for lease, started in ended if started is None]
        started = [lease for lease, started in ended if started is not None]
        return end_leases(self._connection, "id IN", unstarted, lost=False) + end_leases(
            self._connection, "id IN", started, lost=True
        )

    def candidates(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.candidates`."""
        at, (due, last) = now(), source.cursor
        found = Candidates()
        for _ in range(MOST_DUE if min(quota, source.ready) > FEW_CANDIDATES else 0):
            row = self._connection.execute(TOGETHER, (source.id, due, last, quota - len(found))).fetchone()
            group = together(due, *row)
            if group is None:
                break
            found += group
            if len(found) == quota:
                return found
            (following,) = self._connection.execute(NEXT_DUE, (source.id, due, at)).fetchone()
            if following is None:
                return found
            due, last = following, 0
        rest = (source.id, due, last, at, quota - len(found))
        return found + Candidates.of(self._connection.execute(FOUND, rest))

    def leaving(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.leaving`."""
        return Candidates.of(self._connection.execute(LEAVING, (source.id, *source.cursor, now(), quota)))

    def newest(self, source: SourceLoad) -> Candidates:
        """As `Tick.newest`."""
        rows = self._connection.execute(
            "SELECT id, due, coalesce(size, 0), lost FROM objects WHERE state = 'ready' AND source_id = ? AND due <= ?"
            " ORDER BY due DESC, id DESC LIMIT 1",
            (source.id, now()),
        )
        return Candidates.of(rows)

    def claim(
        self,
        source: SourceLoad,
        batch: Candidates,
        epoch: str,
        seconds: float,
        *,
        alone: bool,
        each: tuple[float, float] = (0.0, 0.0),
    ) -> Claim:
        """As `Tick.claim`."""
        ids = tuple(batch.ids)
        text = orjson.dumps(ids).decode()
        lease = self._connection.execute(
            "INSERT INTO leases (source_id, ids, open, alone, epoch, boot, until, tasks_each, bytes_each)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (source.id, text, len(ids), alone, epoch, self._boot, uptime() + seconds, *each),
        ).fetchone()[0]
        claimed = "UPDATE objects SET state = 'claimed', lease = ? WHERE id "
        if ids == tuple(range(ids[0], ids[0] + len(ids))):
            # One number after another, as in a first import: a fifth faster than a list.
            self._connection.execute(claimed + "BETWEEN ? AND ?", (lease, ids[0], ids[-1]))
        else:
            self._connection.execute(claimed + "IN (SELECT value FROM json_each(?))", (lease, text))
        counts: Counts = Counter({(source.id, "ready"): -len(ids), (source.id, "claimed"): len(ids)})
        add_counts(self._connection, counts)
        return Claim(lease, source.name, ids, alone)

    def save(self, source: SourceLoad) -> None:
        """As `Tick.save`."""
        self._connection.execute(
            "UPDATE sources SET cursor_due = ?, cursor_id = ?, deficit = ?, passed_over = ?, bytes_allowed = ?,"
            " bytes_at = ? WHERE id = ?",
            (*source.cursor, source.deficit, source.passed_over, *source.bucket, source.id),
        )

    def deliveries(self) -> SqliteDeliveryTick:
        """As `Tick.deliveries`."""
        return SqliteDeliveryTick(self._connection, self._boot, self._owners)

    def spend(self, project_id: int, tokens: float) -> None:
        """As `Tick.spend`."""
        self._connection.execute(
            "UPDATE projects SET tokens = ?, tokens_at = ? WHERE id = ?", (tokens, now(), project_id)
        )

    def note(self, notes: str) -> None:
        """As `Tick.note`."""
        self._connection.execute("UPDATE scheduling SET notes = ?, noted_at = ?", (notes, now()))

    def press(self, pressure: tuple[float, float, int, float, float]) -> None:
        """As `Tick.press`."""
        self._connection.execute(
            "UPDATE scheduling SET bound = ?, best = ?, commits = ?, commit_seconds = ?, adapted_at = ?", pressure
        )


def together(due: float, lost: int | None, ids_text: str, sizes_text: str) -> Candidates | None:
    """Healthy candidates that became due at once, of JSON lists of their numbers and sizes; None if a worker was lost
    with one of them, or they came in another order: an aggregate promises none."""
    ids = orjson.loads(ids_text)
    if lost or ids != sorted(ids):
        return None
    return Candidates(ids, [due] * len(ids), orjson.loads(sizes_text), [0] * len(ids))


def end_leases(connection: sqlite3.Connection, which: str, values: Sequence[object], *, lost: bool) -> int:
    """End the leases that `which` (SQL up to IN) selects; their objects without an outcome become ready.

    `lost` says that a worker had started them and is gone: the objects are suspects then, and run alone.
    """
    if not values:
        return 0
    marks = ",".join("?" * len(values))
    leases = connection.execute(
        f"SELECT id, source_id, ids, worker FROM leases WHERE {which} ({marks})", values
    ).fetchall()
    freed = 0
    counts: Counts = Counter()
    at = now()
    for lease, source_id, ids, worker in leases:
        owned = connection.execute(
            "SELECT o.id FROM json_each(?) AS j CROSS JOIN objects AS o ON o.id = j.value WHERE o.lease = ?",
            (ids, lease),
        ).fetchall()
        connection.executemany(
            "UPDATE objects SET state = 'ready', lease = NULL, due = ?, attempts = attempts + ?, lost ="
            " max(lost, ?) WHERE id = ?",
            [(at, lost, lost, object_id) for (object_id,) in owned],
        )
        counts[source_id, "claimed"] -= len(owned)
        counts[source_id, "ready"] += len(owned)
        freed += len(owned)
        if lost:
            detail = text_of({"lease": lease, "worker": worker})
            write_history(connection, [(object_id, at, "worker_lost", detail) for (object_id,) in owned])
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
    add_counts(connection, counts)
    return freed
