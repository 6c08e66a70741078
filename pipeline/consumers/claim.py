"""One started claim: its objects are read, parsed and committed, whatever one of them does to the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from pipeline import logs
from pipeline.consumers import Feed, outcomes
from pipeline.consumers.commits import Commits
from pipeline.consumers.plain import Found, Sieve, chunks, imported
from pipeline.consumers.reading import Open, open_object
from pipeline.consumers.renewer import Held
from pipeline.consumers.rows import DatabaseDown, Rows
from pipeline.errors import (
    LabelfeedError,
    LeaseLost,
    ObjectFailed,
    ObjectGone,
    ObjectSkipped,
    RetriableError,
    UsageError,
)
from pipeline.faults import reached
from pipeline.ledger import Mode, Outcome, Work
from pipeline.parsers import Body, Parser
from pipeline.stores import Entry, Reading, is_queue
from pipeline.stores.turn import Turn

if TYPE_CHECKING:
    from pipeline.consumers.importer import Importer

GET_BYTES = 8 * 1024 * 1024
"""A large object is read from storage in requests of about this size."""

_log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The process shuts down: what is not finished goes back."""


class ClaimRun:
    """One claim under way, in one thread. `run` is called once."""

    def __init__(self, importer: Importer, held: Held, feed: Feed) -> None:
        self._importer = importer
        self._held = held
        self._feed = feed
        self._source = feed.source
        self._store = feed.store
        self._version: str | None = None
        self._size = 0
        self._modified = 0.0
        self._opened: float | None = None
        self._turn = Turn(getattr(feed.store, "floor", None))
        self.lease = held.lease
        self.opening = self.parsing = 0.0
        self.gets = 0
        self.current = 0
        self.lost = False
        """Whether the lease ended before the claim did."""
        self.commits = Commits(
            importer.ledger,
            importer.metrics,
            held.lease,
            feed.source.name,
            committed=importer.committed,
            doubted=lambda: importer.renewer.renew(held),
            each=importer.at is not None,
        )

    def run(self, work: Sequence[Work]) -> None:
        """Import every object. Raises LeaseLost, Cancelled, DatabaseDown and MemoryError."""
        self.commits.expect(len(work))
        try:
            with self._turn:
                self._all(work)
        except (Cancelled, MemoryError):
            self.commits.flush()
            raise
        self.commits.flush()

    def _all(self, work: Sequence[Work]) -> None:
        ahead = self._importer.ahead(self._feed, self._meanwhile)
        if ahead is None:
            feed = self._feed
            for item in self._plain(work):
                self._one(item, partial(open_object, feed.store, feed.rules, item.key), time.monotonic())
            return
        sieve = Sieve(self._feed)
        started = time.monotonic()
        with closing(ahead.chunks(work)) as read_ahead:
            for chunk in read_ahead:
                self._check()
                read = time.monotonic()
                self.opening += read - started
                found, others = sieve.sift(chunk)
                parsed = time.monotonic()
                self._take(found, parsed - read, parsed)
                for one in others:
                    self._one(one.work, one.open, time.monotonic())
                started = time.monotonic()

    def _plain(self, work: Sequence[Work]) -> Sequence[Work]:
        """Import the plain objects of a store without latency, many at a time; gives the others."""
        if self._importer.at is not None:
            return work
        others: list[Work] = []
        started = time.monotonic()
        for found, rest in chunks(self._feed, work):
            self._check()
            others += rest
            ended = time.monotonic()
            self._take(found, ended - started, ended)
            started = ended
        return others

    def _take(self, found: Sequence[Found], seconds: float, at: float) -> None:
        """Take plain objects that were read and parsed in `seconds` together, until `at`."""
        ended = imported(self._feed, found, seconds)
        self.gets += len(found)
        self.parsing += seconds
        self.commits.add_all(ended, [one.entry.modified for one in found], at)
        if _log.isEnabledFor(logging.DEBUG):
            for one, outcome in zip(found, ended, strict=True):
                self._say(one.work, outcome, outcome.seconds)

    def _one(self, work: Work, opening: Open, started: float) -> None:
        """Import an object by itself, from `started` on."""
        self._check()
        self.current = work.id
        if self._importer.at is not None:
            self._importer.at(work.id)
        outcome, cost = self._object(work, opening, started)
        ended = time.monotonic()
        opened = self._opened or ended
        self.opening += opened - started
        self.parsing += ended - opened
        self.commits.add(outcome, cost, self._modified, ended)
        if _log.isEnabledFor(logging.DEBUG):
            self._say(work, outcome, ended - started)

    def _meanwhile(self) -> None:
        """What is due while storage keeps an object waiting: others are not to wait for it, nor is the end of all."""
        self._check()
        self.commits.flush_due()

    def _say(self, work: Work, outcome: Outcome, seconds: float) -> None:
        code = outcome.reason.code if outcome.reason else None
        fields = {"uri": self._store.uri(work.key), "state": outcome.state, "code": code, "lease": self.lease}
        _log.debug(logs.OBJECT_ENDED, extra=fields | {"trace": work.trace, "seconds": seconds})

    def _check(self) -> None:
        if self._held.lost:
            raise LeaseLost(f"lease {self._held.lease} has ended")
        if self._importer.cancelled:
            raise Cancelled

    def _object(self, work: Work, opening: Open, started: float) -> tuple[Outcome, int]:
        """One object's outcome, and about how many bytes it holds in memory."""
        self._version, self._size, self._modified, self._opened = None, 0, 0.0, None
        rows = None
        try:
            parser, opened = opening()
            with opened as reading:
                entry = reading.entry
                self._opened = time.monotonic()
                self.gets += 1 if reading.content is not None else 1 + entry.size // GET_BYTES
                self._version, self._size, self._modified = entry.version, entry.size, entry.modified
                mode = outcomes.mode_of(work, entry.version, self._source.on_change)
                if mode in ("unchanged", "ignored"):
                    shape = self._feed.shape
                    return Outcome(work.id, "done", entry.version, mode=mode, size=entry.size, shape=shape), 0
                rows = Rows(
                    self._importer.ledger,
                    self._held.lease,
                    work.id,
                    self._importer.stager,
                    self._source,
                    self.commits.flush,
                )
                self._parse(parser, reading, entry, rows)
            return self._done(work, mode, rows, started), max(entry.size, rows.bytes)
        except (LeaseLost, DatabaseDown, Cancelled, MemoryError):
            raise
        except (ObjectFailed, ObjectSkipped, ObjectGone) as error:
            outcome = outcomes.of_terminal(work, error, self._source, self._known_version(work), self._size)
        except RetriableError as error:
            outcome = outcomes.of_passing(work, error, self._importer.limits)
            if outcome.state == "failed":
                outcome = outcome._replace(version=self._known_version(work))
        except UsageError as error:
            missing = ObjectFailed("unsupported_format", str(error), hint="install what is missing, then retry")
            outcome = outcomes.of_terminal(work, missing, self._source, self._known_version(work), self._size)
        # The outer boundary of stores and parsers: an error of ours fails its own object, and no other.
        except Exception as error:
            if self._importer.cancelled:
                # What it would have gone on with is closed: no fault of the object.
                raise Cancelled from error
            outcome = self._bug(work, error)
        return self._with_rows(outcome, rows, started), 0

    def _parse(self, parser: Parser, reading: Reading, entry: Entry, rows: Rows) -> None:
        content = reading.content
        reopen = None
        if content is None:
            reopen = reading.stream
            self._turn.leave()
        body = Body(entry.key, self._store.uri(entry.key), entry.size, content, reopen)
        reached("worker.parsing", entry.key)
        for piece in parser.parse(body, self._feed.rules):
            rows.add(piece)
            self.commits.flush_due()
            if self._held.lost or self._importer.cancelled:
                self._check()
        rows.finish()

    def _done(self, work: Work, mode: Mode, rows: Rows, started: float) -> Outcome:
        tasks = rows.task_count
        # A batch of a queue holds what many pushed: where all of it is bad, none of it holds up what is behind.
        if not tasks and not (rows.rejected_count and is_queue(self._store)):
            if rows.first_rejected is not None:
                raise outcomes.bad_row(rows.first_rejected)
            raise ObjectSkipped(outcomes.NO_TASKS, "the file holds no task")
        return Outcome(
            work.id,
            "done",
            self._version,
            mode=mode,
            tasks=rows.tasks,
            rejected=rows.rejected,
            task_count=tasks,
            rejected_count=rows.rejected_count,
            staged=rows.staged,
            size=self._size,
            shape=self._feed.shape,
            row_key=self._source.row_key,
            seconds=time.monotonic() - started,
        )

    def _with_rows(self, outcome: Outcome, rows: Rows | None, started: float) -> Outcome:
        """Keep what was rejected, so that a person can see why; tasks of a failed object are dropped."""
        if rows is not None:
            rows.abandon()
        seconds = time.monotonic() - started
        if rows is None or outcome.state == "ready":
            return outcome._replace(seconds=seconds)
        return outcome._replace(
            seconds=seconds,
            rejected=rows.rejected,
            rejected_count=rows.rejected_count,
            staged=rows.staged,
        )

    def _known_version(self, work: Work) -> str | None:
        """The version that an error speaks of. Without one the next pass would take the object for changed."""
        if self._version is None and work.wanted is None:
            try:
                entry = self._store.head(work.key)
            except LabelfeedError:
                return None
            if entry is not None:
                self._version, self._size = entry.version, entry.size
        return self._version

    def _bug(self, work: Work, error: Exception) -> Outcome:
        fields = {"object": work.id, "uri": self._store.uri(work.key), "source": self._source.name, "trace": work.trace}
        _log.error(logs.OUR_ERROR, extra=fields, exc_info=error)
        return outcomes.of_bug(work, error, self._known_version(work))
