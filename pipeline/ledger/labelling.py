"""How many tasks labellers have still before them, where they label in the remote of a delivery.

Nothing brings annotations back, so the remote is asked now and then how many of its tasks are *open*: nobody has to
label the others any more. What it said, and how many tasks had been delivered by then, stands with the delivery. From
then on every task that is delivered is taken for an open one, and so is every task that waits for its delivery: there
are never more than that, but for what others do there, which the next count tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from pipeline.ledger.deliveries import DeliveryLoad, Failure, Step

COUNT_SECONDS = 10.0
"""Between two counts of a remote."""
LABELLED = "label_studio"
"""The kind of deliveries where tasks are labelled."""
COUNTED_NOW = "coalesce(d.what, '') = 'count' AND (d.until IS NOT NULL OR NOT d.started)"
"""In SQL, of a delivery `d`: its remote is about to be counted, or was to be and nobody began."""


class Count(NamedTuple):
    """What is known of a delivery: so many tasks were open when its remote was counted (None: it never was), so many
    were delivered `since`, and so many wait. `filled`: all that wait are known. `settled`: nobody is about to count
    again, as somebody just tried to, or as nothing is begun for it now."""

    counted: int | None
    since: int
    waiting: int
    filled: bool
    settled: bool

    @property
    def open(self) -> int | None:
        """How many are open at most, those that wait for their delivery too; None where nobody knows."""
        return self.counted + self.since + self.waiting if self.counted is not None and self.filled else None


class OpenThere(NamedTuple):
    """How many tasks of a project are open at most (None: not known yet) when `imported` tasks were ever imported into
    it and `live` ones were there, and whether that will change by no passing of a few seconds."""

    open: int | None
    imported: int
    settled: bool
    live: int = 0


def open_there(counts: Sequence[Count], imported: int, live: int = 0) -> OpenThere:
    """What is open of a project with these deliveries: as much as with the one that has most. None may be unknown."""
    known = [count.open for count in counts if count.open is not None]
    settled = all(count.settled for count in counts)
    return OpenThere(max(known) if known and len(known) == len(counts) else None, imported, settled, live)


def with_counts(
    loads: Sequence[DeliveryLoad], steps: Sequence[tuple[DeliveryLoad, Step]], now: float, counted: AbstractSet[str]
) -> Iterator[tuple[DeliveryLoad, Step]]:
    """What may be begun now (`steps`), and a count of those of the `counted` deliveries, by name, for which that is
    due: it waits for imports, which end, but not for changes, of which there may be any number."""
    due = {load.id for load in loads if load.name in counted and _due(load, now)}
    for load, step in steps:
        yield load, "count" if step == "change" and load.id in due else step
    taken = {load.id for load, _ in steps}
    yield from ((load, "count") for load in loads if load.id in due - taken)


def count_pause(found: int | Failure | None) -> float:
    """Seconds until a remote is counted again."""
    asked = found.retry_after if isinstance(found, Failure) else None
    return max(COUNT_SECONDS, asked or 0.0)


def _due(load: DeliveryLoad, now: float) -> bool:
    """Whether a remote may be counted: of a batch whose arrival is unknown, nobody knows whether it would count."""
    held = load.granted or load.paused or load.retired or load.batch == "unsure"
    return not held and load.due <= now and load.count_due <= now
