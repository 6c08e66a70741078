"""Local files as they change, by the operating system's notifications (`watchfiles`).

A changed file is looked at, and published when it is settled. A new folder is listed at once and once
more a little later, because files may land in it before the watch on it is in place. Names that are not
UTF-8 cannot be told by the library: its watch ends on one, and a new watch and a pass take its place.
Nor does it tell that the system's queue overflowed; so a pass is due after a burst that may have been too much,
and after this process was held up.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, watch
from watchfiles.main import FileChange

from pipeline.config import Source
from pipeline.errors import ObjectFailed, ObjectUnsettled, UnavailableError
from pipeline.events import EventKind, ObjectEvent, new_id
from pipeline.producers import Notices
from pipeline.stores import Entry
from pipeline.stores.local import LocalStore
from pipeline.stores.scope import Scope

DEBOUNCE_MS = 50
"""Changes that keep coming are given after this time."""
STEP_MS = 10
"""Changes are given when none has come for this time."""
TURN_MS = 20
"""Without changes, how often what was not settled is looked at."""
ROOT_SECONDS = 1.0
"""How often it is checked that the root is still the folder that is watched."""
RELIST_SECONDS = 0.5
"""A new folder is listed again after this time."""
LIST_LIMIT = 10_000
"""Files of a new folder that are published from here; if there are more, a pass does it."""
LIST_PAGE = 1000
PENDING_LIMIT = 100_000
"""Files that may be unsettled at once; if there are more, a pass finds them."""
SENT_LIMIT = 10_000
"""Files of which is remembered which version was published last."""
SOONEST_SECONDS = 0.005
STALL_SECONDS = 1.0
"""A turn that took so long was held up, and the system's queue may have overflowed meanwhile."""
BURST_SHARE = 8
"""A pass is due after more changes in one second than this part of the system's queue."""
QUEUE_LENGTH = Path("/proc/sys/fs/inotify/max_queued_events")
QUEUE_DEFAULT = 16_384


class LocalProducer:
    """Watches the root of a local store. `pipeline.producers.Producer`."""

    def __init__(self, source: Source, store: LocalStore, scope: Scope) -> None:
        self._source = source
        self._store = store
        self._scope = scope

    def notices(self, stop: threading.Event) -> Iterator[Notices]:
        """As `Producer.notices`; raises UnavailableError if the root is not there, or not the same any more."""
        files = self._store.files
        files.look()
        root = os.fsdecode(files.root)
        watched = Path(root).parent if files.single else Path(root)
        try:
            place = _place(watched)
            turns = watch(
                watched,
                watch_filter=None,
                debounce=DEBOUNCE_MS,
                step=STEP_MS,
                rust_timeout=TURN_MS,
                yield_on_timeout=True,
                stop_event=stop,
                recursive=not files.single,
                ignore_permission_denied=True,
            )
            yield from self._turns(turns, watched, place)
        except FileNotFoundError:
            raise UnavailableError(f"{files.root_uri()} is not there") from None
        except (OSError, RuntimeError) as error:
            # The library's own errors are RuntimeErrors: a full table of watches, a name it cannot tell.
            raise UnavailableError(f"{files.root_uri()} cannot be watched: {error}", code="watch") from error

    def _turns(self, turns: Iterator[set[FileChange]], watched: Path, place: tuple[int, int]) -> Iterator[Notices]:
        noticing = _Noticing(self._source, self._store, self._scope)
        checked = asked = time.monotonic()
        lost = True
        for changes in turns:
            now = time.monotonic()
            lost = lost or now - asked > STALL_SECONDS
            # A folder that was deleted and made again can have the old one's number; then only the change tells.
            replaced = (Change.deleted, str(watched)) in changes
            if now - checked > ROOT_SECONDS:
                checked = now
                replaced = replaced or _place(watched) != place
            if replaced:
                raise UnavailableError(f"{self._store.identity()} is another folder now", retry_after=0.0)
            events = noticing.turn(changes, now)
            if events or lost or noticing.lost:
                yield Notices(events, lost=lost or noticing.lost)
                lost = noticing.lost = False
            asked = time.monotonic()


class _Noticing:
    """What is known between two turns of one watch."""

    def __init__(self, source: Source, store: LocalStore, scope: Scope) -> None:
        self._source = source.name
        self._store = store
        self._scope = scope
        self._pending: dict[str, float] = {}
        self._folders: dict[str, tuple[float, bool]] = {}
        self._sent: dict[str, str] = {}
        self._burst = _Burst()
        self.lost = False

    def turn(self, changes: set[FileChange], now: float) -> list[ObjectEvent]:
        """The events of these changes, and of files that are settled by now (monotonic seconds)."""
        events: list[ObjectEvent] = []
        if self._burst.ended(len(changes), now):
            self.lost = True
        changed = {key for _, path in changes if (key := self._store.files.key_of(path)) is not None}
        deleted = {self._store.files.key_of(path) for change, path in changes if change is Change.deleted}
        due = {key for key, at in self._pending.items() if at <= now}
        for key in sorted(changed | due):
            self._look(key, now, events, deleted=key in deleted)
        self._list_folders(now, events)
        return events

    def _look(self, key: str, now: float, events: list[ObjectEvent], *, deleted: bool) -> None:
        self._pending.pop(key, None)
        try:
            entry = self._store.head(key)
        except ObjectFailed:
            return
        except ObjectUnsettled:
            self._wait(key, now + self._store.settle)
            return
        if entry is not None:
            self._consider(entry, now, events)
        elif self._store.files.is_folder(key):
            self._folders[key + "/"] = (now, True)
        elif (deleted or key in self._sent) and self._scope.covers(key):
            self._sent.pop(key, None)
            events.append(self._event(key, "deleted", None))

    def _consider(self, entry: Entry, now: float, events: list[ObjectEvent]) -> None:
        key = entry.key
        if self._sent.get(key) == entry.version or not self._scope.covers(key):
            return
        if not entry.settled:
            left = entry.modified + self._store.settle - time.time()
            self._wait(key, now + min(max(left, SOONEST_SECONDS), self._store.settle))
            return
        kind: EventKind = "updated" if key in self._sent else "created"
        if len(self._sent) >= SENT_LIMIT:
            del self._sent[next(iter(self._sent))]
        self._sent[key] = entry.version
        events.append(self._event(key, kind, entry))

    def _event(self, key: str, kind: EventKind, entry: Entry | None) -> ObjectEvent:
        event = ObjectEvent(self._source, key, kind, discovered_by="notification", time=time.time(), id=new_id())
        if entry is None:
            return event
        return event._replace(version=entry.version, size=entry.size, modified=entry.modified)

    def _wait(self, key: str, at: float) -> None:
        if len(self._pending) >= PENDING_LIMIT:
            self.lost = True
        else:
            self._pending[key] = at

    def _list_folders(self, now: float, events: list[ObjectEvent]) -> None:
        """List new folders that are due, of those inside each other the outermost only."""
        outer = ""
        for folder in sorted(folder for folder, (at, _) in self._folders.items() if at <= now):
            _, again = self._folders.pop(folder)
            if again:
                self._folders[folder] = (now + RELIST_SECONDS, False)
            if not outer or not folder.startswith(outer):
                outer = folder
                self._list(folder, now, events)

    def _list(self, folder: str, now: float, events: list[ObjectEvent]) -> None:
        after, listed = folder, 0
        while listed < LIST_LIMIT:
            page = self._store.list(after, LIST_PAGE)
            for entry in page.entries:
                if not entry.key.startswith(folder):
                    return
                self._consider(entry, now, events)
            if page.complete:
                return
            listed += len(page.entries)
            after = page.entries[-1].key
        self.lost = True


class _Burst:
    """Counts changes by the second."""

    def __init__(self) -> None:
        try:
            length = int(QUEUE_LENGTH.read_text())
        except (OSError, ValueError):
            length = QUEUE_DEFAULT
        self._most = max(1, length // BURST_SHARE)
        self._since = 0.0
        self._count = 0

    def ended(self, count: int, now: float) -> bool:
        """Add changes; True if the second that ends with them had too many."""
        self._count += count
        if now - self._since < 1.0:
            return False
        self._since, counted, self._count = now, self._count, 0
        return counted > self._most


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
