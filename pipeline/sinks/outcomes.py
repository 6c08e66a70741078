"""What a batch of outcomes does to the ledger's rows. Both databases write what is planned here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import orjson

from pipeline.ledger import STAGE_ROWS, Outcome, State
from pipeline.sinks.texts import attempt_text, reason_text
from pipeline.tasks import Task


class Before(NamedTuple):
    """An object's row as the commit finds it."""

    id: int
    wanted: str | None
    imported: str | None
    tasks: int
    rejected: int


class ObjectChange(NamedTuple):
    """What becomes of an object's row. None leaves a column as it is; `ended` clears `lost` and `redo`."""

    state: State
    due: float | None
    attempts: int
    ended: bool
    wanted: str | None
    imported: str | None
    sequencer: str | None
    size: int | None
    tasks: int
    rejected: int
    changes: int
    code: str | None
    reason: str | None
    finished_at: float | None
    id: int


class ImportRow(NamedTuple):
    """An import that the commit publishes."""

    object_id: int
    mode: str
    version: str | None
    shape: str
    tasks: int
    rejected: int
    bytes: int
    seconds: float


class Tables(Protocol):
    """What a commit does to an object's earlier imports, under way in its transaction."""

    def discard(self, object_id: int) -> None:
        """Mark what this lease staged as never to be published."""

    def archive(self, object_id: int) -> None:
        """Hide the live tasks; `restore` brings them back."""

    def restore(self, object_id: int) -> int:
        """Bring archived tasks back; how many are live then."""

    def supersede(self, object_id: int, state: str) -> None:
        """Make imports of `state` under other leases `replaced`: hidden for good."""

    def match(self, outcome: Outcome) -> int:
        """Put an outcome's tasks in the place of the live ones, row by row; how many rows it wrote. An annotated
        task keeps its content, and what it would become is proposed."""

    def write(self, outcome: Outcome) -> None:
        """Write an outcome's tasks as they are."""

    def adopt(self, outcome: Outcome) -> None:
        """Put the annotated ones of the live tasks into this import, each instead of the row that it is."""

    def forget_rejected(self, object_id: int) -> None:
        """Delete the rejected rows of other leases."""


class Plan:
    """The rows that a commit writes, gathered outcome by outcome."""

    def __init__(self, lease: int, at: float, tables: Tables) -> None:
        self._lease = lease
        self._at = at
        self._tables = tables
        self.objects: list[ObjectChange] = []
        self.imports: list[ImportRow] = []
        self.history: list[tuple[int, float, str, str]] = []
        self.states: Counter[str] = Counter()
        self.tasks = self.rejected = self.changes = self.finished = 0
        self.read_objects = self.read_tasks = self.read_bytes = 0

    def take_all(self, outcomes: Sequence[Outcome], owned: Mapping[int, Before]) -> None:
        """Plan outcomes. First imports, as nearly all are, touch nothing that was there, and are taken together."""
        first: list[Outcome] = []
        for outcome in outcomes:
            before = owned[outcome.object_id]
            new = outcome.state == "done" and outcome.mode == "new"
            if new and before.imported is None and not before.tasks and not before.rejected:
                first.append(outcome)
            else:
                self.take(outcome, before)
        if first:
            self._take_first(first)

    def _take_first(self, outcomes: Sequence[Outcome]) -> None:
        at = self._at
        self.objects += map(
            ObjectChange._make,
            [
                (
                    "done", None, int(one.counted), True, one.version, one.version, one.sequencer,
                    one.size if one.version else None, one.task_count, one.rejected_count, 0, None, None, at,
                    one.object_id,
                )
                for one in outcomes
            ],
        )  # fmt: skip
        self.imports += map(
            ImportRow._make,
            [
                (
                    one.object_id, "new", one.version, one.shape, one.task_count, one.rejected_count, one.size,
                    one.seconds,
                )
                for one in outcomes
            ],
        )  # fmt: skip
        count, tasks = len(outcomes), sum([one.task_count for one in outcomes])
        self.read_objects += count
        self.read_tasks += tasks
        self.read_bytes += sum([one.size for one in outcomes])
        self.states["claimed"] -= count
        self.states["done"] += count
        self.finished += count
        self.tasks += tasks
        self.rejected += sum([one.rejected_count for one in outcomes])

    def take(self, outcome: Outcome, before: Before) -> None:
        """Plan one outcome; what concerns earlier imports is done at once."""
        tasks, rejected, imported = before.tasks, before.rejected, None
        if outcome.state == "done":
            if outcome.mode not in ("ignored", "unchanged"):
                tasks, rejected = self._written(outcome, before)
            elif outcome.mode == "unchanged" and not before.tasks:
                tasks = self._tables.restore(before.id)
            imported = None if outcome.mode == "ignored" else outcome.version
        elif outcome.state in ("failed", "skipped"):
            rejected = self._rejected_only(outcome, before)
        elif outcome.state == "gone" and outcome.archive:
            self._tables.archive(before.id)
            tasks = 0
        self._put(outcome, before, tasks, rejected, imported)
        if outcome.state != "done" or outcome.mode != "new":
            self.history.append((before.id, self._at, "attempt", attempt_text(self._lease, outcome)))

    def _put(self, outcome: Outcome, before: Before, tasks: int, rejected: int, imported: str | None) -> None:
        ended, reason = outcome.state != "ready", outcome.reason
        ignored = outcome.mode == "ignored" and outcome.version != before.wanted
        self.objects.append(
            ObjectChange(
                outcome.state,
                None if ended else self._at + outcome.retry_after,
                int(outcome.counted),
                ended,
                outcome.version,
                imported,
                outcome.sequencer,
                outcome.size if outcome.version else None,
                tasks,
                rejected,
                int(ignored),
                reason.code if reason else None,
                reason_text(reason) if reason else None,
                self._at if ended else None,
                before.id,
            )
        )
        if outcome.state in ("failed", "skipped") or (
            outcome.state == "done" and outcome.mode not in ("ignored", "unchanged")
        ):
            self.read_objects += 1
            self.read_tasks += outcome.task_count
            self.read_bytes += outcome.size
        self.states["claimed"] -= 1
        self.states[outcome.state] += 1
        self.finished += ended
        self.changes += ignored
        self.tasks += tasks - before.tasks
        self.rejected += rejected - before.rejected

    def _written(self, outcome: Outcome, before: Before) -> tuple[int, int]:
        """The tasks and rejected rows that an object has once these are written."""
        written, tasks, rejected = outcome.task_count, outcome.task_count, outcome.rejected_count
        if before.imported is not None and not before.tasks:
            # Imports that show no task: archived ones mustn't come back with what is imported now.
            self._tables.supersede(before.id, "archived")
            self._tables.supersede(before.id, "live")
        if outcome.mode == "append":
            tasks, rejected = before.tasks + tasks, before.rejected + rejected
        elif before.rejected:
            self._tables.forget_rejected(before.id)
        if outcome.mode == "replace":
            # A file with many rows, now or before, is replaced as a whole: matching would hold up others.
            if not outcome.staged and before.tasks <= STAGE_ROWS:
                written = self._tables.match(outcome)
            else:
                if not outcome.staged:
                    self._tables.write(outcome)
                if before.tasks:
                    self._tables.adopt(outcome)
                self._tables.supersede(before.id, "live")
        self.imports.append(
            ImportRow(
                before.id, outcome.mode, outcome.version, outcome.shape, written, outcome.rejected_count,
                outcome.size, outcome.seconds,
            )
        )  # fmt: skip
        return tasks, rejected

    def _rejected_only(self, outcome: Outcome, before: Before) -> int:
        if outcome.staged:
            self._tables.discard(before.id)
        if before.rejected:
            self._tables.forget_rejected(before.id)
        return outcome.rejected_count


def writes_all(outcome: Outcome) -> bool:
    """Whether an outcome's tasks are written as they are, not matched with those of before."""
    return outcome.state == "done" and outcome.mode in ("new", "append")


def writes_rejected(outcome: Outcome) -> bool:
    """Whether an outcome's rejected rows are written."""
    return outcome.state in ("failed", "skipped") or (
        outcome.state == "done" and outcome.mode in ("new", "replace", "append")
    )


def undecidable(state: str | None, *, live: bool) -> str | None:
    """Why a revision can't be decided on, or None if it can; `state` is None where there is none."""
    if state is None:
        return "there is no such revision"
    if state != "proposed":
        return f"it was {state} already"
    return None if live else "its task is archived"


def annotated(annotations: str | None) -> bool:
    """Whether a task carries annotations, by the JSON text of their list."""
    return annotations is not None and annotations[1:-1].strip() != ""


def key_of(row_key: str | None) -> Callable[[Task], object] | None:
    """How a task is known again in the next version of its file: by the value of a field of its data."""
    if row_key is None:
        return None
    return lambda task: scalar(orjson.loads(task.data).get(row_key))


def scalar(value: object) -> object:
    """A value that can be a row's key, else None."""
    return value if isinstance(value, str | int | float) else None
