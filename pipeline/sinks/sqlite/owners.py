"""Who is alive on this machine: each process with an embedded queue holds an OS lock on a file of its own."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOCAL = "local:"
"""Epochs of embedded queues begin so; only their processes can be looked for on this machine."""
LOOK_SECONDS = 0.5
"""Another process's lock is not tried more often than this."""


class Owners:
    """The lock files beside a database. Used by the writer thread, but for `hold`."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + ".owners")
        self._held: dict[str, int] = {}
        self._looked: dict[str, float] = {}

    def hold(self, epoch: str) -> None:
        """Lock this epoch's file for the life of the process; the kernel lets go of it, however that ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file(epoch), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[epoch] = descriptor

    def dead(self, epoch: str) -> bool:
        """Whether the process of this epoch is gone; False where that was looked up a moment ago."""
        if epoch in self._held:
            return False
        looked = time.monotonic()
        if looked - self._looked.get(epoch, -LOOK_SECONDS) < LOOK_SECONDS:
            return False
        self._looked[epoch] = looked
        return self._free(epoch)

    def close(self) -> None:
        """Let go of the locks held."""
        for epoch, descriptor in self._held.items():
            self._file(epoch).unlink(missing_ok=True)
            os.close(descriptor)
        self._held.clear()

    def _free(self, epoch: str) -> bool:
        try:
            descriptor = os.open(self._file(epoch), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._file(epoch).unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def _file(self, epoch: str) -> Path:
        return self._folder / (epoch.removeprefix(LOCAL).replace("/", "_") + ".lock")
