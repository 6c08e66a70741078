"""The record of work: states of an object, what moves it from one to another, and what a database must do.

`rules` and `matching` are pure functions; `sinks/sqlite` and `sinks/postgres` apply them inside their
transactions, and are what `protocol` asks for. Nothing here does input or output.

Words: an *object* is a key of a source. A *lease* is a 64-bit number, one per claim, never used twice; a
claim covers a batch of objects and makes one message. The lease number is also the number of the import
that comes of it. Versions are compared for equality only; order exists between two sequencers of a kind.
"""

from __future__ import annotations

from pipeline.ledger.matching import NewRow, OldRow, Placed, RowMatch, content_of, match_placed, match_rows
from pipeline.ledger.protocol import NOTHING_EXPECTED, Ledger, Part, Pass, SourceIdentity, SourceRow
from pipeline.ledger.reports import OWN_CODES, Audit, Filter, Reports, RevisionFilter
from pipeline.ledger.rules import (
    ENDED,
    STATES,
    Change,
    Effect,
    Known,
    OnChange,
    State,
    check_positions,
    on_event,
    on_retry,
)
from pipeline.ledger.scheduling import Candidate, Candidates, Claim, Load, ProjectLoad, Shared, SourceLoad, Tick
from pipeline.ledger.work import (
    LONGEST_PROBE_SECONDS,
    PAUSE_AFTER,
    PROBE_SECONDS,
    Committed,
    Mode,
    Outcome,
    Reason,
    Standing,
    Work,
    fared,
)

__all__ = [
    "ENDED",
    "HISTORY_LIMIT",
    "LONGEST_PROBE_SECONDS",
    "LOST_WORKERS_LIMIT",
    "NOTHING_EXPECTED",
    "OWN_CODES",
    "PAUSE_AFTER",
    "PROBE_SECONDS",
    "STAGE_BYTES",
    "STAGE_ROWS",
    "STATES",
    "Audit",
    "Candidate",
    "Candidates",
    "Change",
    "Claim",
    "Committed",
    "Effect",
    "Filter",
    "Known",
    "Ledger",
    "Load",
    "Mode",
    "NewRow",
    "OldRow",
    "OnChange",
    "Outcome",
    "Part",
    "Pass",
    "Placed",
    "ProjectLoad",
    "Reason",
    "Reports",
    "RevisionFilter",
    "RowMatch",
    "Shared",
    "SourceIdentity",
    "SourceLoad",
    "SourceRow",
    "Standing",
    "State",
    "Tick",
    "Work",
    "check_positions",
    "content_of",
    "fared",
    "match_placed",
    "match_rows",
    "on_event",
    "on_retry",
]

LOST_WORKERS_LIMIT = 3
"""An object whose child process has died this often is `failed: worker_lost`."""
HISTORY_LIMIT = 20
"""Events and attempts that the ledger remembers of one object."""
STAGE_ROWS = 10_000
STAGE_BYTES = 8 * 1024 * 1024
"""A file with more rows or bytes than this is written in pieces as an unpublished import."""
