"""Sources of one store that are listed by the same requests, as those are that the routes of one source make.

Each of them makes a pass of its own, with a place, a comparison and deletions of its own, in a thread of its own.
Only the pages are shared: whoever comes to a place first asks for what follows there, and the others get that page
and the moment before its request. All that a pass concludes rests on these two, so that it makes no difference who has
asked. A page counts for a pass only if it was asked for after that pass had begun; where the store lists in no order,
only if it follows the very page that the pass had before.

Who asks waits for the others before it is far ahead of them, but not for those that stand still or are elsewhere. What
somebody can't be given is asked for once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.stores import Page, Store

GATHER_SECONDS = 2.0
"""How long a pass that begins waits for those of the others to begin, too."""
PAGES_AHEAD = 4
"""Pages that may be kept for those who come after."""
PAGES_KEPT = 8
"""Pages that are kept in any case, for who may come."""
LAG_SECONDS = 30.0
"""Who takes no page for so long, while others wait, is waited for no more."""
LOOK_SECONDS = 0.05


class Listed(NamedTuple):
    """A page, and when its request was about to be sent, by the ledger's clock."""

    requested: float
    page: Page


@dataclass(slots=True, eq=False)
class _Asked:
    """A page that was asked for at a monotonic time, when it has come; `waited_for` by whom."""

    number: int
    chain: int
    at: float
    waited_for: set[Member]
    listed: Listed | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Member:
    """One pass under way. For one thread."""

    together: Together
    stop: threading.Event
    began: float = field(default_factory=time.monotonic)
    last: _Asked | None = None

    def page(self, start: str | None, request: Callable[[Store], Listed]) -> Listed | None:
        """What follows a place: by `request`, or as another pass has got it; None if told to stop meanwhile."""
        return self.together._page(self, start, request)  # noqa: SLF001 - it has the lock


class Together:
    """The pages of `count` sources that list the same `store` in the same way. Thread-safe."""

    def __init__(self, store: Store, count: int) -> None:
        self._store = store
        self._count = count
        self._changed = threading.Condition()
        self._members: set[Member] = set()
        self._gathering = 0
        self._gathered = 0
        self._pages: dict[tuple[str | None, int], _Asked] = {}
        self._number = 0
        self._taken = 0.0

    @property
    def gathers(self) -> bool:
        """Whether a pass waits for the others to begin, too."""
        return self._gathering > 0

    @contextmanager
    def joined(self, stop: threading.Event) -> Iterator[Member]:
        """A pass, from its beginning to its end."""
        member = Member(self, stop)
        with self._changed:
            self._members.add(member)
            self._gather(member)
        try:
            yield member
        finally:
            with self._changed:
                self._members.discard(member)
                for asked in self._pages.values():
                    asked.waited_for.discard(member)
                if not self._members:
                    self._pages.clear()
                self._changed.notify_all()

    def _gather(self, member: Member) -> None:
        if len(self._members) >= self._count:
            self._gathered += 1
            self._changed.notify_all()
            return
        deadline, before = time.monotonic() + GATHER_SECONDS, self._gathered
        self._gathering += 1
        while self._gathered == before and time.monotonic() < deadline and not member.stop.is_set():
            self._changed.wait(LOOK_SECONDS)
        self._gathering -= 1

    def _page(self, member: Member, start: str | None, request: Callable[[Store], Listed]) -> Listed | None:
        ordered = self._store.ordered
        before = 0 if ordered or member.last is None else member.last.number
        with self._changed:
            asked, mine = self._asked(member, (start, before))
        if asked is None:
            return None
        if mine:
            self._ask(asked, (start, before), request)
        if asked.error is not None:
            raise asked.error
        return asked.listed

    def _asked(self, member: Member, place: tuple[str | None, int]) -> tuple[_Asked | None, bool]:
        """The page at a place, come or failed, or one that the caller has to ask for."""
        while not member.stop.is_set():
            asked = self._pages.get(place)
            if asked is None or asked.at < member.began:
                if self._room():
                    return self._begun(member, place), True
            else:
                while asked.listed is None and asked.error is None and not member.stop.is_set():
                    self._changed.wait(LOOK_SECONDS)
                if not member.stop.is_set():
                    self._take(member, asked)
                    return asked, False
            self._changed.wait(LOOK_SECONDS)
        return None, False

    def _room(self) -> bool:
        """Whether more may be asked for, or the others must come after first."""
        if sum(bool(asked.waited_for) for asked in self._pages.values()) < PAGES_AHEAD:
            return True
        if time.monotonic() - self._taken < LAG_SECONDS:
            return False
        for asked in self._pages.values():
            asked.waited_for.clear()
        return True

    def _begun(self, member: Member, place: tuple[str | None, int]) -> _Asked:
        self._number += 1
        last = member.last
        if last is None:
            others = {each for each in self._members if each.last is None}
        else:
            others = {each for each in self._members if each in last.waited_for or each.last is last}
        asked = _Asked(self._number, last.chain if last else self._number, time.monotonic(), others - {member})
        self._pages[place] = asked
        self._take(member, asked)
        kept = [key for key, each in self._pages.items() if not each.waited_for]
        for key in kept[: max(0, len(kept) - PAGES_KEPT)]:
            del self._pages[key]
        return asked

    def _take(self, member: Member, asked: _Asked) -> None:
        """A pass goes on behind this page: what it may come to is kept for it, and nothing else."""
        member.last = asked
        self._taken = time.monotonic()
        for each in self._pages.values():
            if each.chain == asked.chain and each.number > asked.number:
                each.waited_for.add(member)
            else:
                each.waited_for.discard(member)
        self._changed.notify_all()

    def _ask(self, asked: _Asked, place: tuple[str | None, int], request: Callable[[Store], Listed]) -> None:
        try:
            asked.listed = request(self._store)
        except BaseException as error:
            asked.error = error
            raise
        finally:
            with self._changed:
                if asked.error is not None and self._pages.get(place) is asked:
                    del self._pages[place]
                self._changed.notify_all()
