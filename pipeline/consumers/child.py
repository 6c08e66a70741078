"""Suspects run alone: a child process imports the objects of an `alone` claim, one after another.

An object that has lost a worker may take its next one with it, so that one is a process of its own, with
bounds on memory and time. Parent and child speak in lines. The parent writes one JSON line to the child's
standard input and leaves it open: the child ends when it closes. The child writes to its standard output
`at 17` before it opens object 17 (`at 0`: none), and `done`. When it dies, only the object that it was at
is counted as having lost a worker; the parent renews the lease all the while.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import orjson

from pipeline import logs
from pipeline.config import Limits
from pipeline.consumers.importer import NO_OBJECT, Importer
from pipeline.consumers.renewer import Held, Renewer
from pipeline.errors import LabelfeedError, UnavailableError
from pipeline.ledger import Ledger
from pipeline.waiting import Patience

START_SECONDS = 60.0
"""A child that has not come to its first object by then is ended."""
LOOK_SECONDS = 0.1
"""How often the parent looks whether the lease, the time or the process itself is over."""
END_SECONDS = 5.0
PARENT_GONE = 3
"""The child's exit status when its parent is gone."""

_log = logging.getLogger(__name__)

Build = Callable[[Mapping[str, Any], str, Callable[[int], None]], AbstractContextManager[Importer]]
"""Opens an importer from a payload, a worker's name, and what it is to tell each object's id to."""


class Request(NamedTuple):
    """What a child is to do: import this lease, in an importer made from `payload`, within `memory` bytes."""

    lease: int
    worker: str
    memory: int
    payload: Mapping[str, Any]


# --- the child's side -------------------------------------------------------------------------------------------


def serve(build: Build) -> None:
    """Be the child: read the request, import, tell how it goes. Logs and stray output go to standard error."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = Request(**orjson.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def at(object_id: int) -> None:
        told.write(f"at {object_id}\n")

    with build(request.payload, request.worker, at) as importer:
        _bound_memory(request.memory)
        importer.run(request.lease)
    told.write("done\n")


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread that waits inside its buffer cannot be left at the program's end.
    while os.read(0, 4096):
        pass
    os._exit(PARENT_GONE)


def _bound_memory(more: int) -> None:
    """Allow `more` bytes of address space beyond what the program itself takes."""
    most = _address_space() + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel's
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


# --- the parent's side --------------------------------------------------------------------------------------------


class ChildRunner:
    """Runs `alone` claims, each in a new process started by `command`. Used by one thread at a time."""

    def __init__(
        self,
        command: Sequence[str],
        payload: Mapping[str, Any],
        ledger: Ledger,
        renewer: Renewer,
        worker: str,
        limits: Limits,
    ) -> None:
        self._command = list(command)
        self._payload = payload
        self._ledger = ledger
        self._renewer = renewer
        self._worker = worker
        self._limits = limits
        self._patience = Patience("child process")
        self._cancelling = threading.Event()

    def run(self, lease: int) -> None:
        """Run a claim to its end; what had no outcome goes back, uncounted but for the object that killed."""
        with self._renewer.hold(lease) as held:
            # A child takes a second to start: too long for a claim that has ended, or is about to.
            self._renewer.renew(held)
            if held.lost:
                return
            child = _Child(self._command, self._request(lease))
            why = child.watch(held, self._cancelling, self._limits.child_time)
            lost = child.at if why in ("died", "time") and child.at != NO_OBJECT else None
            if why != "done":
                _log.warning(logs.CHILD_ENDED, extra={"lease": lease, "why": why, "object": child.at})
        try:
            self._ledger.give_back(lease, lost=lost)
        except LabelfeedError as error:
            _log.warning(logs.CLAIM_KEPT, extra={"lease": lease, "error": str(error)})
        if why == "died" and lost is None:
            self._patience.wait(UnavailableError("child processes do not start", code="internal"), self._cancelling)
        elif why == "done":
            self._patience.succeeded()

    def cancel(self) -> None:
        """End the child that runs, and every later one; its objects go back uncounted."""
        self._cancelling.set()

    def _request(self, lease: int) -> bytes:
        request = Request(lease, self._worker, self._limits.child_memory, self._payload)
        return orjson.dumps(request._asdict())


class _Child:
    """One child process, watched by its parent."""

    def __init__(self, command: Sequence[str], request: bytes) -> None:
        self.at = NO_OBJECT
        self._rest = b""
        self._done = False
        self._process = subprocess.Popen(  # noqa: S603 - the command is the program itself
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._write(request + b"\n")

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            _log.warning(logs.CHILD_ENDED, extra={"why": "it died before it was told what to do"})

    def watch(self, held: Held, cancelling: threading.Event, seconds: float) -> str:
        """Follow the child to its end; gives why that came: done, died, time, lost, cancelled."""
        try:
            return self._watch(held, cancelling, seconds)
        finally:
            self._end()

    def _watch(self, held: Held, cancelling: threading.Event, seconds: float) -> str:
        deadline = time.monotonic() + START_SECONDS
        while not self._done:
            before = self.at
            moved = self._read()
            if moved is None:
                break
            if self.at == NO_OBJECT and before != NO_OBJECT:
                deadline = float("inf")
            elif moved:
                deadline = time.monotonic() + seconds
            if time.monotonic() > deadline:
                return "time"
            if held.lost:
                return "lost"
            if cancelling.is_set():
                return "cancelled"
        return "done" if self._done else "died"

    def _read(self) -> bool | None:
        """Take what the child says: whether it said anything; None at its end."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
            return False
        data = os.read(descriptor, 65536)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode())
        return True

    def _take(self, line: str) -> None:
        word, _, number = line.partition(" ")
        if word == "at":
            self.at = int(number)
        elif word == "done":
            self._done = True

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._done:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning(logs.CHILD_ENDED, extra={"why": "it was done, did not end, and is killed"})
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
