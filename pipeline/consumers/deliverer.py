"""Sends batches of a delivery, under grants of the scheduler: one import, one look, or some changes for each grant.

What is in a batch is committed before anything is sent, that it is being sent before the first byte, and what came
of it after the last. Whoever is killed in between leaves a batch that is looked for before it is sent again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pipeline import logs
from pipeline.config import Throttle
from pipeline.errors import BatchRefused, BatchUnsure, LabelfeedError, LeaseLost, UnavailableError
from pipeline.faults import reached
from pipeline.ledger import Ledger
from pipeline.ledger.deliveries import (
    CHANGES_AT_ONCE,
    PAGE_TASKS,
    Batch,
    Failure,
    Grant,
    Item,
    Taken,
    Waiting,
)
from pipeline.metrics import Metrics
from pipeline.sinks import Delivery, Encoded

GRANT_SECONDS = 60.0
"""How long a started grant lasts while its batch is filled."""
MARGIN_SECONDS = 10.0
"""How much longer than its time-out a sender's grant lasts, so that it can write what came of it."""


class Outlet(NamedTuple):
    """A delivery of the configuration, opened: its row in the ledger, the component, and what bounds it."""

    id: int
    name: str
    delivery: Delivery
    throttle: Throttle
    timeout: float
    settle: float
    delete_remote: bool


class Filling:
    """A batch that is being filled: what is in it on the wire."""

    def __init__(self, outlet: Outlet, stamp: str, batch: int | None, most: int) -> None:
        self._outlet = outlet
        self._stamp = stamp
        self._most = most
        self.batch = batch
        self.encoded: list[Encoded] = []
        self._bytes = 0

    @property
    def name(self) -> str:
        """What the remote knows the batch by."""
        return f"{self._stamp}-{self.batch}"

    def add(self, body: bytes, number: int) -> bool:
        """Take in a task if there is room for it."""
        size = self._outlet.delivery.size(self._bytes + len(body), len(self.encoded) + 1)
        if len(self.encoded) >= self._most or size > self._outlet.throttle.bytes_per_import:
            return False
        self.encoded.append(Encoded(number, body))
        self._bytes += len(body)
        return True


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

    def run(self, delivery: int, lease: int) -> None:
        """Run one grant to its end; does nothing if it has ended or was started."""
        outlet = self._outlets.get(delivery)
        if outlet is None or self._cancelled:
            return
        grant = self._ledger.start(delivery, lease, self._worker, GRANT_SECONDS)
        if grant is None:
            return
        try:
            {"import": self._import, "resolve": self._resolve, "change": self._change}[grant.step](outlet, grant)
        except LeaseLost:
            self._metrics.add("deliveries_total", outcome="lost")
            _log.warning(logs.DELIVERY_LOST, extra={"delivery": outlet.name})
        finally:
            self._done()

    def cancel(self) -> None:
        """Begin nothing more."""
        self._cancelled = True

    def close(self) -> None:
        """Let go of the remotes."""
        for outlet in self._outlets.values():
            outlet.delivery.close()

    # --- imports ---

    def _import(self, outlet: Outlet, grant: Grant) -> None:
        filling = self._refilled(outlet, grant) if grant.batch is not None else self._filled(outlet, grant)
        if not filling.encoded or filling.batch is None:
            self._ledger.rest(grant.delivery, grant.lease)
            return
        seconds = outlet.timeout + MARGIN_SECONDS
        until = _uptime() + seconds - MARGIN_SECONDS / 2 - outlet.timeout
        if not self._ledger.sending(grant.delivery, grant.lease, filling.batch, seconds, outlet.settle):
            raise LeaseLost("the grant has ended")
        reached("deliverer.sending")
        started = time.monotonic()
        try:
            remote = outlet.delivery.send(filling.name, filling.encoded, _guard(until))
        except LabelfeedError as error:
            self._not_sent(outlet, grant, filling, error)
            return
        reached("deliverer.sent")
        self._kept(self._ledger.arrived(grant.delivery, grant.lease, filling.batch, remote))
        seconds = time.monotonic() - started
        self._tell_delivered(outlet, len(remote), seconds)

    def _tell_delivered(self, outlet: Outlet, tasks: int, seconds: float) -> None:
        self._metrics.add("deliveries_total", outcome="delivered")
        self._metrics.add("delivered_tasks_total", tasks, delivery=outlet.name, outcome="delivered")
        self._metrics.observe("delivery_duration_seconds", seconds, delivery=outlet.name)
        _log.info(logs.BATCH_DELIVERED, extra={"delivery": outlet.name, "tasks": tasks, "seconds": seconds})

    def _refilled(self, outlet: Outlet, grant: Grant) -> Filling:
        """A batch that is fixed already; only where its tasks have grown since, or are tried one by one, the rest
        becomes a batch of its own."""
        assert grant.batch is not None
        filling = Filling(outlet, grant.stamp, grant.batch.id, self._most(outlet, grant))
        after, full = 0, False
        while not full and (page := self._ledger.items(grant.batch.id, after, PAGE_TASKS)):
            for item in page:
                if not filling.add(outlet.delivery.encode(filling.name, item), item.id):
                    full = True
                    break
            after = page[-1].id
            self._renew(grant)
        if full and not filling.encoded:
            self._too_large(outlet, grant, grant.batch, page[0])
        if full:
            kept = [task.id for task in filling.encoded]
            self._kept(self._ledger.split(grant.delivery, grant.lease, grant.batch.id, kept))
        return filling

    @staticmethod
    def _most(outlet: Outlet, grant: Grant) -> int:
        return 1 if grant.probe else outlet.throttle.tasks_per_import

    def _too_large(self, outlet: Outlet, grant: Grant, batch: Batch, item: Item) -> None:
        reasons = {item.id: _larger(outlet)}
        self._kept(self._ledger.refuse(grant.delivery, grant.lease, batch.id, reasons, sent=False))
        raise LeaseLost("the task is too large by itself")

    def _filled(self, outlet: Outlet, grant: Grant) -> Filling:
        """A new batch of what the outbox has, as much as one import may hold."""
        filling = Filling(outlet, grant.stamp, None, self._most(outlet, grant))
        while True:
            page = self._ledger.peek(grant.delivery, PAGE_TASKS)
            if not page.rows:
                return filling
            if filling.batch is None and any(_joins(one) for one in page.waiting):
                nothing = Taken((), None, (), 0, (), (), {})
                filling.batch = self._ledger.take(grant.delivery, grant.lease, 0, nothing)
            taken = self._decided(outlet, filling, page.waiting, page.rows, complete=page.complete)
            batch = self._ledger.take(grant.delivery, grant.lease, filling.batch, taken)
            if batch is None:
                raise LeaseLost("the grant has ended")
            self._renew(grant)
            if taken.cursor is not None and taken.cursor[1] >= 0 and len(taken.members) < len(page.waiting):
                return filling
