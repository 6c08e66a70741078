"""Where tasks go: the databases, which are the record of work too, and deliveries out of them.

A database implements `pipeline.ledger.Ledger`. A delivery sends committed tasks on to another system.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from pipeline.tasks import Task


class BatchItem(NamedTuple):
    """One task of a delivery's batch: our number of it, its revision, and the task."""

    id: int
    revision: int
    task: Task


class Delivery(Protocol):
    """A system that committed tasks are sent on to. Used by one thread at a time for each project.

    A batch is fixed and committed, with its number, before it is sent; a repeat sends exactly that batch.
    After an ambiguous failure (RetriableError from `send`) the batch is looked for by `find` until it is
    there or the settling time has passed; only then is it sent again.
    """

    def send(self, batch: int, items: Sequence[BatchItem]) -> dict[int, str]:
        """Send one batch; gives the remote's id for each of ours. Raises RetriableError or TerminalError."""

    def find(self, batch: int) -> dict[int, str] | Literal["absent"]:
        """The remote ids of a batch that may have arrived, or that it has not."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if it can't be used."""

    def close(self) -> None:
        """Let go of connections."""
