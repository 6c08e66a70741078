"""What a worker gets and gives back, and how a source fares by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.tasks import RejectedRow, Task

PAUSE_AFTER = 20
"""A source is paused once so many of its objects have failed one after another, all with the same code ..."""
PROBE_SECONDS = 2.0
LONGEST_PROBE_SECONDS = 300.0
"""... and then one object at a time is tried, at intervals that double from the first to the second of these."""


class Work(NamedTuple):
    """One object of a started claim, as its worker gets it.

    `imported` is the version whose tasks exist, `live` whether those tasks are to be seen (not archived),
    `redo` that it was put back by hand with force. `attempts` and `lost` are counts before this attempt, `trace` is
    the trace of the event that made it ready.
    """

    id: int
    source: str
    key: str
    wanted: str | None
    imported: str | None
    live: bool
    redo: bool
    attempts: int
    lost: int
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an object ended as it did, for a person: what, where, and what to do."""

    code: str
    message: str
    line: int | None = None
    column: int | None = None
    byte: int | None = None
    excerpt: str | None = None
    hint: str | None = None


Mode = Literal["new", "replace", "append", "unchanged", "ignored"]
"""What a done object does to the tasks: writes the first ones; puts its own in the place of the old; adds
its own; nothing, as the version read is the imported one (archived tasks come back); nothing, as the
policy protects the tasks that exist."""


class Outcome(NamedTuple):
    """How one object of a claim ended. Only `done` writes tasks; `ready` means back off and try again.

    `version` is the one that was really read, None where none was. With `staged`, tasks and rejected rows
    were given to `stage` before and the lists here hold none; the counts always hold. `shape` is a hash
    of what shaped the import (configuration, parser version).
    """

    object_id: int
    state: Literal["done", "failed", "skipped", "gone", "ready"]
    version: str | None = None
    sequencer: str | None = None
    mode: Mode = "new"
    tasks: Sequence[Task] = ()
    rejected: Sequence[RejectedRow] = ()
    task_count: int = 0
    rejected_count: int = 0
    staged: bool = False
    reason: Reason | None = None
    retry_after: float = 0.0
    counted: bool = True
    size: int = 0
    shape: str = ""
    row_key: str | None = None
    archive: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit wrote: ids whose outcome stands, ids that another owner had by then, and tasks."""

    kept: frozenset[int]
    lost: frozenset[int]
    tasks: int = 0


class Standing(NamedTuple):
    """How a source's objects have ended of late: `failing` is how many failed one after another with `code`.

    `paused` says by whom it is paused: a person (`hand`), who alone can end that, or its own `failures`, which
    the next object that passes ends. `since` is when; `probe_due` is when the next object may be tried.
    """

    failing: int = 0
    code: str | None = None
    paused: Literal["hand", "failures"] | None = None
    since: float | None = None
    probe_due: float = 0.0


def fared(standing: Standing, outcomes: Sequence[Outcome], at: float) -> Standing:
    """A source's standing after some more outcomes, in their order, `at` the database's time."""
    for outcome in outcomes:
        if outcome.state == "failed" and outcome.reason is not None:
            standing = _failed(standing, outcome.reason.code, at)
        elif outcome.state == "done" and outcome.mode not in ("unchanged", "ignored"):
            if standing.paused == "failures":
                standing = Standing()
            elif standing.failing:
                standing = standing._replace(failing=0, code=None)
    return standing


def _failed(standing: Standing, code: str, at: float) -> Standing:
    failing = standing.failing + 1 if code == standing.code else 1
    standing = standing._replace(failing=failing, code=code)
    if standing.paused is None and failing >= PAUSE_AFTER:
        standing = standing._replace(paused="failures", since=at, probe_due=at + PROBE_SECONDS)
    elif standing.paused == "failures":
        doublings = max(0, min(failing - PAUSE_AFTER, 30))
        standing = standing._replace(probe_due=at + min(LONGEST_PROBE_SECONDS, PROBE_SECONDS * 2.0**doublings))
    return standing
