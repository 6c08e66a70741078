"""A ledger with one delivery, its sender, and a remote in memory that can be told to misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from pipeline.config import Throttle
from pipeline.consumers.deliverer import Deliverer
from pipeline.consumers.filling import Outlet
from pipeline.errors import LabelfeedError
from pipeline.ledger import Tick
from pipeline.ledger.deliveries import Change, ChangeOutcome, DeliveryIdentity, DeliveryLoad, Granted, Item, next_step
from pipeline.ledger.labelling import with_counts
from pipeline.metrics import Metrics
from pipeline.sinks import Encoded
from pipeline.sqlitefile import uptime
from tests.ledger.bench import EPOCH, Bench

CATS = DeliveryIdentity("cats", "remote", "memory", "memory:1")
Mishap = Callable[[str, Sequence[Encoded]], None]


@dataclass
class Remote:
    """A remote in memory. `mishaps` are called before a batch is taken in, one a batch, `after` when it is in; `pages`
    before each question for one."""

    tasks: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)
    batches: list[tuple[str, list[bytes]]] = field(default_factory=list)
    mishaps: list[Mishap] = field(default_factory=list)
    after: list[Mishap] = field(default_factory=list)
    finding: list[Exception] = field(default_factory=list)
    handles: list[str | None] = field(default_factory=list)
    named: Callable[[str], None] = lambda _: None
    pages: list[Callable[[], None]] = field(default_factory=list)
    annotated: set[str] = field(default_factory=set)
    counting: list[Exception] = field(default_factory=list)
    changes: list[tuple[int, int, bool]] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def encode(self, batch: str, item: Item) -> bytes:
        """A task is its data."""
        return item.task.data.encode()

    def size(self, bodies: int, tasks: int) -> int:
        """A byte between two tasks, and one around them."""
        return bodies + tasks + 1

    def send(
        self,
        batch: str,
        tasks: Sequence[Encoded],
        ready: Callable[[], None],
        named: Callable[[str], None] = lambda _: None,
    ) -> Mapping[int, str]:
        """Take in a batch."""
        ready()
        self.named = named
        self.batches.append((batch, [task.body for task in tasks]))
        if self.mishaps:
            self.mishaps.pop(0)(batch, tasks)
        made = {task.id: self._made(batch, task) for task in tasks}
        if self.after:
            self.after.pop(0)(batch, tasks)
        return made

    def _made(self, batch: str, task: Encoded) -> str:
        remote = f"r{next(self.ids)}"
        self.tasks[remote] = (batch, task.id, task.body)
        return remote

    def find(
        self, batch: str, handle: str | None, going: Callable[[], None] = lambda: None
    ) -> Mapping[int, str] | Literal["absent"]:
        """Look for a batch."""
        self.handles.append(handle)
        if self.finding:
            raise self.finding.pop(0)
        for page in self.pages:
            page()
            going()
        found = {number: remote for remote, (name, number, _) in self.tasks.items() if name == batch}
        return found or "absent"

    def change(
        self, changes: Sequence[Change], name: str, ready: Callable[[], None], most: int
    ) -> Mapping[int, tuple[ChangeOutcome, str]]:
        """Change single tasks."""
        made: dict[int, tuple[ChangeOutcome, str]] = {}
        for one in changes:
            self.changes.append((one.item.id, one.item.revision, one.delete))
            if one.remote_id not in self.tasks:
                made[one.item.id] = "gone", "not there"
            elif one.remote_id in self.annotated:
                made[one.item.id] = "kept", "annotated"
            elif one.delete:
                del self.tasks[one.remote_id]
                made[one.item.id] = "done", ""
            else:
                batch, number, _ = self.tasks[one.remote_id]
                self.tasks[one.remote_id] = (batch, number, one.item.task.data.encode())
                made[one.item.id] = "done", ""
        return made

    def open_tasks(self) -> int | None:
        """Those that nobody has annotated."""
        if self.counting:
            raise self.counting.pop(0)
        return len(self.tasks.keys() - self.annotated)

    def label_config(self) -> str | None:
        """None."""
        return None

    def ping(self) -> str:
        """Well."""
        return "memory"

    def close(self) -> None:
        """Nothing to let go of."""

    def texts(self) -> list[str]:
        """What it holds."""
        return sorted(body.decode().split('"')[3] for _, _, body in self.tasks.values())


def raising(error: LabelfeedError) -> Mishap:
    """A mishap that is just an error."""

    def mishap(batch: str, tasks: Sequence[Encoded]) -> None:
        raise error

    return mishap


class Desk:
    """A bench whose project `cats` has one delivery."""

    def __init__(self, bench: Bench, *, settle: float = 0.0, delete_remote: bool = False, **throttle: Any) -> None:
        self.bench = bench
        self.remote = Remote()
        self.ledger = bench.ledger.deliveries()
        (self.row,) = self.ledger.register([CATS])
        self.counted = frozenset[str]()
        self.metrics = Metrics()
        self.every = float(throttle.pop("imports_every", 0.0))
        self.outlet = Outlet(
            self.row.id, self.row.name, self.remote, Throttle(imports_every=self.every, **throttle), 5.0, settle,
            delete_remote,
        )  # fmt: skip
        self.sender = self.another()

    def another(self) -> Deliverer:
        """A sender as another process has it."""
        return Deliverer({self.row.id: self.outlet}, self.bench.ledger, self.metrics, "sender")

    def load(self) -> DeliveryLoad:
        """How the delivery stands."""
        (found,) = self.bench.tick(lambda tick: tick.deliveries().load())
        return found

    def granted(self, seconds: float = 60.0, epoch: str = EPOCH) -> Granted | None:
        """What a turn of the scheduler grants."""

        def turn(tick: Tick) -> Granted | None:
            deliveries = tick.deliveries()
            deliveries.expire(epoch)
            deliveries.backfill(1000)
            (load,) = deliveries.load()
            step = next_step(load, deliveries.now(), self.every)
            steps = with_counts([load], [] if step is None else [(load, step)], deliveries.now(), self.counted)
            return next((deliveries.grant(load, step, epoch, seconds) for load, step in steps), None)

        return self.bench.tick(turn)

    def step(self) -> bool:
        """One grant, if there is one to give, run to its end."""
        granted = self.granted()
        if granted is not None:
            self.sender.run(granted.delivery, granted.lease)
        return granted is not None

    def steps(self) -> int:
        """Grants until there is nothing more to do."""
        return sum(1 for _ in iter(self.step, False))

    def until(self, seconds: float = 10.0) -> Iterator[None]:
        """Turns, for as long as a test needs them; it must break off."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.step()
            yield
        raise AssertionError(f"it never came true: {self.report()}")

    def report(self) -> dict[str, Any]:
        """What is told of the delivery."""
        (found,) = self.ledger.report()
        return found

    def left(self) -> float:
        """Seconds until its grant ends."""
        ((until,),) = self.bench.execute("SELECT until FROM deliveries")
        return float(until - uptime()) if isinstance(until, float) else float(until.timestamp() - time.time())

    def settled(self, ago: float) -> None:
        """Let open batches have settled so many seconds ago."""
        at = f"{self.bench.ledger.now() - ago}"
        postgres = not isinstance(self.bench.execute("SELECT at FROM outbox LIMIT 1")[0][0], float)
        self.bench.execute(f"UPDATE batches SET settled_at = {f'to_timestamp({at})' if postgres else at}")

    def overdue(self, what: str) -> None:
        """Let a time of the delivery's (`until`, `due`, `ended_at`) or its batches' (`settled_at`) be over."""
        table = "batches" if what in ("settled_at", "look_due") else "deliveries"
        now = self.bench.execute("SELECT due FROM deliveries LIMIT 1")[0][0]
        past = "1" if isinstance(now, float) else "'2000-01-01'"
        self.bench.execute(f"UPDATE {table} SET {what} = {past} WHERE {what} IS NOT NULL")
