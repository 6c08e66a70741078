"""Questions that people ask of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from pipeline.ledger.labelling import OpenThere
from pipeline.ledger.rules import State

OWN_CODES = ("unsettled", "retriable")
"""Codes of passing errors that are the object's own: all others tell of storage that does not answer."""


class Filter(NamedTuple):
    """Which objects are asked for."""

    source: str | None = None
    state: str | None = None
    code: str | None = None


class Tally(NamedTuple):
    """How many of a project's tasks were `found` to be of the kind that was counted; how many were ever `imported`
    into it, and how many were `live`, at that moment."""

    found: int = 0
    imported: int = 0
    live: int = 0


class RevisionFilter(NamedTuple):
    """Which proposed revisions are asked for: those that wait to be decided on, or with `decided` all there ever
    were."""

    source: str | None = None
    object_id: int | None = None
    decided: bool = False


class Reports(Protocol):
    """Questions that people ask. Reads only, in pages, so that no long reader holds anything up."""

    def sources(self) -> list[dict[str, Any]]:
        """Per source: `name, project, retired, uri`, a count for each state (`ready, claimed, running, done,
        failed, skipped, gone, out_of_scope`), `tasks, rejected, changes, oldest_ready` (seconds since 1970),
        `last_pass`
        (a dict or None), `problems` (dicts of `part, code, message, since`: why it is not listed or heard),
        `finished` (objects that ever ended), `finished_at`, `paused` (None, or a dict of `by`
        (`hand` or `failures`), `since`, `failing`, `code`, as in `Standing`), `revisions` (proposed ones that wait to
        be decided on)."""

    def projects(self) -> list[dict[str, Any]]:
        """Per project: `name, tasks, in_flight` (tasks that what is claimed should bring), `paused` (since when, or
        None)."""

    def scheduling(self) -> dict[str, Any]:
        """What the schedulers last said, `at` when: `sources` and `projects`, each from names to what they wait for."""

    def open_tasks(self, project: str) -> Tally:
        """A project's live tasks without annotations."""

    def open_there(self, project: str) -> OpenThere:
        """A project's tasks that are open where they are labelled, and those that wait for their delivery there."""

    def undelivered(self, project: str) -> Tally:
        """Tasks that the delivery of a project that is furthest behind has yet to deliver."""

    def objects(self, which: Filter, after: int, limit: int) -> list[dict[str, Any]]:
        """Objects by id: `id, source, key, state, version, imported_version, size, attempts, tasks, rejected,
        reason (dict or None), not_before, first_seen, last_event, finished_at, trace`."""

    def find(self, source: str | None, key: str) -> list[dict[str, Any]]:
        """The objects with this key, of any source where `source` is None."""

    def history(self, object_id: int) -> list[dict[str, Any]]:
        """What happened to an object, oldest first: `at, kind, ...`."""

    def imports(self, object_id: int) -> list[dict[str, Any]]:
        """An object's imports: `lease, version, state, mode, tasks, rejected, bytes, at, seconds`."""

    def tasks(self, project: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Live tasks by id: `id, project, source, key, version, position, row, external_id` and, as JSON text,
        `data, annotations, predictions, meta, extra`."""

    def object_tasks(self, object_id: int, limit: int) -> list[dict[str, Any]]:
        """The live tasks of one object, in its order; as `tasks` gives them."""

    def rejected(self, which: Filter, after: tuple[int, int, int], limit: int) -> list[dict[str, Any]]:
        """Rejected rows by (object, lease, number): those, and `source, key, row, line, column, code, message,
        excerpt`."""

    def revisions(self, which: RevisionFilter, after: int, limit: int) -> list[dict[str, Any]]:
        """Revisions that were proposed of annotated tasks, by id: `id, source, key, object_id, task_id, version,
        state` (`proposed, accepted, rejected, withdrawn`), `proposed_at, decided_at, external_id` and, as JSON text,
        `data, annotations, predictions, meta, extra`; the same of the task as it is, `task_data` and so on."""

    def retry(self, ids: Sequence[int], *, force: bool) -> dict[int, str]:
        """Put objects back; gives the reason for each that was refused (`on_retry`)."""

    def unanswered(self, source: str) -> dict[str, Any] | None:
        """Of a source's objects that wait or are under way those whose storage did not answer when last tried:
        `objects`, how many, `code` and `message` of the last one, and `since` when nothing else came of the source's
        objects. None if there is none."""

    def staged(self, source: str) -> int:
        """Rows that large files under way have written so far: it grows while they are read."""

    def hasten(self, source: str) -> int:
        """Make due at once what `unanswered` counts and is ready; how many objects."""

    def audit(self, source_id: int, after: str | None, limit: int) -> Iterator[Audit]:
        """Objects in key order, each with the tasks that are really there."""

    def miscounted(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Where counters that are kept by deltas differ from a count of the rows themselves: by source and state
        (or `tasks`, `rejected`) the counter and the count. Reads every object once, in one statement."""

    def recount(self) -> dict[str, dict[str, tuple[int, int]]]:
        """As `miscounted`, and puts the counters right. Nobody else writes meanwhile."""

    def threads(self) -> int:
        """How many worker threads are alive, in all processes."""


class Audit(NamedTuple):
    """One object as `verify` compares it with the store: `live` tasks as counted in the tables themselves,
    `counted` as the ledger's row says, `imports` live ones that wrote first tasks (more than one is doubled)."""

    id: int
    key: str
    state: State
    wanted: str | None
    imported: str | None
    live: int
    counted: int
    imports: int
