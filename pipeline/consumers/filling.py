"""Batches of a delivery as they are filled: what becomes of a page of the outbox, within the limits of one import."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal, NamedTuple, Self

from pipeline.config import Throttle
from pipeline.ledger.deliveries import Grant, Item, Page, Taken, Waiting
from pipeline.sinks import Delivery, Encoded


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
    """What is in one batch, as it goes on the wire: never more than one import may hold. `full`: one more task did not
    fit in."""

    def __init__(self, outlet: Outlet, grant: Grant, batch: int) -> None:
        self._outlet = outlet
        self._most = 1 if grant.probe else outlet.throttle.tasks_per_import
        self._bytes = 0
        self.batch = batch
        self.name = f"{grant.stamp}-{batch}"
        self.encoded: list[Encoded] = []
        self.full = False

    def add(self, item: Item) -> bool:
        """Take in a task if there is room for it."""
        body = self._outlet.delivery.encode(self.name, item)
        size = self._outlet.delivery.size(self._bytes + len(body), len(self.encoded) + 1)
        if len(self.encoded) >= self._most or size > self._outlet.throttle.bytes_per_import:
            return False
        self.encoded.append(Encoded(item.id, body))
        self._bytes += len(body)
        return True

    def too_large(self, item: Item) -> str | None:
        """Why a task is too large for any import, if it is."""
        most = self._outlet.throttle.bytes_per_import
        size = self._outlet.delivery.size(len(self._outlet.delivery.encode(self.name, item)), 1)
        return f"too_large: it has {size:,} bytes, and bytes_per_import is {most:,}" if size > most else None


def decided(page: Page, filling: Filling, *, delete_remote: bool) -> Taken:
    """What becomes of a page of the outbox; the batch is `full` where it could not take in all of it.

    It goes by how each task stands, here and there, and not by what was noted of it: what was noted twice, or is
    out of date, does no harm.
    """
    members: list[Item] = []
    updates: list[int] = []
    deletions: list[int] = []
    refused: list[tuple[Item, str]] = []
    cursor, before = None, len(filling.encoded)
    seen: set[int] = set()
    for one in page.waiting:
        if one.item.id in seen:
            continue
        seen.add(one.item.id)
        step = wanted(one, delete_remote=delete_remote)
        if step == "update":
            updates.append(one.item.id)
        elif step == "delete":
            deletions.append(one.item.id)
        elif step == "import" and filling.add(one.item):
            members.append(one.item)
        elif step == "import" and (why := filling.too_large(one.item)) is not None:
            refused.append((one.item, why))
        elif step == "import":
            cursor = (one.outbox, one.lease, one.position)
            break
    filling.full = cursor is not None
    if cursor is None and not page.complete:
        last = page.waiting[-1]
        cursor = (last.outbox, last.lease, last.position + 1)
    size = sum(len(task.body) for task in filling.encoded[before:])
    rows = page.rows if cursor is None else [row for row in page.rows if row < cursor[0]]
    why_not = {item.id: why for item, why in refused}
    return Taken(rows, cursor, members, size, updates, deletions, why_not, [item for item, _ in refused])


def wanted(one: Waiting, *, delete_remote: bool) -> Literal["import", "update", "delete"] | None:
    """What the remote needs so that it has a task as it stands here; None for nothing."""
    newer = one.item.revision > one.sent_revision
    if not one.live:
        return "delete" if delete_remote and one.state in ("batched", "done") else None
    if one.state in (None, "deleted") or (one.state == "refused" and newer):
        return "import"
    return "update" if one.state in ("batched", "done") and newer else None


class FillingAhead:
    """Fills the next batch of a delivery in a thread of a pool while one is on its way, until it is `full` or that one
    is there.

    Both are under one grant, so nobody else fills a batch meanwhile. What goes wrong is not told: what was taken is in
    the ledger, and whoever goes on there meets the same.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, lease: int, fill: Callable[[Callable[[], bool]], Filling | None]
    ) -> None:
        self.lease = lease
        self.filling: Filling | None = None
        self._fill = fill
        self._stop = threading.Event()
        self._pool = pool
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(RuntimeError):  # no thread, or the end of all: then nothing is ahead
            self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._running is not None and not self._running.cancel():
            wait([self._running])

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            self.filling = self._fill(self._stop.is_set)

    def goes_on(self, grant: Grant) -> bool:
        """Whether nothing has touched the batch since: a grant is the next one, and its batch holds what is here."""
        mine, batch = self.filling, grant.batch
        if mine is None or batch is None or grant.lease != self.lease + 1 or grant.probe:
            return False
        return (batch.id, batch.state, batch.tasks) == (mine.batch, "ready", len(mine.encoded))
