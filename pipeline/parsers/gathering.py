"""Outcomes of items, gathered into bounded pieces, and the places in a text that they speak of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.parsers.contract import PIECE_BYTES, PIECE_TASKS
from pipeline.tasks import Parsed, RejectedRow, Task


@dataclass(slots=True)
class Gathered:
    """Tasks and rejected rows that wait to leave in pieces, in the order in which they came."""

    outcomes: list[Task | RejectedRow] = field(default_factory=list)
    _ready: list[Parsed] = field(default_factory=list)

    def add_piece(self, tasks: list[Task]) -> None:
        """Add tasks that are a bounded piece already."""
        self._ready += self._cut()
        self._ready.append(Parsed(tasks))

    def pieces(self) -> list[Parsed]:
        """All that waits, in pieces; it waits no longer."""
        ready, self._ready = self._ready, []
        return [*ready, *self._cut()]

    def _cut(self) -> Iterator[Parsed]:
        outcomes, self.outcomes = self.outcomes, []
        tasks: list[Task] = []
        rejected: list[RejectedRow] = []
        size = 0
        for outcome in outcomes:
            if isinstance(outcome, Task):
                tasks.append(outcome)
                size += outcome.size()
            else:
                rejected.append(outcome)
                size += len(outcome.excerpt)
            if len(tasks) + len(rejected) >= PIECE_TASKS or size >= PIECE_BYTES:
                yield Parsed(tasks, rejected)
                tasks, rejected, size = [], [], 0
        if tasks or rejected:
            yield Parsed(tasks, rejected)


class Places:
    """Lines and columns (from 1) of rising positions in a text that itself begins at a line and column."""

    __slots__ = ("_column", "_line", "_start", "_text")

    def __init__(self, text: str, line: int, column: int) -> None:
        self._text = text
        self._line = line
        self._column = column
        self._start = 0

    def of(self, position: int) -> tuple[int, int]:
        """The place of a position, which is no smaller than the one asked for before."""
        newline = self._text.rfind("\n", self._start, position)
        if newline >= 0:
            self._line += self._text.count("\n", self._start, position)
            self._column = position - newline
        else:
            self._column += position - self._start
        self._start = position
        return self._line, self._column
