"""How one object of a claim ends, as pure decisions: what its tasks become, why it failed, when to try again."""

from __future__ import annotations

import random

from pipeline.config import Limits, Source
from pipeline.errors import ObjectFailed, ObjectGone, ObjectSkipped, RetriableError, UnavailableError
from pipeline.ledger import Mode, OnChange, Outcome, Reason, Work
from pipeline.tasks import RejectedRow

LONGEST_BACK_OFF_SECONDS = 600.0

NO_TASKS = "no_tasks"
TOO_MANY_BAD_ROWS = "too_many_bad_rows"


def mode_of(work: Work, version: str, on_change: OnChange) -> Mode:
    """What importing `version` does to the tasks that the object has."""
    if version == work.imported and not work.redo:
        return "unchanged"
    if not work.live:
        return "new"
    if work.redo or on_change == "replace":
        return "replace"
    return "append" if on_change == "append" else "ignored"


def back_off(
    attempts: int, first: float, retry_after: float | None, longest: float = LONGEST_BACK_OFF_SECONDS
) -> float:
    """Seconds until the next attempt after `attempts` that failed before: exponential, full jitter, bounded,
    and no sooner than the storage asked for."""
    most = min(longest, first * 2.0 ** min(attempts, 63))
    return max(random.uniform(0.0, most), retry_after or 0.0)  # noqa: S311 - spreads load, guards nothing


def of_terminal(
    work: Work, error: ObjectFailed | ObjectSkipped | ObjectGone, source: Source, version: str | None, size: int
) -> Outcome:
    """The outcome of an object that trying again does not help."""
    if isinstance(error, ObjectGone):
        return Outcome(
            work.id,
            "gone",
            reason=Reason(error.code, str(error) or "the store no longer has it"),
            archive=source.on_delete == "archive",
        )
    if isinstance(error, ObjectSkipped):
        reason = Reason(error.code, error.message, hint=error.hint)
        return Outcome(work.id, "skipped", version=version, reason=reason, size=size)
    return Outcome(work.id, "failed", version=version, reason=_reason(error), size=size)


def of_passing(work: Work, error: RetriableError, limits: Limits) -> Outcome:
    """Back-off, or failure once the attempts are used up. An outage is not the object's fault, and must not leave
    thousands of failures behind: it has attempts of its own, or where it has no end, none is used up."""
    if isinstance(error, UnavailableError):
        most = max(limits.attempts, limits.storage_attempts) if limits.storage_attempts else 0
        longest = limits.storage_backoff
    else:
        most, longest = limits.attempts, LONGEST_BACK_OFF_SECONDS
    if most and work.attempts + 1 >= most:
        hint = f"it was tried {work.attempts + 1} times; `labelfeed retry` tries again"
        return Outcome(work.id, "failed", reason=Reason(error.code, str(error), hint=hint))
    return Outcome(
        work.id,
        "ready",
        reason=Reason(error.code, str(error)),
        retry_after=back_off(work.attempts, limits.backoff, error.retry_after, longest),
        # With no end of them, attempts are counted for the back-off only, and leave most of those that have one.
        counted=most > 0 or work.attempts < limits.attempts,
    )


def of_bug(work: Work, error: Exception, version: str | None) -> Outcome:
    """An exception that is nobody's but ours. Its text may hold anything, so that only its class is told."""
    reason = Reason(
        "internal",
        f"{type(error).__name__} while the object was imported",
        hint="this is an error in Labelfeed; the log has the details",
    )
    return Outcome(work.id, "failed", version=version, reason=reason)


def bad_row(row: RejectedRow) -> ObjectFailed:
    """The error of an object that fails by one of its rows."""
    place = "" if row.line is not None else f" (row {row.row})"
    return ObjectFailed(row.code, row.message + place, line=row.line, column=row.column, excerpt=row.excerpt)


def too_many_bad_rows(first: RejectedRow, bad: int, tasks: int | None, most: str) -> ObjectFailed:
    """The error of an object of which more rows were rejected than its source allows; `tasks` is None where it was
    not read to its end."""
    seen = f"{bad} rows were rejected" if tasks is None else f"{bad} of {bad + tasks} rows were rejected"
    place = f"line {first.line}" if first.line is not None else f"row {first.row}"
    return ObjectFailed(
        TOO_MANY_BAD_ROWS,
        f"{seen}, and max_bad_rows is {most}; the first is {place}: {first.code}, {first.message}",
        line=first.line,
        column=first.column,
        excerpt=first.excerpt,
        hint="`labelfeed rejected` shows them",
    )


def _reason(error: ObjectFailed) -> Reason:
    return Reason(error.code, error.message, error.line, error.column, error.byte, error.excerpt, error.hint)
