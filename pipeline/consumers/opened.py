"""How many tasks of a project nobody has annotated, counted beside the turns.

Counting reads all of a project's tasks. It is done now and then, at most for a twentieth of the time; between two
counts every task that is imported is taken for one without annotations.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from pipeline.ledger import ProjectLoad, Reports

COUNT_SECONDS = 1.0
"""Shortest time between two counts ..."""
COUNT_SHARE = 0.05
"""... and the share of the time that counting may take."""


class _Counted(NamedTuple):
    open: int
    live: int
    next: float


class OpenTasks:
    """What was counted of the projects whose labellers are to have enough and no more. Used by one thread at a time."""

    def __init__(self, projects: Iterable[str]) -> None:
        self._projects = tuple(projects)
        self._counted: dict[str, _Counted] = {}

    def look(self, reports: Reports) -> None:
        """Count again where it is time to. Raises UnavailableError."""
        for project in self._projects:
            counted = self._counted.get(project)
            if counted is not None and time.monotonic() < counted.next:
                continue
            begun = time.monotonic()
            found, live = reports.open_tasks(project)
            ended = time.monotonic()
            pause = max(COUNT_SECONDS, (ended - begun) / COUNT_SHARE)
            self._counted[project] = _Counted(found, live, ended + pause)

    def exact(self, project: ProjectLoad) -> bool:
        """Whether nothing was imported since it was counted."""
        counted = self._counted.get(project.name)
        return counted is not None and counted.live == project.tasks

    def of(self, project: ProjectLoad) -> int:
        """How many there are now, at most."""
        counted = self._counted.get(project.name)
        if counted is None:
            return project.tasks
        return max(0, counted.open + project.tasks - counted.live)
