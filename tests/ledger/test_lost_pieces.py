"""Pieces of a large file that PostgreSQL has lost: after their commit was acknowledged, in a fail-over to a replica
that lagged, or because a lost transaction's number was given to another one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.config import Limits, Source
from pipeline.consumers.importer import Importer
from pipeline.consumers.renewer import Renewer
from pipeline.errors import UnavailableError
from pipeline.ledger import STAGE_ROWS, Ledger, Outcome, Reason
from pipeline.metrics import Metrics
from pipeline.parsers import Rules
from pipeline.sinks.postgres import work as working
from pipeline.stores.local import LocalStore
from pipeline.tasks import RejectedRow, Task
from tests.consumers.house import Feed
from tests.ledger.bench import Bench, rejected, task
from tests.ledger.plans import explained

ROWS = 4 * STAGE_ROWS
"""Four pieces: a parser gives parts of its own size, so that each has some more than STAGE_ROWS."""
LIMITS = Limits(workers=1)


class Losing:
    """A ledger whose database loses a piece, as `end` says: its commit was acknowledged, or nobody heard the end of it
    and its number is another transaction's by now. The rest is the real one's."""

    def __init__(self, real: Ledger, monkeypatch: pytest.MonkeyPatch, piece: int, end: str) -> None:
        self._real = real
        self._here = threading.local()
        self._piece = piece
        self._staged = 0
        execute = psycopg.Connection.execute

        def execute_instead(connection: psycopg.Connection[Any], query: Any, *values: Any, **options: Any) -> Any:
            if not getattr(self._here, "losing", False):
                return execute(connection, query, *values, **options)
            if query == "COMMIT" and end == "acknowledged":
                self._here.losing = False
                return execute(connection, "ROLLBACK")
            if query == "COMMIT":
                connection.pgconn.finish()
                raise psycopg.OperationalError("the connection is lost")
            if "pg_xact_status" in str(query):
                self._here.losing = False
                query, values = "SELECT 'committed'", ()
            return execute(connection, query, *values, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", execute_instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def lost(self) -> bool:
        """Whether the piece was staged, and is lost."""
        return self._staged > self._piece

    def stage(
        self, lease: int, object_id: int, first: int, tasks: Sequence[Task], bad: Sequence[RejectedRow]
    ) -> Callable[[], None]:
        """As `Ledger.stage`."""
        write = self._real.stage(lease, object_id, first, tasks, bad)

        def write_and_lose() -> None:
            self._here.losing = self._staged == self._piece
            self._staged += 1
            write()

        return write_and_lose


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """A folder with a large file whose last row is bad."""
    lines = [f'{{"text": "t{number}"}}' for number in range(ROWS)]
    (tmp_path / "large.jsonl").write_text("\n".join([*lines, "{nope"]))
    source = Source(name="inbox", project="cats", url="inbox", on_bad_row="reject")
    return Feed(source, LocalStore(tmp_path, settle=0), Rules.of(source))


@pytest.mark.parametrize(("piece", "end"), [
    (0, "acknowledged"), (1, "taken for committed"), (3, "acknowledged"), (3, "taken for committed"),
])  # fmt: skip
def test_a_file_of_which_a_piece_is_lost_is_imported_again(
    postgres_bench: Bench, feed: Feed, monkeypatch: pytest.MonkeyPatch, piece: int, end: str
) -> None:
    """Nothing of it is published; it is ready at once, uncounted, and the next claim brings each task once."""
    bench = postgres_bench
    ledger = Losing(bench.ledger, monkeypatch, piece, end)
    bench.note("large.jsonl", version=None)
    leases = []
    for states in ("ready", "done"):
        (claim,) = bench.claims()
        leases.append(claim.lease)
        renewer = Renewer(bench.ledger, "tester", LIMITS.lease)
        importer = Importer({"inbox": feed}, ledger, Metrics(), "tester", LIMITS, renewer)  # type: ignore[arg-type]
        with closing(importer):
            importer.run(claim.lease)
        row = bench.row("large.jsonl")
        assert (row["state"], row["attempts"], ledger.lost) == (states, int(states == "done"), True)
        assert bench.count("tasks") == (ROWS if states == "done" else 0)
    while bench.ledger.sweep(STAGE_ROWS):
        pass

    assert bench.execute("SELECT count(*), count(DISTINCT data), min(lease) FROM task_rows") == [
        (ROWS, ROWS, leases[1])
    ]
    assert bench.execute("SELECT lease, tasks, rejected FROM imports") == [(leases[1], ROWS, 1)]
    assert bench.execute("SELECT lease, row FROM rejected_rows") == [(leases[1], ROWS + 1)]


@pytest.mark.parametrize(("refused", "bad"), [(1, 1), (1, 2), (3, 3)])
def test_a_piece_that_the_database_refuses_fails_its_file(
    postgres_bench: Bench, feed: Feed, tmp_path: Path, refused: int, bad: int
) -> None:
    """What was refused does not count as lost, whichever piece held a bad row: the file ends, and no claim comes
    back."""
    bench = postgres_bench
    lines = [f'{{"text": "t{number}"}}' for number in range(ROWS)]
    lines[refused * STAGE_ROWS + STAGE_ROWS // 2] = '{"text": "refuse me"}'
    lines[bad * STAGE_ROWS + STAGE_ROWS // 2 + 1] = "{nope"
    (tmp_path / "large.jsonl").write_text("\n".join(lines))
    bench.execute("ALTER TABLE task_rows ADD CHECK (data->>'text' <> 'refuse me')")
    bench.note("large.jsonl", version=None)
    (claim,) = bench.claims()
    renewer = Renewer(bench.ledger, "tester", LIMITS.lease)
    with closing(Importer({"inbox": feed}, bench.ledger, Metrics(), "tester", LIMITS, renewer)) as importer:
        importer.run(claim.lease)
    row = bench.row("large.jsonl")
    assert (row["state"], bench.execute("SELECT code FROM objects"), bench.count("tasks")) == (
        "failed",
        [("internal",)],
        0,
    )


def stage(bench: Bench, lease: int, object_id: int, first: int, tasks: int, bad: int = 0) -> None:
    """Stage a piece."""
    pieces = [task(f"s{number}", number + 1) for number in range(first, first + tasks)]
    bench.ledger.stage(lease, object_id, first, pieces, [rejected(number + 1) for number in range(bad)])()


DONE = Outcome(0, "done", "v1", task_count=6, rejected_count=2, staged=True, shape="h1")
FAILED = Outcome(0, "failed", "v1", rejected_count=2, staged=True, reason=Reason("syntax", "x"))


@pytest.mark.parametrize(("outcome", "lost"), [
    (DONE, "task_rows WHERE position >= 3"), (DONE, "task_rows"), (DONE, "rejected_rows WHERE n = 1"),
    (FAILED, "rejected_rows WHERE n = 1"),
])  # fmt: skip
def test_what_is_not_there_is_not_published(postgres_bench: Bench, outcome: Outcome, lost: str) -> None:
    """A commit of a file whose last rows are lost writes nothing, of its neighbours neither, and says why."""
    bench = postgres_bench
    lease, (work, neighbour) = bench.begin("a", "b")
    stage(bench, lease, work.id, 0, 3, bad=1)
    stage(bench, lease, work.id, 3, 3, bad=1)
    bench.execute(f"DELETE FROM {lost}")

    with pytest.raises(UnavailableError) as caught:
        bench.commit(lease, outcome._replace(object_id=work.id), Outcome(neighbour.id, "skipped"))
    assert caught.value.code == "rows_lost"
    assert (bench.count("tasks"), bench.count("rejected")) == (0, 0)
    bench.ledger.give_back(lease)
    assert [bench.state(key) for key in ("a", "b")] == ["ready", "ready"]


@pytest.mark.parametrize("lost", ["task_rows", "task_rows WHERE position >= 3"])
def test_nothing_is_staged_behind_what_is_not_there(postgres_bench: Bench, lost: str) -> None:
    """A piece whose predecessor is lost, or that is there already, is not written."""
    bench = postgres_bench
    lease, (work,) = bench.begin("a")
    stage(bench, lease, work.id, 0, 3)
    stage(bench, lease, work.id, 3, 3)
    with pytest.raises(UnavailableError):
        stage(bench, lease, work.id, 3, 3)
    bench.execute(f"DELETE FROM {lost}")

    before = bench.count("task_rows")
    with pytest.raises(UnavailableError):
        stage(bench, lease, work.id, 6, 3, bad=1)
    assert (bench.count("task_rows"), bench.count("rejected_rows")) == (before, 0)


def test_what_is_there_is_known_by_one_look(postgres_bench: Bench) -> None:
    """However many rows are staged, the last ones of each object alone are looked at."""
    bench = postgres_bench
    lease, (work,) = bench.begin("a")
    stage(bench, lease, work.id, 0, 5000, bad=1000)
    for analyzed in (False, True):
        if analyzed:
            bench.execute("ANALYZE task_rows, rejected_rows")
        plan = explained(bench, working.STAGED, (f"{{{work.id}}}", lease))
        assert plan.text.count('"Limit"') == 2
        assert plan.buffers < 20
