"""The scheduler's tick on PostgreSQL: what waits, what may be claimed, which claims have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.ledger import Candidate, Claim, Load, ProjectLoad, SourceLoad, Standing, Tick
from pipeline.sinks.postgres.database import Transaction, array
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.postgres.standings import standings
from pipeline.sinks.texts import text_of

T = TypeVar("T")

LOCAL = "local:"
"""Epochs of embedded queues begin so; they say nothing to other machines, so their leases just end."""
SCHEDULING = 1_279_345_991
"""The advisory lock of the tick, beside a hash of the schema's name."""

# Two statements: in one, the planner joins the whole table. Both hold their plan by a test.
CANDIDATES = (
    "SELECT id, extract(epoch FROM due)::float8, coalesce(size, 0), lost FROM objects WHERE state = 'ready'"
    " AND source_id = %s AND (due, id) > (to_timestamp(%s), %s) AND due <= to_timestamp(%s)"
    " ORDER BY due, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
NEWEST = (
    "SELECT id, extract(epoch FROM due)::float8, coalesce(size, 0), lost FROM objects WHERE state = 'ready'"
    " AND source_id = %s AND due <= to_timestamp(%s) ORDER BY due DESC, id DESC LIMIT 1 FOR UPDATE SKIP LOCKED"
)
CLAIM = "UPDATE objects SET state = 'claimed', lease = %s WHERE id = ANY(%s::bigint[])"


def tick(tx: Transaction, turn: Callable[[Tick], T]) -> T | None:
    """As `Ledger.tick`."""
    locked = tx.rows("SELECT pg_try_advisory_xact_lock(%s, hashtext(current_schema()))", (SCHEDULING,))
    return turn(PostgresTick(tx)) if locked == [(True,)] else None


class PostgresTick:
    """`pipeline.ledger.Tick` inside a transaction that holds the scheduler's lock."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def load(self) -> Load:
        """As `Tick.load`."""
        tx = self._tx
        sources = tx.rows(
            "SELECT s.id, s.name, s.project_id, coalesce(c.ready, 0), coalesce(c.claimed, 0),"
            " extract(epoch FROM s.cursor_due)::float8, s.cursor_id, s.deficit, coalesce(c.finished, 0)"
            " FROM sources AS s LEFT JOIN LATERAL (SELECT (sum(n) FILTER (WHERE name = 'ready'))::bigint AS ready,"
            " (sum(n) FILTER (WHERE name = 'claimed'))::bigint AS claimed,"
            " (sum(n) FILTER (WHERE name = 'finished'))::bigint AS finished"
            " FROM counters WHERE source_id = s.id) AS c ON true WHERE NOT s.retired ORDER BY s.id"
        )
        (unstarted, waiting, running, alone) = tx.rows(
            "SELECT coalesce(sum(open) FILTER (WHERE started_at IS NULL AND NOT alone), 0)::bigint,"
            " count(*) FILTER (WHERE started_at IS NULL AND NOT alone), count(started_at) FILTER (WHERE NOT alone),"
            " count(*) FILTER (WHERE alone) FROM leases"
        )[0]
        ((threads,),) = tx.rows("SELECT coalesce(sum(threads), 0)::bigint FROM workers WHERE until > clock_timestamp()")
        projects = tx.rows(
            "SELECT p.id, p.name, (SELECT coalesce(sum(c.n), 0)::bigint FROM sources AS s JOIN counters AS c"
            " ON c.source_id = s.id AND c.name = 'tasks' WHERE s.project_id = p.id), p.tokens,"
            " extract(epoch FROM p.tokens_at)::float8 FROM projects AS p ORDER BY p.id"
        )
        known = standings(tx)
        return Load(
            now=tx.at,
            sources=[self._source(*row[:8])._replace(standing=known.get(row[0], Standing())) for row in sources],
            projects=[ProjectLoad(*row) for row in projects],
            unstarted=unstarted,
            running=running,
            threads=threads,
            finished=sum(row[8] for row in sources),
            waiting=waiting,
            alone=alone,
        )

    def _source(
        self, id_: int, name: str, project: int, ready: int, claimed: int, due: float, last: int, deficit: float
    ) -> SourceLoad:
        # What this turn has moved already is not in the counters' rows yet.
        moved = self._tx.counts
        ready, claimed = ready + moved[id_, "ready"], claimed + moved[id_, "claimed"]
        return SourceLoad(id_, name, project, ready, claimed, (due, last), deficit)

    def release(self, epoch: str) -> int:
        """As `Tick.release`."""
        if epoch.startswith(LOCAL):
            return 0
        return end_leases(
            self._tx, "started_at IS NULL AND epoch <> %s AND epoch NOT LIKE 'local:%%'", (epoch,), lost=False
        )

    def expire(self, limit: int) -> int:
        """As `Tick.expire`."""
        freed = 0
        for started, lost in (("IS NULL", False), ("IS NOT NULL", True)):
            chosen = f"started_at {started} AND id IN (SELECT id FROM leases WHERE until < clock_timestamp() LIMIT %s)"
            freed += end_leases(self._tx, chosen, (limit,), lost=lost)
        return freed

    def candidates(self, source: SourceLoad, quota: int) -> list[Candidate]:
        """As `Tick.candidates`."""
        rows = self._tx.rows(CANDIDATES, (source.id, *source.cursor, self._tx.at, quota))
        return [Candidate(*row) for row in rows]

    def newest(self, source: SourceLoad) -> list[Candidate]:
        """As `Tick.newest`."""
        return [Candidate(*row) for row in self._tx.rows(NEWEST, (source.id, self._tx.at))]

    def claim(
        self, source: SourceLoad, batch: Sequence[Candidate], epoch: str, seconds: float, *, alone: bool
    ) -> Claim:
        """As `Tick.claim`."""
        ids = [candidate.id for candidate in batch]
        ((lease,),) = self._tx.rows(
            "INSERT INTO leases (source_id, ids, open, alone, epoch, until)"
            " VALUES (%s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s)) RETURNING id",
            (source.id, ids, len(ids), alone, epoch, seconds),
        )
        self._tx.execute(CLAIM, (lease, array(ids)))
        self._tx.count(source.id, "ready", -len(ids))
        self._tx.count(source.id, "claimed", len(ids))
        return Claim(lease, source.name, tuple(ids), alone)

    def save(self, source_id: int, cursor: tuple[float, int], deficit: float) -> None:
        """As `Tick.save`."""
        self._tx.execute(
            "UPDATE sources SET cursor_due = to_timestamp(%s), cursor_id = %s, deficit = %s WHERE id = %s",
            (*cursor, deficit, source_id),
        )

    def spend(self, project_id: int, tokens: float) -> None:
        """As `Tick.spend`."""
        self._tx.execute(
            "UPDATE projects SET tokens = %s, tokens_at = clock_timestamp() WHERE id = %s", (tokens, project_id)
        )


def end_leases(tx: Transaction, which: str, values: Sequence[object], *, lost: bool, wait: bool = False) -> int:
    """End the leases that `which` (SQL) selects; their objects without an outcome become ready.

    `lost` says that a worker had started them and is gone: the objects are suspects then, and run alone. A
    lease that a commit holds just now is left to it, unless `wait`.
    """
    leases = tx.rows(
        f"SELECT id, ids, worker FROM leases WHERE {which} ORDER BY id FOR UPDATE {'' if wait else 'SKIP LOCKED'}",
        values,
    )
    if not leases:
        return 0
    holders = {object_id: (lease, worker) for lease, ids, worker in leases for object_id in ids}
    # One statement over all of them, in the order of the objects' numbers, as everybody locks them.
    owned = tx.rows(
        "UPDATE objects SET state = 'ready', lease = NULL, due = clock_timestamp(), attempts = attempts + %s,"
        " lost = greatest(lost, %s) WHERE id = ANY(%s) AND lease = ANY(%s) RETURNING id, source_id",
        (int(lost), int(lost), sorted(holders), [lease[0] for lease in leases]),
    )
    for _, source_id in owned:
        tx.count(source_id, "claimed", -1)
        tx.count(source_id, "ready", 1)
    if lost:
        told = (text_of(dict(zip(("lease", "worker"), holders[object_id], strict=True))) for object_id, _ in owned)
        write_history(tx, [(row[0], tx.at, "worker_lost", detail) for row, detail in zip(owned, told, strict=True)])
    tx.execute("DELETE FROM leases WHERE id = ANY(%s)", ([lease[0] for lease in leases],))
    return len(owned)
