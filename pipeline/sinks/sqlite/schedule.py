"""The scheduler's tick on SQLite: what waits, what may be claimed, which claims have ended."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import orjson

from pipeline.ledger import Candidate, Claim, Load, ProjectLoad, SourceLoad, Standing
from pipeline.sinks.sqlite.owners import LOCAL, Owners
from pipeline.sinks.sqlite.record import Counts, add_counts, write_history
from pipeline.sinks.sqlite.standings import standings
from pipeline.sinks.texts import text_of
from pipeline.sqlitefile import now, uptime


class SqliteTick:
    """`pipeline.ledger.Tick` inside the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection, boot: str, owners: Owners) -> None:
        self._connection = connection
        self._boot = boot
        self._owners = owners

    def load(self) -> Load:
        """As `Tick.load`."""
        execute = self._connection.execute
        sources = execute(
            "SELECT s.id, s.name, s.project_id, coalesce(r.n, 0), coalesce(c.n, 0), s.cursor_due, s.cursor_id,"
            " s.deficit, s.finished"
            " FROM sources AS s LEFT JOIN source_counts AS r ON r.source_id = s.id AND r.state = 'ready'"
            " LEFT JOIN source_counts AS c ON c.source_id = s.id AND c.state = 'claimed' WHERE s.retired = 0"
        ).fetchall()
        (unstarted, waiting, running, alone) = execute(
            "SELECT coalesce(sum(open) FILTER (WHERE started_at IS NULL AND NOT alone), 0),"
            " count(*) FILTER (WHERE started_at IS NULL AND NOT alone), count(started_at) FILTER (WHERE NOT alone),"
            " count(*) FILTER (WHERE alone) FROM leases"
        ).fetchone()
        (threads,) = execute(
            "SELECT coalesce(sum(threads), 0) FROM workers WHERE boot = ? AND until > ?", (self._boot, uptime())
        ).fetchone()
        projects = execute(
            "SELECT p.id, p.name, (SELECT coalesce(sum(s.tasks), 0) FROM sources AS s WHERE s.project_id = p.id),"
            " p.tokens, p.tokens_at FROM projects AS p"
        ).fetchall()
        known = standings(self._connection)
        return Load(
            now=now(),
            sources=[
                SourceLoad(
                    row[0], row[1], row[2], row[3], row[4], (row[5], row[6]), row[7], known.get(row[0], Standing())
                )
                for row in sources
            ],
            projects=[ProjectLoad(*row) for row in projects],
            unstarted=unstarted,
            running=running,
            threads=threads,
            finished=sum(row[8] for row in sources),
            waiting=waiting,
            alone=alone,
        )

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

    def candidates(self, source: SourceLoad, quota: int) -> list[Candidate]:
        """As `Tick.candidates`."""
        rows = self._connection.execute(
            "SELECT id, due, coalesce(size, 0), lost FROM objects WHERE state = 'ready' AND source_id = ?"
            " AND (due, id) > (?, ?) AND due <= ? ORDER BY due, id LIMIT ?",
            (source.id, *source.cursor, now(), quota),
        )
        return [Candidate(*row) for row in rows]

    def newest(self, source: SourceLoad) -> list[Candidate]:
        """As `Tick.newest`."""
        rows = self._connection.execute(
            "SELECT id, due, coalesce(size, 0), lost FROM objects WHERE state = 'ready' AND source_id = ? AND due <= ?"
            " ORDER BY due DESC, id DESC LIMIT 1",
            (source.id, now()),
        )
        return [Candidate(*row) for row in rows]

    def claim(
        self, source: SourceLoad, batch: Sequence[Candidate], epoch: str, seconds: float, *, alone: bool
    ) -> Claim:
        """As `Tick.claim`."""
        ids = tuple(candidate.id for candidate in batch)
        text = orjson.dumps(ids).decode()
        lease = self._connection.execute(
            "INSERT INTO leases (source_id, ids, open, alone, epoch, boot, until) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " RETURNING id",
            (source.id, text, len(ids), alone, epoch, self._boot, uptime() + seconds),
        ).fetchone()[0]
        self._connection.execute(
            "UPDATE objects SET state = 'claimed', lease = ? WHERE id IN (SELECT value FROM json_each(?))",
            (lease, text),
        )
        counts: Counts = Counter({(source.id, "ready"): -len(ids), (source.id, "claimed"): len(ids)})
        add_counts(self._connection, counts)
        return Claim(lease, source.name, ids, alone)

    def save(self, source_id: int, cursor: tuple[float, int], deficit: float) -> None:
        """As `Tick.save`."""
        self._connection.execute(
            "UPDATE sources SET cursor_due = ?, cursor_id = ?, deficit = ? WHERE id = ?", (*cursor, deficit, source_id)
        )

    def spend(self, project_id: int, tokens: float) -> None:
        """As `Tick.spend`."""
        self._connection.execute(
            "UPDATE projects SET tokens = ?, tokens_at = ? WHERE id = ?", (tokens, now(), project_id)
        )


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
