"""Where tasks go: the databases, which are the record of work too, and deliveries out of them.

A database implements `pipeline.ledger.Ledger`. A delivery sends committed tasks on to another system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pipeline.ledger.deliveries import Change, ChangeOutcome, Item

CHANGE_SECONDS = 150.0
"""So long one request that changes something may take, from the `ready` before it until nothing more comes of it; for
a delivery whose time-out is longer, that long."""


class Encoded(NamedTuple):
    """A task of a batch as it goes on the wire: our number of it, and its bytes."""

    id: int
    body: bytes


class Delivery(Protocol):
    """A system that committed tasks are sent on to. Used by one thread at a time, except that `encode` and `size` are
    called while another one sends.

    A batch is fixed and committed, with its name, before it is sent; a repeat sends exactly that batch. After an
    ambiguous failure the batch is looked for by `find` until it is there or the settling time has passed; only
    then is it sent again. Retries, intervals, limits and leases are the caller's; a delivery does each thing once.
    """

    def encode(self, batch: str, item: Item) -> bytes:
        """A task as it goes on the wire in the batch of this name."""

    def size(self, bodies: int, tasks: int) -> int:
        """Bytes on the wire of a batch of so many tasks, whose own bytes are `bodies` together."""

    def send(
        self,
        batch: str,
        tasks: Sequence[Encoded],
        ready: Callable[[], None],
        named: Callable[[str], None] = lambda _: None,
    ) -> Mapping[int, str]:
        """Send one batch; gives the remote's id for each of our numbers.

        `ready` is called before every part that is sent, and raises LeaseLost once it is too late to begin; from there
        it may take the delivery's time-out until the part is out, and once more until the answer. `named` is called
        with the remote's own name of an import that goes on behind its answer, before that is waited for; the wait may
        last for the delivery's time-out, and two questions.

        Raises:
            UnavailableError: it surely did not arrive, and may later; `retry_after` is obeyed.
            BatchUnsure: it may have arrived.
            BatchRefused: nothing of it was taken, and never will be as it is.
        """

    def find(
        self, batch: str, handle: str | None, going: Callable[[], None] = lambda: None
    ) -> Mapping[int, str] | Literal["absent"]:
        """The remote ids of a batch that may have arrived, by our numbers, or that it has not arrived (yet).

        `handle` is what `named` was called with, or BatchUnsure gave. Raises UnavailableError, also (`goes_on`) where
        the remote says that the import with this handle has not ended, and BatchRefused where it says now that it has
        failed, and nothing of it is there. A question that it refuses proves nothing: that is an UnavailableError.

        `going` is called before each of several questions, and raises LeaseLost where the grant has ended, or
        UnavailableError where it has taken too long.
        """

    def change(
        self, changes: Sequence[Change], name: str, ready: Callable[[], None], most: int
    ) -> Mapping[int, tuple[ChangeOutcome, str]]:
        """Bring updates and deletions of single tasks, under a name that is new each time, as a batch's are: it ends
        with a number above those of all batches and changes that were brought before. Gives our number → what came of
        it, and why. What is not in the answer is tried again. Where several go together, they have at most `most`
        bytes; one that is larger by itself is kept from there. Raises UnavailableError, and ChangesFailed where others
        were tried, too: it tells what became of them.

        `ready` is called before every request that changes something, and raises LeaseLost where the grant might end
        within such a request: another sender may have brought later changes by then.
        """

    def open_tasks(self) -> int | None:
        """How many of the remote's tasks somebody has still to label; None where nobody labels. Raises
        UnavailableError."""

    def label_config(self) -> str | None:
        """The remote's labelling configuration, where it has one. Raises UnavailableError."""

    def ping(self) -> str:
        """One sentence that says what was found there; raises if it can't be used."""

    def close(self) -> None:
        """Let go of connections."""
