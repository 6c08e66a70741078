"""The scheduler's tick on PostgreSQL: what waits, what may be claimed, which claims have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from pipeline.ledger import Candidates, Claim, Load, ProjectLoad, Shared, SourceLoad, Standing, Tick
from pipeline.sinks.postgres.database import Row, Transaction, array, columns
from pipeline.sinks.postgres.granting import PostgresDeliveryTick
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.postgres.standings import standings
from pipeline.sinks.texts import text_of

T = TypeVar("T")

LOCAL = "local:"
"""Epochs of embedded queues begin so; they say nothing to other machines, so their leases just end."""
SCHEDULING = 1_279_345_991
"""The advisory lock of the tick, beside a hash of the schema's name."""

# Finding and claiming are two statements: in one, the planner joins the whole table. They hold their plans by tests.
CANDIDATES = (
    "SELECT id, extract(epoch FROM due)::float8, coalesce(size, 0), lost FROM objects WHERE state = 'ready'"
    " AND source_id = %s AND (due, id) > (to_timestamp(%s), %s) AND due <= to_timestamp(%s)"
    " ORDER BY due, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
NEWEST = (
    "SELECT id, extract(epoch FROM due)::float8, coalesce(size, 0), lost FROM objects WHERE state = 'ready'"
    " AND source_id = %s AND due <= to_timestamp(%s) ORDER BY due DESC, id DESC LIMIT 1 FOR UPDATE SKIP LOCKED"
)
LEAVING = (
    "SELECT id, extract(epoch FROM due)::float8, coalesce(size, 0), lost FROM objects WHERE state = 'ready'"
    " AND wanted_version IS NULL AND tasks > 0 AND source_id = %s AND (due, id) > (to_timestamp(%s), %s)"
    " AND due <= to_timestamp(%s) ORDER BY due, id LIMIT %s FOR UPDATE SKIP LOCKED"
)
_NAMES = ("ready", "claimed", "finished", "tasks", "read_objects", "read_tasks", "read_bytes")
_SUMS = ", ".join(f"coalesce(sum(n) FILTER (WHERE name = '{name}'), 0)::bigint" for name in _NAMES)
COUNTED = f"SELECT source_id, {_SUMS} FROM counters WHERE name = ANY('{{{','.join(_NAMES)}}}') GROUP BY source_id"
CLAIM = (
    "WITH made AS (INSERT INTO leases (source_id, ids, open, alone, epoch, until, tasks_each, bytes_each)"
    " VALUES (%s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s), %s, %s) RETURNING id)"
    " UPDATE objects SET state = 'claimed', lease = (SELECT id FROM made) WHERE id = ANY(%s::bigint[])"
    " RETURNING lease"
)


SAVE = (
    "UPDATE sources AS s SET cursor_due = to_timestamp(u.due), cursor_id = u.last, deficit = u.deficit,"
    " passed_over = u.passed_over, bytes_allowed = u.allowed, bytes_at = u.at"
    " FROM unnest(%s::float8[], %s::bigint[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::bigint[])"
    " AS u (due, last, deficit, passed_over, allowed, at, id) WHERE s.id = u.id"
)


class Counted(NamedTuple):
    """A source's counters, as far as a turn wants them."""

    ready: int
    claimed: int
    finished: int
    tasks: int
    read_objects: int
    read_tasks: int
    read_bytes: int

    @property
    def read(self) -> tuple[int, int, int]:
        """As `SourceLoad.read`."""
        return (self.read_objects, self.read_tasks, self.read_bytes)


NOTHING = Counted(0, 0, 0, 0, 0, 0, 0)


def tick(tx: Transaction, turn: Callable[[Tick], T]) -> T | None:
    """As `Ledger.tick`."""
    locked = tx.rows("SELECT pg_try_advisory_xact_lock(%s, hashtext(current_schema()))", (SCHEDULING,))
    if locked != [(True,)]:
        return None
    made = PostgresTick(tx)
    result = turn(made)
    made.finish()
    return result


class PostgresTick:
    """`pipeline.ledger.Tick` inside a transaction that holds the scheduler's lock."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._saved: dict[int, SourceLoad] = {}

    def load(self) -> Load:
        """As `Tick.load`."""
        tx = self._tx
        leases = tx.rows(
            "SELECT source_id, alone, coalesce(sum(open) FILTER (WHERE started_at IS NULL), 0)::bigint,"
            " count(*) - count(started_at), count(started_at), sum(open * tasks_each), sum(open * bytes_each)"
            " FROM leases GROUP BY 1, 2"
        )
        expected: dict[int, tuple[float, float]] = {}
        for source_id, _, _, _, _, tasks, size in leases:
            before = expected.get(source_id, (0.0, 0.0))
            expected[source_id] = (before[0] + tasks, before[1] + size)
        usual = [row for row in leases if not row[1]]
        ((threads, commits, seconds),) = tx.rows(
            "SELECT coalesce(sum(threads), 0)::bigint, coalesce(sum(commits), 0)::bigint,"
            " coalesce(sum(commit_seconds), 0) FROM workers WHERE until > clock_timestamp()"
        )
        counted = {row[0]: Counted(*row[1:]) for row in tx.rows(COUNTED)}
        rows = tx.rows(
            "SELECT id, name, project_id, retired, extract(epoch FROM cursor_due)::float8, cursor_id, deficit,"
            " passed_over, bytes_allowed, bytes_at FROM sources ORDER BY id"
        )
        present = [row for row in rows if not row[3]]
        known = standings(tx)
        return Load(
            now=tx.at,
            sources=[
                self._source(row, counted.get(row[0], NOTHING))._replace(
                    standing=known.get(row[0], Standing()), expected=expected.get(row[0], (0.0, 0.0))
                )
                for row in present
            ],
            projects=self._projects([(row[2], counted.get(row[0], NOTHING)) for row in rows]),
            unstarted=sum(row[2] for row in usual),
            running=sum(row[4] for row in usual),
            threads=threads,
            finished=sum(counted.get(row[0], NOTHING).finished for row in present),
            waiting=sum(row[3] for row in usual),
            alone=sum(row[3] + row[4] for row in leases if row[1]),
            commits=(commits, seconds),
            shared=self._shared(),
        )

    def _source(self, row: Row, counted: Counted) -> SourceLoad:
        id_, name, project, _, due, last, deficit, passed_over, *bucket = row
        # What this turn has moved already is not in the counters' rows yet.
        moved = self._tx.counts
        ready, claimed = counted.ready + moved[id_, "ready"], counted.claimed + moved[id_, "claimed"]
        return SourceLoad(
            id_, name, project, ready, claimed, (due, last), deficit, passed_over=passed_over,
            bucket=(bucket[0], bucket[1]), read=counted.read,
        )  # fmt: skip

    def _projects(self, counted: Sequence[tuple[int, Counted]]) -> list[ProjectLoad]:
        tasks: Counter[int] = Counter()
        imported: Counter[int] = Counter()
        for project, each in counted:
            tasks[project] += each.tasks
            imported[project] += each.read_tasks
        rows = self._tx.rows(
            "SELECT id, name, tokens, extract(epoch FROM tokens_at)::float8, extract(epoch FROM paused)::float8"
            " FROM projects ORDER BY id"
        )
        return [ProjectLoad(row[0], row[1], tasks[row[0]], row[2], row[3], imported[row[0]], row[4]) for row in rows]

    def _shared(self) -> Shared:
        (row,) = self._tx.rows(
            "SELECT noted_at, notes, bound, best, commits, commit_seconds, adapted_at FROM scheduling"
        )
        return Shared(row[0], row[1], (row[2], row[3], row[4], row[5], row[6]))

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

    def candidates(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.candidates`."""
        return Candidates.of(self._tx.rows(CANDIDATES, (source.id, *source.cursor, self._tx.at, quota)))

    def leaving(self, source: SourceLoad, quota: int) -> Candidates:
        """As `Tick.leaving`."""
        return Candidates.of(self._tx.rows(LEAVING, (source.id, *source.cursor, self._tx.at, quota)))

    def newest(self, source: SourceLoad) -> Candidates:
        """As `Tick.newest`."""
        return Candidates.of(self._tx.rows(NEWEST, (source.id, self._tx.at)))

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
        ids = list(batch.ids)
        values = (source.id, ids, len(ids), alone, epoch, seconds, *each, array(ids))
        lease = int(self._tx.rows(CLAIM, values)[0][0])
        self._tx.count(source.id, "ready", -len(ids))
        self._tx.count(source.id, "claimed", len(ids))
        return Claim(lease, source.name, tuple(ids), alone)

    def save(self, source: SourceLoad) -> None:
        """As `Tick.save`; it is written with all others at the end of the turn."""
        self._saved[source.id] = source

    def finish(self) -> None:
        """Write what is left to be written."""
        saved = [self._saved[number] for number in sorted(self._saved)]
        if saved:
            rows = [(*one.cursor, one.deficit, one.passed_over, *one.bucket, one.id) for one in saved]
            self._tx.execute(SAVE, columns(rows, 7))

    def deliveries(self) -> PostgresDeliveryTick:
        """As `Tick.deliveries`."""
        return PostgresDeliveryTick(self._tx)

    def spend(self, project_id: int, tokens: float) -> None:
        """As `Tick.spend`."""
        self._tx.execute(
            "UPDATE projects SET tokens = %s, tokens_at = to_timestamp(%s) WHERE id = %s",
            (tokens, self._tx.at, project_id),
        )

    def note(self, notes: str) -> None:
        """As `Tick.note`."""
        self._tx.execute("UPDATE scheduling SET notes = %s, noted_at = %s", (notes, self._tx.at))

    def press(self, pressure: tuple[float, float, int, float, float]) -> None:
        """As `Tick.press`."""
        self._tx.execute(
            "UPDATE scheduling SET bound = %s, best = %s, commits = %s, commit_seconds = %s, adapted_at = %s", pressure
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
