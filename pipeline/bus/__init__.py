"""The event log: a durable, partitioned sequence of hints, of which a consumer remembers its place.

Offsets: a record's offset is its place in its partition. A consumer's *position* is the offset of the
next record that `poll` will give. The ledger keeps the position that its rows reflect and is the one that
counts: on assignment a consumer starts from it (`start`); what `commit` stores in the log itself is for
tools that show lag. A log may repeat and reorder, and after its retention it forgets; the ledger copes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.events import ObjectEvent, UndecodableEvent
from pipeline.metrics import Concern

Offsets = Mapping[int, int]
"""Partition → offset."""
Spans = Mapping[int, tuple[int, int]]
"""Partition → its first offset, and the one after its last."""


Refused = Callable[[str], object]
"""Is told, of each record that can't be put back on the log, which one that is and why."""


def unheard(_reason: str) -> None:
    """Nobody asks what was refused."""


class Record(NamedTuple):
    """One record of the log: its place, and the event in it, or why there is none."""

    partition: int
    offset: int
    event: ObjectEvent | UndecodableEvent


class DeadLetter(NamedTuple):
    """A record that was put aside: when (seconds since 1970), why, and the event in it, if it is one."""

    at: float
    reason: str
    event: ObjectEvent | UndecodableEvent


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll gave: records in order of each partition, and the positions after all that it read. There may be
    positions without records, behind messages that concern nobody, but none where nothing was read."""

    records: Sequence[Record]
    positions: Offsets


class Consumer(Protocol):
    """One member of the group that reads the log. Used by one thread."""

    def poll(self, limit: int, timeout: float) -> Polled:
        """Up to `limit` records, waiting up to `timeout` seconds for the first. Raises RetriableError."""

    def commit(self, positions: Offsets) -> None:
        """Tell the log how far the ledger has come. Called after the ledger's own commit."""

    def dead(self, records: Sequence[Record], reasons: Sequence[str]) -> None:
        """Put records aside with their reasons, durably, before their offsets are committed."""

    def rest(self, seconds: float) -> None:
        """Let so much time pass without reading, and stay in the group: nobody else takes over what waits here. Raises
        RetriableError."""

    def close(self) -> None:
        """Leave the group at once, so that others need not wait for a time-out."""


class EventLog(Protocol):
    """The log. Thread-safe."""

    @property
    def name(self) -> str:
        """What the ledger keeps this log's offsets under. Raises RetriableError if the log must be asked for it."""

    def publish(self, events: Sequence[ObjectEvent]) -> Offsets:
        """Append events; when it returns they are durable. Gives, per partition, the position after them."""

    def consumer(self, start: Callable[[Sequence[int]], Offsets]) -> Consumer:
        """Join the group. `start` is asked for the ledger's positions whenever partitions are assigned."""

    def end(self) -> Offsets:
        """The position after the last record, by partition."""

    def prune(self, older_than: float) -> int:
        """Forget records that all have read and that are older than so many seconds; how many went."""

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """The newest records that were put aside, newest first; of several for one object just the newest."""

    def replay_dead(self, refused: Refused = unheard) -> int:
        """Put every dead letter that was not yet replayed on the log's end; how many went."""

    def replay(self, spans: Spans, refused: Refused = unheard) -> int:
        """Put records of the log on its end once more, as discovered by `replay`; how many went. Those that
        retention took are passed over."""

    def since(self, at: float) -> Spans:
        """The spans of all records from a time on (seconds since 1970) to the present end."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if the log can't be used."""

    def check_here(self) -> None:
        """Raise UsageError where this machine lacks what the configuration names of it, such as a file."""

    def concerns(self) -> Sequence[Concern]:
        """What works but should be mended. Raises RetriableError."""

    def close(self) -> None:
        """Let go of connections."""
