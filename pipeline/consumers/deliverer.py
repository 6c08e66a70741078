"""Sends batches of a delivery, under grants of the scheduler: one import, one look, or some changes for each grant.

What is in a batch is committed before anything is sent, that it is being sent before the first byte, and what came
of it after the last. Whoever is killed in between leaves a batch that is looked for before it is sent again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress

from pipeline import logs
from pipeline.consumers.filling import Filling, FillingAhead, Outlet, decided
from pipeline.errors import BatchRefused, BatchUnsure, ChangesFailed, LabelfeedError, LeaseLost, UnavailableError
from pipeline.faults import reached
from pipeline.ledger import Ledger
from pipeline.ledger.deliveries import (
    CHANGES_AT_ONCE,
    PAGE_TASKS,
    Batch,
    Change,
    Changed,
    ChangeOutcome,
    Failure,
    Grant,
    Step,
)
from pipeline.metrics import Metrics
from pipeline.sinks import CHANGE_SECONDS

FILL_SECONDS = 60.0
"""How long a started grant lasts while its batch is filled; each page lengthens it."""
ASK_SECONDS = 600.0
"""While the remote is told of changes, they are begun within this time, and the grant lasts until the last one is
surely over. While it is asked for a batch, the grant lasts for so long ..."""
LONGEST_ASK_SECONDS = 6 * 3600.0
"""... and each question for a part of a large batch lengthens it, up to this in all."""
LATEST = 0.5
"""A sender begins, and goes on sending, within this part of its time-out; its grant lasts for that, for the time-out
twice, of the last bytes and of the answer to them, ..."""
MARGIN_SECONDS = 5.0
"""... and for so much more, to write what came of it."""

NOT_DELETED: tuple[ChangeOutcome, str] = ("kept", "not deleted: delete_remote is off")

_log = logging.getLogger(__name__)


class Deliverer:
    """Runs the grants of a process's deliveries. `done` is called after each, so that the next can be granted."""

    def __init__(
        self,
        outlets: Mapping[int, Outlet],
        ledger: Ledger,
        metrics: Metrics,
        worker: str,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._outlets = outlets
        self._ledger = ledger.deliveries()
        self._metrics = metrics
        self._worker = worker
        self._done = done
        self._cancelled = False
        # Lasting threads: a ledger keeps a connection for each.
        self._pool = ThreadPoolExecutor(max(1, len(outlets)), thread_name_prefix="deliver-ahead")
        self._ahead: dict[int, FillingAhead] = {}
        self._steps: Mapping[Step, Callable[[Outlet, Grant], None]] = {
            "import": self._import, "resolve": self._resolve, "change": self._change, "count": self._count_open,
        }  # fmt: skip
        self._behind: dict[int, int] = {}
        """Delivery → the task after which its changes go on, once some have failed: those that fail again and again
        are not to be the first each time."""

    def run(self, delivery: int, lease: int) -> None:
        """Run one grant to its end; does nothing if it has ended or was started."""
        outlet = self._outlets.get(delivery)
        if outlet is None or self._cancelled:
            return
        grant = self._ledger.start(delivery, lease, self._worker, FILL_SECONDS)
        if grant is None:
            return
        if grant.step != "import":
            # By the next import it is out of date: let go of its memory.
            self._ahead.pop(delivery, None)
        try:
            self._steps[grant.step](outlet, grant)
        except LeaseLost as error:
            self._count(outlet, "lost")
            _log.warning(logs.DELIVERY_LOST, extra={"delivery": outlet.name, "error": str(error)})
        except Exception as error:
            # An error of ours: it is told, and what may have been sent by then is looked for.
            name = type(error).__name__
            self._ledger.failed(delivery, lease, None, Failure("internal", f"an error of ours: {name}"), sent=False)
            raise
        finally:
            self._done()

    def cancel(self) -> None:
        """Begin nothing more."""
        self._cancelled = True

    def close(self) -> None:
        """Let go of the remotes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for outlet in self._outlets.values():
            outlet.delivery.close()

    # --- imports ---

    def _import(self, outlet: Outlet, grant: Grant) -> None:
        ahead = self._ahead.pop(outlet.id, None)
        begun = ahead.filling if ahead is not None and ahead.goes_on(grant) else None
        if grant.batch is not None and begun is None:
            filling = self._fixed(outlet, grant, grant.batch)
            if filling is not None:
                self._send(outlet, grant, filling, nullcontext())
            return
        filling = self._filled(outlet, grant, begun, FILL_SECONDS)
        if filling is None or not filling.encoded:
            self._keep(self._ledger.rest(grant.delivery, grant.lease))
        elif outlet.throttle.imports_every:
            # What waits for its turn takes in what comes meanwhile.
            self._send(outlet, grant, filling, nullcontext())
        else:
            ahead = FillingAhead(
                self._pool, grant.lease, lambda stopped: self._filled(outlet, grant, None, 0.0, stopped)
            )
            self._send(outlet, grant, filling, ahead)
            self._ahead[outlet.id] = ahead

    def _send(self, outlet: Outlet, grant: Grant, filling: Filling, meanwhile: AbstractContextManager[object]) -> None:
        reached("deliverer.filled")
        begun = _uptime()
        seconds = (2 + LATEST) * outlet.timeout + MARGIN_SECONDS
        self._keep(self._ledger.sending(grant.delivery, grant.lease, filling.batch, seconds, outlet.settle))
        reached("deliverer.sending")
        try:
            with meanwhile:
                ready, named = _before(begun + LATEST * outlet.timeout), self._named(outlet, grant, filling)
                remote = outlet.delivery.send(filling.name, filling.encoded, ready, named)
        except LabelfeedError as error:
            self._not_sent(outlet, grant, filling, error)
            return
        reached("deliverer.sent")
        self._keep(self._ledger.arrived(grant.delivery, grant.lease, filling.batch, remote))
        reached("deliverer.remembered")
        self._delivered(outlet, len(remote), _uptime() - begun)

    def _named(self, outlet: Outlet, grant: Grant, filling: Filling) -> Callable[[str], None]:
        """What keeps the remote's name of an import, and the grant while that is waited for."""
        seconds = outlet.timeout + 2 * CHANGE_SECONDS + MARGIN_SECONDS

        def named(handle: str) -> None:
            # An error here would say that the import was not taken; without its name it is looked for all the same.
            with suppress(LabelfeedError):
                self._ledger.named(grant.delivery, grant.lease, filling.batch, handle, seconds)

        return named

    def _filled(
        self,
        outlet: Outlet,
        grant: Grant,
        filling: Filling | None,
        seconds: float,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Filling | None:
        """What the outbox has, as much as one import may hold, in a batch that was begun or a new one; None if it has
        nothing. The grant lasts for `seconds` from each page at least. Ends early when it is `stopped`."""
        while not (stopped() or (filling is not None and filling.full)):
            page = self._ledger.peek(grant.delivery, PAGE_TASKS)
            if not page.rows:
                break
            filling = filling or self._begun(outlet, grant)
            taken = decided(page, filling, delete_remote=outlet.delete_remote)
            self._keep(self._ledger.take(grant.delivery, grant.lease, filling.batch, taken, seconds))
            reached("deliverer.taken")
            if taken.refused:
                self._metrics.add("delivered_tasks_total", len(taken.refused), delivery=outlet.name, outcome="refused")
        return filling

    def _begun(self, outlet: Outlet, grant: Grant) -> Filling:
        batch = self._ledger.begin(grant.delivery, grant.lease)
        if batch is None:
            raise LeaseLost("the grant has ended")
        return Filling(outlet, grant, batch)

    def _fixed(self, outlet: Outlet, grant: Grant, batch: Batch) -> Filling | None:
        """A batch that was fixed before. Only where its tasks have grown since, or are tried one by one, or the
        limits have shrunk, what is too much becomes a batch of its own. None if nothing is left to do."""
        filling = Filling(outlet, grant, batch.id)
        after = 0
        while page := self._ledger.items(batch.id, after, PAGE_TASKS):
            self._keep(self._ledger.renew(grant.delivery, grant.lease, FILL_SECONDS))
            for item in page:
                if filling.add(item):
                    continue
                if not filling.encoded and (why := filling.too_large(item)) is not None:
                    self._set_aside(outlet, grant, batch.id, {item.id: why}, sent=False)
                    return None
                kept = [task.id for task in filling.encoded]
                self._keep(self._ledger.split(grant.delivery, grant.lease, batch.id, kept))
                return filling
            after = page[-1].id
        return filling

    def _not_sent(self, outlet: Outlet, grant: Grant, filling: Filling, error: LabelfeedError) -> None:
        held, batch = (grant.delivery, grant.lease), filling.batch
        failure = Failure(error.code, str(error), getattr(error, "retry_after", None))
        if isinstance(error, BatchRefused):
            self._refused(outlet, grant, [task.id for task in filling.encoded], batch, error)
            return
        if isinstance(error, BatchUnsure):
            kept, outcome = self._ledger.unsure(*held, batch, failure, error.handle), "unsure"
        else:
            sent = not isinstance(error, LeaseLost)
            kept, outcome = self._ledger.failed(*held, batch, failure, sent=sent), "retried"
        self._count(outlet, outcome)
        self._failing(outlet, failure)
        self._keep(kept)

    def _refused(self, outlet: Outlet, grant: Grant, ids: Sequence[int], batch: int, error: BatchRefused) -> None:
        """Set aside what the remote names; where it names nothing, halve the batch until the bad task is alone."""
        reasons = {ids[place]: why for place, why in error.reasons.items() if place < len(ids)}
        if not reasons and len(ids) == 1:
            reasons = {ids[0]: str(error)}
        elif not reasons:
            self._keep(self._ledger.split(grant.delivery, grant.lease, batch, ids[: len(ids) // 2]))
        self._set_aside(outlet, grant, batch, reasons, sent=True)

    def _set_aside(self, outlet: Outlet, grant: Grant, batch: int, reasons: Mapping[int, str], *, sent: bool) -> None:
        self._keep(self._ledger.refuse(grant.delivery, grant.lease, batch, reasons, sent=sent))
        self._count(outlet, "refused")
        self._metrics.add("delivered_tasks_total", len(reasons), delivery=outlet.name, outcome="refused")
        if reasons:
            fields = {"delivery": outlet.name, "tasks": len(reasons), "error": next(iter(reasons.values()))}
            _log.warning(logs.TASKS_REFUSED, extra=fields)
            self._metrics.add("errors_total", len(reasons), stage="deliver", code=BatchRefused.code)

    # --- batches whose arrival is unknown ---

    def _resolve(self, outlet: Outlet, grant: Grant) -> None:
        batch, held = grant.batch, (grant.delivery, grant.lease)
        if batch is None or batch.state != "unsure":
            self._keep(self._ledger.rest(*held))
            return
        self._keep(self._ledger.renew(*held, ASK_SECONDS))
        begun = _uptime()
        try:
            handle = None if batch.overdue else batch.handle
            found = outlet.delivery.find(f"{grant.stamp}-{batch.id}", handle, self._going(grant))
        except LabelfeedError as error:
            if isinstance(error, BatchRefused) and batch.handle is not None:
                self._refused(outlet, grant, self._members(batch.id), batch.id, error)
                return
            # Only of an import that it has named a remote can know that it took nothing.
            failure = Failure(error.code, str(error), getattr(error, "retry_after", None))
            self._keep(self._ledger.failed(*held, None, failure, sent=False))
            self._failing(outlet, failure)
        else:
            if found == "absent" or (len(found) < batch.tasks and not batch.settled):
                self._count(outlet, "absent" if batch.settled else "unsure")
                self._keep(self._ledger.absent(*held, batch))
            else:
                ours = set(self._members(batch.id))
                there = {number: remote for number, remote in found.items() if number in ours}
                self._keep(self._ledger.arrived(*held, batch.id, there))
                self._delivered(outlet, len(there), _uptime() - begun)

    def _going(self, grant: Grant) -> Callable[[], None]:
        """What lets a grant last while a large batch is looked for page by page."""
        latest = _uptime() + LONGEST_ASK_SECONDS

        def going() -> None:
            if _uptime() > latest:
                told = f"in {LONGEST_ASK_SECONDS / 3600:.0f} hours it has not said all that it has of a batch"
                raise UnavailableError(told)
            self._keep(self._ledger.renew(grant.delivery, grant.lease, ASK_SECONDS))

        return going

    def _members(self, batch: int) -> list[int]:
        ids: list[int] = []
        while page := self._ledger.items(batch, ids[-1] if ids else 0, PAGE_TASKS):
            ids.extend(item.id for item in page)
        return ids

    # --- changes ---

    def _change(self, outlet: Outlet, grant: Grant) -> None:
        held = (grant.delivery, grant.lease)
        latest = _uptime() + ASK_SECONDS
        # What is begun at the latest moment is over, and written, while the grant lasts.
        seconds = ASK_SECONDS + max(CHANGE_SECONDS, outlet.timeout) + MARGIN_SECONDS
        self._keep(self._ledger.renew(*held, seconds))
        changes = self._changes(outlet)
        # They were noted while it was on.
        forbidden = {one.item.id: NOT_DELETED for one in changes if one.delete and not outlet.delete_remote}
        allowed = [one for one in changes if one.item.id not in forbidden]
        made: Mapping[int, tuple[ChangeOutcome, str]] = {}
        failure = None
        waits = True
        try:
            name = f"{grant.stamp}-{grant.number}"
            if allowed:
                made = outlet.delivery.change(allowed, name, _before(latest), outlet.throttle.bytes_per_import)
        except LeaseLost:
            raise
        except LabelfeedError as error:
            failure = Failure(error.code, str(error), getattr(error, "retry_after", None))
            if isinstance(error, ChangesFailed):
                made, waits = error.made, error.waits
                self._behind[outlet.id] = error.last
            self._failing(outlet, failure)
        made = {**forbidden, **made}
        if failure is not None and not made:
            self._keep(self._ledger.failed(*held, None, failure, sent=False))
            return
        reached("deliverer.changed")
        told_of = {one.item.id: (one.item.revision, one.delete) for one in changes}
        outcomes = {task: Changed(*told_of[task], *told) for task, told in made.items()}
        # What was about one task alone holds up no other; it is told when it is all that is left.
        self._keep(self._ledger.changed(*held, outcomes, failure if waits else None))
        for outcome in ("done", "kept", "gone"):
            count = sum(told[0] == outcome for told in made.values())
            self._metrics.add("delivered_tasks_total", count, delivery=outlet.name, outcome=_SHOWN[outcome])

    def _changes(self, outlet: Outlet) -> Sequence[Change]:
        """The changes whose turn it is."""
        changes = self._ledger.changes(outlet.id, CHANGES_AT_ONCE, self._behind.get(outlet.id, 0))
        if not changes and self._behind.pop(outlet.id, 0):
            changes = self._ledger.changes(outlet.id, CHANGES_AT_ONCE)
        elif outlet.id in self._behind:
            self._behind[outlet.id] = changes[-1].item.id
        return changes

    # --- what is open there ---

    def _count_open(self, outlet: Outlet, grant: Grant) -> None:
        held = (grant.delivery, grant.lease)
        self._keep(self._ledger.renew(*held, CHANGE_SECONDS + MARGIN_SECONDS))
        found: int | Failure | None
        try:
            found = outlet.delivery.open_tasks()
        except LabelfeedError as error:
            # What can be counted and what can be sent are two things: it holds up no import.
            found = Failure(error.code, str(error), getattr(error, "retry_after", None))
            self._failing(outlet, found)
        self._keep(self._ledger.counted(*held, found))

    # --- telling ---

    def _delivered(self, outlet: Outlet, tasks: int, seconds: float) -> None:
        self._count(outlet, "delivered")
        self._metrics.add("delivered_tasks_total", tasks, delivery=outlet.name, outcome="delivered")
        self._metrics.observe("delivery_duration_seconds", seconds, delivery=outlet.name)
        _log.info(logs.BATCH_DELIVERED, extra={"delivery": outlet.name, "tasks": tasks, "seconds": seconds})

    def _failing(self, outlet: Outlet, failure: Failure) -> None:
        fields = {"delivery": outlet.name, "code": failure.code, "error": failure.message}
        _log.warning(logs.DELIVERY_FAILED, extra=fields)
        self._metrics.add("errors_total", stage="deliver", code=failure.code)

    def _count(self, outlet: Outlet, outcome: str) -> None:
        self._metrics.add("deliveries_total", delivery=outlet.name, outcome=outcome)

    @staticmethod
    def _keep(kept: bool) -> None:  # noqa: FBT001 - an answer, handed on
        if not kept:
            raise LeaseLost("the grant has ended")


_SHOWN = {"done": "changed", "kept": "kept", "gone": "gone"}


def _uptime() -> float:
    """Seconds of the machine's life; they pass for a process that is stopped, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _before(latest: float) -> Callable[[], None]:
    """A check that raises LeaseLost after a time."""

    def ready() -> None:
        if _uptime() > latest:
            raise LeaseLost("it is too late to send: the grant may end before the answer")

    return ready
