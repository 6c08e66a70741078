"""Whether what a pass found gone may be acted on unasked."""

from __future__ import annotations

from pipeline.config import Source
from pipeline.ledger import Ledger

ARCHIVE_LIMIT = 1000
"""A pass never archives the tasks of more objects than this unasked."""


def withheld(ledger: Ledger, source: Source, source_id: int, found: int) -> str | None:
    """Why so many deletions wait for a person's word; None if they need none, or have it."""
    if not found or source.on_delete != "archive":
        return None
    total = _total(ledger, source.name)
    few = found <= ARCHIVE_LIMIT and found <= source.delete_guard * total
    if few or ledger.deletions_accepted(source_id):
        return None
    return (
        f"{found} of {total} objects are no longer in the store; their tasks are archived after"
        f" `labelfeed sources accept {source.name} --deletions`"
    )


def _total(ledger: Ledger, name: str) -> int:
    """How many objects the source has, as far as the ledger knows."""
    for row in ledger.reports().sources():
        if row["name"] == name:
            return sum(row[state] for state in ("ready", "claimed", "running", "done", "failed", "skipped"))
    return 0
