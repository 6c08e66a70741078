"""One pass of every source, everything imported: what `run --once`, `import` and the demo do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pipeline.app.parts import Data
from pipeline.app.progress import Gauge, Progress
from pipeline.config import Config
from pipeline.errors import LabelfeedError, RetriableError
from pipeline.events import check_key
from pipeline.ledger import Pass
from pipeline.producers.passes import PassRunner

LOOK_SECONDS = 0.03
SHOW_SECONDS = 0.2

_REFUSED = {"code": "key_too_long", "hint": "rename it, or leave it out by `exclude`"}

ONCE_BACK_OFF_SECONDS = 5.0
"""The longest back-off of a run that ends: so each of its sources is tried a few times before it is left."""

Show = Callable[[Sequence[Progress]], None]


class Once:
    """Runs the passes in a thread each, and waits until nothing is left to do."""

    def __init__(
        self,
        data: Data,
        passes: Mapping[str, PassRunner],
        gauge: Gauge,
        show: Show,
        delivered: Callable[[], bool] = lambda: True,
    ) -> None:
        self._delivered = delivered
        self._data = data
        self._passes = passes
        self._gauge = gauge
        self._show = show
        self._stop = threading.Event()
        self._ended: dict[str, Pass] = {}
        self._errors: list[Exception] = []
        self._problems: dict[str, str] = {}
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}

    def run(self, *, accept_deletions: frozenset[str]) -> None:
        """Make the passes, and return when nothing is left to do."""
        threads = [
            threading.Thread(target=self._pass, args=(name, name in accept_deletions), name=f"pass-{name}", daemon=True)
            for name in self._passes
        ]
        for thread in threads:
            thread.start()
        shown = 0.0
        while any(thread.is_alive() for thread in threads) or not self._drained():
            if time.monotonic() - shown >= SHOW_SECONDS:
                shown = time.monotonic()
                self._show(self._read())
            time.sleep(LOOK_SECONDS)
        self._settle()

    def _settle(self) -> None:
        """Tell queues what was imported; if that fails, the next run does."""
        for passes in self._passes.values():
            if passes.taking is not None:
                with suppress(LabelfeedError):
                    passes.taking.settle()

    def close(self) -> list[Progress]:
        """The closing progress, when the workers have ended. Raises what a source's pass raised, but for storage that
        did not answer: that is the source's `problem`."""
        closing = self._read(failures=True)
        self._show(closing)
        if self._errors:
            raise self._errors[0]
        return closing

    def stop(self) -> None:
        """End the passes early."""
        self._stop.set()

    def _pass(self, name: str, accept: bool) -> None:  # noqa: FBT001 - a thread's argument
        try:
            self._ended[name] = self._passes[name].run(self._stop, wait_for_unsettled=True, accept_deletions=accept)
        except RetriableError as error:
            self._problems[name] = f"{error.code}: {error}"
        except LabelfeedError as error:
            self._errors.append(error)

    def _drained(self) -> bool:
        """Whether the ledger reflects all events, and nothing waits or runs. Leaves errors to the next look."""
        try:
            reached = self._data.ledger.positions(self._data.log.name)
            behind = any(reached.get(partition, 0) < end for partition, end in self._data.log.end().items() if end)
            return not behind and self._gauge.pending() == 0 and self._delivered()
        except LabelfeedError:
            return False

    def _read(self, *, failures: bool = False) -> list[Progress]:
        passes = {name: runner.state for name, runner in self._passes.items() if runner.state is not None}
        spent = time.monotonic() - self._begun
        progress = self._gauge.read(passes, spent, failures=failures)
        return [self._timed(self._with_refused(item)) for item in progress]

    def _with_refused(self, item: Progress) -> Progress:
        """Add objects whose keys no ledger takes: they failed, though the ledger knows nothing of them."""
        refused: list[dict[str, object]] = [
            {"key": key, "reason": _REFUSED | {"message": check_key(key)}} for key in self._passes[item.source].refused
        ]
        return replace(
            item,
            waiting=item.waiting + self._passes[item.source].unsettled,
            failed=item.failed + len(refused),
            unchanged=max(0, item.unchanged - len(refused)),
            failures=(*item.failures, *refused),
            problem=self._problems.get(item.source, ""),
        )

    def _timed(self, item: Progress) -> Progress:
        """A source's clock stops when it has nothing left; it goes on if more comes."""
        if item.waiting or item.source not in self._ended:
            self._seconds.pop(item.source, None)
            return item
        seconds = self._seconds.setdefault(item.source, item.seconds)
        return replace(item, seconds=seconds)


def for_once(config: Config) -> Config:
    """The configuration of a run that ends: storage that does not answer fails no object, however many runs find it
    so, and is asked again before long."""
    longest = min(config.limits.storage_backoff, ONCE_BACK_OFF_SECONDS)
    limits = config.limits.model_copy(update={"storage_attempts": 0, "storage_backoff": longest})
    return config.model_copy(update={"limits": limits})
