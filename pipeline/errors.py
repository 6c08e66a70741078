"""Every error of Labelfeed, split by what its catcher does next.

::

    LabelfeedError
    ├── UsageError                 a person must change something; exit code 2
    │   ├── ConfigError            ... at this path, in this line of the configuration
    │   └── NewerSchema            the database was written by a newer program
    ├── RetriableError             the same thing may work later, after `retry_after` seconds
    │   ├── UnavailableError       a server, a disk or a lock does not answer
    │   │   └── ChangesFailed      ... to some of a delivery's changes; tells what became of others
    │   ├── ObjectUnsettled        the object changed while it was read
    │   └── BatchUnsure            a delivery's batch may have arrived; ask before sending it again
    └── TerminalError              trying again cannot help
        ├── ObjectFailed           this object cannot be imported: says what, where and what to do
        ├── ObjectSkipped          this object is not for us: says why
        ├── ObjectGone             the store no longer has this object
        ├── BatchRefused           the remote refuses tasks of a delivery's batch, and took none of it
        ├── LeaseLost              somebody else owns the object now; write nothing
        ├── PositionsLost          the ledger is behind what was recorded in it; read the log again from there
        └── DataRefused            the database refuses this data; some record of the batch is bad

Each carries a `code`, one word of a bounded set, which is the same in the ledger, the metrics and
the log. Messages hold canonical URIs only: never a signature, a token or a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class LabelfeedError(Exception):
    """The root: `except LabelfeedError` catches all that Labelfeed raises on purpose."""

    code: str = "error"


class UsageError(LabelfeedError):
    """The command or the configuration asks for something that cannot be done as it stands."""

    code = "usage"


class ConfigError(UsageError):
    """The configuration is wrong at `path` (dotted, `sources.0.url`), in `line` of its file (from 1)."""

    code = "config"

    def __init__(
        self, message: str, *, path: str = "", line: int | None = None, file: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.line = line
        self.file = file
        self.hint = hint

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        head = " ".join(part for part in (f"{place}:" if place else "", f"{self.path}:" if self.path else "") if part)
        return f"{head} {self.message}".strip() + (f" ({self.hint})" if self.hint else "")


class NewerSchema(UsageError):
    """The database has a newer schema than this program knows. A role waits for it to be replaced."""

    code = "newer_schema"


class RetriableError(LabelfeedError):
    """Try again after `retry_after` seconds, or by the caller's own back-off where that is None."""

    code = "retriable"

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class UnavailableError(RetriableError):
    """A server, a disk or a lock does not answer; nothing is wrong with the object itself."""

    code = "unavailable"


class ChangesFailed(UnavailableError):
    """Some of a delivery's changes could not be brought, the last one for this reason.

    `made` is what became of the others, as `pipeline.sinks.Delivery.change` gives it; `last` is the last task that
    failed. What is neither there nor before it was not tried. `waits`: nothing is to be tried for a while.
    """

    def __init__(self, error: RetriableError, made: Mapping[int, Any], last: int, *, waits: bool) -> None:
        super().__init__(str(error), retry_after=error.retry_after, code=error.code)
        self.made = made
        self.last = last
        self.waits = waits


class ObjectUnsettled(RetriableError):
    """The object changed while it was read; what was read is of no version."""

    code = "unsettled"


class BatchUnsure(RetriableError):
    """Nobody knows whether a delivery's batch has arrived: the remote has to be asked before it is sent again.

    `handle` is the remote's own name of an import that goes on behind its answer.
    """

    code = "unsure"

    def __init__(
        self, message: str, *, retry_after: float | None = None, code: str | None = None, handle: str | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after, code=code)
        self.handle = handle


class TerminalError(LabelfeedError):
    """Trying again cannot help."""

    code = "terminal"


class ObjectFailed(TerminalError):
    """The object cannot be imported.

    `line` and `column` count from 1, `byte` from 0 (after decompression), `excerpt` is at most
    `EXCERPT_LIMIT` bytes of the place in UTF-8, `hint` says what a person can do.
    """

    EXCERPT_LIMIT: ClassVar[int] = 1024

    def __init__(
        self,
        code: str,
        message: str,
        *,
        line: int | None = None,
        column: int | None = None,
        byte: int | None = None,
        excerpt: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line
        self.column = column
        self.byte = byte
        self.excerpt = beginning(excerpt, self.EXCERPT_LIMIT) if excerpt else excerpt
        self.hint = hint


def beginning(text: str, limit: int) -> str:
    """The text's beginning of at most `limit` bytes in UTF-8, without half a sign at its end."""
    kept = text[:limit]
    return kept if kept.isascii() else kept.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


class ObjectSkipped(TerminalError):
    """The object is not for us (`no_tasks`, `unsupported_format`, `archived`): not an error of anybody."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class ObjectGone(TerminalError):
    """The store answered that there is no such object."""

    code = "gone"


class BatchRefused(TerminalError):
    """The remote refuses a delivery's batch, and has taken nothing of it.

    `reasons` are those of single tasks, by their place in the batch from 0; empty where it named none.
    """

    code = "batch_refused"

    def __init__(self, message: str, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class LeaseLost(TerminalError):
    """The claim under which the caller works has ended; whatever it holds must not be written."""

    code = "lease_lost"


class PositionsLost(TerminalError):
    """The database has lost what was recorded in it, as after a fail-over; the log is to be read again from there."""

    code = "positions_lost"


class DataRefused(TerminalError):
    """The database refuses the data itself (not the connection): some record in the batch is bad."""

    code = "refused"
