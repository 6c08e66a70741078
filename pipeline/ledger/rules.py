"""What an event, or a person, does to an object, as pure functions on what the ledger knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pipeline.errors import PositionsLost
from pipeline.events import ObjectEvent, Sequencer

State = Literal["ready", "claimed", "done", "failed", "skipped", "gone", "out_of_scope"]
"""Where an object stands in the ledger's row. `claimed` is shown as `running` once its lease was started,
and every state as `retired` while its source is not in the configuration."""

STATES: tuple[State, ...] = ("ready", "claimed", "done", "failed", "skipped", "gone", "out_of_scope")
ENDED: frozenset[State] = frozenset({"done", "failed", "skipped", "gone", "out_of_scope"})

OnChange = Literal["ignore", "replace", "append"]


class Known(NamedTuple):
    """What the ledger knows of an object that an event speaks of."""

    id: int
    key: str
    state: State
    wanted: str | None
    imported: str | None
    sequencer: str | None
    last_event: float

    @property
    def asked(self) -> bool:
        """Whether the store is asked for this object anyway, whatever its version."""
        return self.wanted is None and self.state in ("ready", "claimed")


Effect = Literal["new", "changed", "superseded", "asked", "ignored", "duplicate", "stale", "gone", "unknown"]
"""What became of an event: a new object; a new version of one; a new version whose forerunner `append` never read;
the store must be asked; a change that `on_change: ignore` only counts; nothing new; older than what is known; the
object is gone; a deletion of something never seen."""


class Change(NamedTuple):
    """What an event does to an object's row. `state` None leaves the state, the lease and the attempts."""

    effect: Effect
    state: State | None = None
    wanted: str | None = None
    sequencer: str | None = None


def on_event(row: Known | None, event: ObjectEvent, on_change: OnChange) -> Change:
    """The row of the state × event table that applies (docs/architecture.md prints the table).

    Whenever `state` is "ready" the caller also clears the lease, sets attempts to 0 and makes the row due
    at once, in the same statement, so that a worker with an older version cannot commit. On "changed" and
    "superseded" it forgets lost workers, too: another content may not kill them.
    """
    if row is None:
        if event.kind == "deleted":
            return Change("unknown")
        return Change("new", "ready", event.version, _text(event.sequencer))
    known = Sequencer.parse(row.sequencer)
    if event.sequencer is not None and known is not None and known.after(event.sequencer):
        return Change("stale", None, row.wanted, row.sequencer)
    sequencer = _text(event.sequencer) or row.sequencer
    deleted = event.kind == "deleted"
    if row.state == "ready" and row.wanted is None and (deleted or event.version is None):
        return Change("duplicate", None, None, sequencer)
    if deleted:
        return _on_deletion(row, event.version, sequencer)
    return _on_version(row, event.version, sequencer, on_change)


def _on_deletion(row: Known, version: str | None, sequencer: str | None) -> Change:
    if row.state == "gone":
        return Change("duplicate", None, row.wanted, sequencer)
    if row.state in ("failed", "skipped") and row.imported is None and version in (None, row.wanted):
        return Change("gone", "gone", row.wanted, sequencer)
    return Change("asked", "ready", None, sequencer)


def _on_version(row: Known, version: str | None, sequencer: str | None, on_change: OnChange) -> Change:
    if version is None:
        return Change("asked", "ready", None, sequencer)
    if row.state == "gone":
        return Change("changed", "ready", version, sequencer)
    if row.state == "out_of_scope":
        return Change("changed", "done" if version == row.imported else "ready", version, sequencer)
    if row.state == "done":
        return _on_done(row, version, sequencer, on_change)
    if version == row.wanted:
        return Change("duplicate", None, version, sequencer)
    unread = on_change == "append" and row.state in ("ready", "claimed") and row.wanted not in (None, row.imported)
    return Change("superseded" if unread else "changed", "ready", version, sequencer)


def _on_done(row: Known, version: str, sequencer: str | None, on_change: OnChange) -> Change:
    if version == row.imported:
        return Change("duplicate", None, version, sequencer)
    if on_change == "ignore":
        return Change("duplicate" if version == row.wanted else "ignored", None, version, sequencer)
    return Change("changed", "ready", version, sequencer)


def _text(sequencer: Sequencer | None) -> str | None:
    return None if sequencer is None else str(sequencer)


def on_retry(state: State, *, running: bool, force: bool) -> str | None:
    """Why an object cannot be put back by hand, or None if it can."""
    if running:
        return "it is running; wait until it ends"
    if state in ("ready", "claimed"):
        return "it is waiting already"
    if state == "done" and not force:
        return "it is imported; --force imports it again in its tasks' place"
    if state == "gone":
        return "the store no longer has it"
    if state == "out_of_scope":
        return "the configuration no longer covers it"
    return None


def check_positions(known: Mapping[int, int], expected: Mapping[int, int]) -> None:
    """Hold the ledger's positions in a log against those that were recorded there. Raises PositionsLost."""
    lost = {partition: at for partition, at in expected.items() if known.get(partition, 0) < at}
    if lost:
        told = ", ".join(
            f"{at} to {known.get(partition, 0)} in partition {partition}" for partition, at in lost.items()
        )
        raise PositionsLost(f"the ledger fell back from {told}; the event log is read again from there")
