"""Tasks of projects that are counted beside the turns: those without annotations, and those not delivered yet.

Counting reads many rows. It is done now and then, at most for a twentieth of the time; between two counts every task
that is imported, or comes back, is taken for one of those that are counted, and none for gone: what is archived
meanwhile may not have been one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pipeline.ledger import ProjectLoad, Reports
from pipeline.ledger.labelling import OpenThere
from pipeline.ledger.reports import Tally

COUNT_SECONDS = 1.0
"""Shortest time between two counts of one project ..."""
COUNT_SHARE = 0.05
"""... and the share of the time that counting it may take."""

Ask = Callable[[Reports, str], Tally]
"""Counts the tasks of a project that are of some kind."""


class _Counted(NamedTuple):
    told: Tally
    next: float


class Counts:
    """What was counted of some projects. Used by one thread at a time."""

    def __init__(self, projects: Iterable[str], ask: Ask) -> None:
        self._projects = tuple(projects)
        self._ask = ask
        self._counted: dict[str, _Counted] = {}

    def look(self, reports: Reports) -> None:
        """Count again where it is time to. Raises UnavailableError."""
        for project in self._projects:
            counted = self._counted.get(project)
            if counted is not None and time.monotonic() < counted.next:
                continue
            begun = time.monotonic()
            told = self._ask(reports, project)
            self._counted[project] = _Counted(told, _next_count(begun))

    def exact(self, project: ProjectLoad) -> bool:
        """Whether nothing was imported or archived, and nothing came back, since it was counted."""
        counted = self._counted.get(project.name)
        return counted is not None and not _differs(counted.told, project)

    def of(self, project: ProjectLoad) -> int:
        """How many there are now, at most."""
        counted = self._counted.get(project.name)
        if counted is None:
            return project.tasks
        return counted.told.found + _more(counted.told, project)


class CountsThere:
    """What is open of some projects whose tasks are labelled in remotes of their deliveries, as the ledger has it of
    the last counts there. Used by one thread at a time."""

    def __init__(self, projects: Iterable[str]) -> None:
        self.projects = frozenset(projects)
        self._found: dict[str, OpenThere] = {}
        self._next = 0.0

    def look(self, reports: Reports) -> None:
        """Ask the ledger again if it is time to. Raises UnavailableError."""
        begun = time.monotonic()
        if begun < self._next:
            return
        self._found = {project: reports.open_there(project) for project in self.projects}
        self._next = _next_count(begun)

    def exact(self, project: ProjectLoad) -> bool:
        """Whether nothing has changed since, and nobody is about to know better."""
        found = self._found.get(project.name)
        return found is not None and found.settled and not _differs(found, project)

    def of(self, project: ProjectLoad) -> int | None:
        """How many there are now, at most; None where it is not known yet."""
        found = self._found.get(project.name)
        if found is None or found.open is None:
            return None
        return found.open + _more(found, project)


def _next_count(begun: float) -> float:
    """When to count again, by the monotonic clock, after a count that has just ended."""
    ended = time.monotonic()
    return ended + max(COUNT_SECONDS, (ended - begun) / COUNT_SHARE)


def _differs(then: Tally | OpenThere, now: ProjectLoad) -> bool:
    return (then.imported, then.live) != (now.imported, now.tasks)


def _more(then: Tally | OpenThere, now: ProjectLoad) -> int:
    """How many tasks have come since, at most: what comes back is not imported again."""
    return max(0, now.imported - then.imported, now.tasks - then.live)


class Counting:
    """All that is counted for a scheduler. What is open of the projects in `there` is counted in remotes."""

    def __init__(
        self, unlabelled: Iterable[str] = (), undelivered: Iterable[str] = (), there: Iterable[str] = ()
    ) -> None:
        self.there = CountsThere(there)
        self.unlabelled = Counts(unlabelled, lambda reports, project: reports.open_tasks(project))
        self.undelivered = Counts(undelivered, lambda reports, project: reports.undelivered(project))

    def look(self, reports: Reports) -> None:
        """Count again where it is time to. Raises UnavailableError."""
        self.there.look(reports)
        self.unlabelled.look(reports)
        self.undelivered.look(reports)

    def open(self, project: ProjectLoad) -> int | None:
        """How many tasks of a project labellers have still before them, at most; None where it is not known yet."""
        return self._open(project).of(project)

    def open_exactly(self, project: ProjectLoad) -> bool:
        """Whether no passing of a few seconds tells that there are fewer."""
        return self._open(project).exact(project)

    def _open(self, project: ProjectLoad) -> Counts | CountsThere:
        return self.there if project.name in self.there.projects else self.unlabelled
