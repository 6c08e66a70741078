"""The rows of one object as its parser gives them: in memory while they are few, else staged in pieces.

A piece is written while the next one is parsed; at most one is on its way, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

from pipeline.config import ParseOptions
from pipeline.consumers.outcomes import bad_row, too_many_bad_rows
from pipeline.errors import UnavailableError, UsageError
from pipeline.faults import reached
from pipeline.ledger import STAGE_BYTES, STAGE_ROWS, Ledger
from pipeline.tasks import Parsed, RejectedRow, Task


class DatabaseDown(Exception):
    """The ledger did not answer, or refused us; nothing is wrong with the object at hand."""

    def __init__(self, error: UnavailableError | UsageError) -> None:
        super().__init__(str(error))
        self.error = error


class Rows:
    """Gathers the pieces of one object. `before_stage` is called before anything is written; `stager` writes.

    Whoever stops adding calls `finish` or `abandon` before the object's outcome is committed.
    """

    __slots__ = (
        "_before_stage", "_fail", "_lease", "_ledger", "_most", "_object_id", "_pieces", "_staged_rejected",
        "_staged_tasks", "_stager", "_under_way", "_written", "bytes", "first_rejected", "rejected", "staged", "tasks",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        lease: int,
        object_id: int,
        stager: Executor,
        options: ParseOptions,
        before_stage: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._stager = stager
        self._under_way: Future[None] | None = None
        self._lease = lease
        self._object_id = object_id
        self._fail = options.on_bad_row == "fail"
        self._most = options.max_bad_rows
        self._before_stage = before_stage
        self._pieces = 0
        self._staged_tasks = 0
        self._staged_rejected = 0
        self._written = (0, 0)
        self.tasks: list[Task] = []
        self.rejected: list[RejectedRow] = []
        self.first_rejected: RejectedRow | None = None
        self.staged = False
        self.bytes = 0

    def add(self, piece: Parsed) -> None:
        """Take the next piece. Raises ObjectFailed at a rejected row that is one too many for the source, LeaseLost,
        and DatabaseDown."""
        if piece.restart:
            self._restart()
        if piece.rejected:
            self._reject(piece.rejected)
        self._pieces += 1
        if self._pieces == 1:
            # The usual file is one piece: its list is taken as it is, and nobody need know its size.
            self.tasks = piece.tasks
            return
        if self._pieces == 2:  # noqa: PLR2004 - the first one has not been counted
            self.bytes = _size(self.tasks)
        self.tasks.extend(piece.tasks)
        self.bytes += _size(piece.tasks)
        if len(self.tasks) + len(self.rejected) >= STAGE_ROWS or self.bytes >= STAGE_BYTES:
            self._stage()

    @property
    def task_count(self) -> int:
        """Tasks so far, staged ones too."""
        return self._staged_tasks + len(self.tasks)

    @property
    def rejected_count(self) -> int:
        """Rejected rows so far, staged ones too."""
        return self._staged_rejected + len(self.rejected)

    def finish(self) -> None:
        """Stage what is left of a file that was staged in part. Raises as `add`, and where too large a share of all
        rows was rejected."""
        most, bad, tasks = self._most, self.rejected_count, self.task_count
        if isinstance(most, float) and bad > most * (bad + tasks) and tasks and self.first_rejected is not None:
            raise too_many_bad_rows(self.first_rejected, bad, tasks, f"{100 * most:g}%")
        if self.staged and (self.tasks or self.rejected):
            self._stage()
        self.settle()

    def abandon(self) -> None:
        """The object ends without tasks: drop those in memory; what was rejected joins what is written already.
        Raises LeaseLost and DatabaseDown."""
        self.tasks = []
        if self.staged and self.rejected:
            self._stage()
        self.settle()

    def settle(self) -> None:
        """Wait for the piece that is on its way. Raises LeaseLost and DatabaseDown."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        try:
            _answered(under_way.result)
        except Exception:
            # What is not there must not count: the ledger would take it for lost.
            self._staged_tasks, self._staged_rejected = self._written
            raise

    def _reject(self, rejected: list[RejectedRow]) -> None:
        first = self.first_rejected = self.first_rejected or rejected[0]
        if self._fail:
            raise bad_row(rejected[0])
        self.rejected.extend(rejected)
        if isinstance(self._most, int) and self.rejected_count > self._most:
            raise too_many_bad_rows(first, self.rejected_count, None, str(self._most))

    def _restart(self) -> None:
        if self.staged:
            self.settle()
            _answered(lambda: self._ledger.unstage(self._lease, self._object_id))
        self.tasks, self.rejected, self.first_rejected = [], [], None
        self._pieces = self.bytes = self._staged_tasks = self._staged_rejected = 0

    def _stage(self) -> None:
        self._before_stage()
        # Made ready here, so that the database is not waited for with it, nor it with the database.
        write = self._ledger.stage(self._lease, self._object_id, self._staged_tasks, self.tasks, self.rejected)
        self.settle()
        self._under_way = self._stager.submit(_write, write)
        self.staged = True
        self._written = (self._staged_tasks, self._staged_rejected)
        self._staged_tasks += len(self.tasks)
        self._staged_rejected += len(self.rejected)
        self.tasks, self.rejected = [], []
        self._pieces = self.bytes = 0


def _write(write: Callable[[], None]) -> None:
    write()
    reached("worker.staged")


def _size(tasks: list[Task]) -> int:
    return sum([task.size() for task in tasks])


def _answered(call: Callable[[], None]) -> None:
    """The ledger's failures are told from the store's, which are of the same class."""
    try:
        call()
    except (UnavailableError, UsageError) as error:
        raise DatabaseDown(error) from error
