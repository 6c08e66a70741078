"""Why a source is not listed, or its notifications are not heard: kept in the ledger, so that `status` can tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import LabelfeedError
from pipeline.ledger import Ledger, Part


class Problems:
    """What is wrong with one source now, as its runner finds it. What is known already is not written again."""

    def __init__(self, ledger: Ledger, source_id: int) -> None:
        self._ledger = ledger
        self._source_id = source_id
        self._told: dict[Part, tuple[str, str] | None] = {}

    @contextmanager
    def told_of(self, part: Part) -> Iterator[None]:
        """Whatever error ends the block is told of, and goes on."""
        try:
            yield
        except LabelfeedError as error:
            self.tell(part, error)
            raise

    def tell(self, part: Part, error: LabelfeedError) -> None:
        """A part of the source does not work."""
        self._write(part, (error.code, str(error)))

    def solved(self, part: Part) -> None:
        """A part of the source works."""
        self._write(part, None)

    def _write(self, part: Part, problem: tuple[str, str] | None) -> None:
        if part in self._told and self._told[part] == problem:
            return
        # A database that does not answer has a word of its own in the logs, and is told again.
        with suppress(LabelfeedError):
            self._ledger.note_problem(self._source_id, part, problem)
            self._told[part] = problem
