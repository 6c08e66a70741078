"""A page of a listing that has been asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from pipeline.errors import UnavailableError
from pipeline.stores import Page

LOOK_SECONDS = 0.1
"""How often a pass that waits for a page looks whether it is stopped."""
LEAVE_SECONDS = 1.0
"""How long a pass that is stopped waits for the page that is being listed."""


class Asked:
    """A page, and when it was asked for, by the ledger's clock: listed in a thread of this `name`, or, without one,
    when it is looked at.

    The thread ends with the process: a store that does not answer holds up nobody who stops. Raises UnavailableError
    where there can be no further thread.
    """

    def __init__(self, name: str | None, requested: float, ask: Callable[[], Page], stop: threading.Event) -> None:
        self.requested = requested
        self._stop = stop
        self._page: Future[Page] = Future()
        self._list = partial(_list, ask, self._page)
        self._thread = None if name is None else threading.Thread(target=self._list, name=name, daemon=True)
        try:
            if self._thread is not None:
                self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(f"this machine lets us start no thread to list with: {error}") from None

    def page(self) -> Page | None:
        """The page, once it is there; None if the pass is stopped before. Raises what listing it raised."""
        if self._thread is None:
            self._list()
        else:
            _wait(self._thread, self._stop)
        return self._page.result() if self._page.done() else None

    def leave(self) -> None:
        """Wait for a page that nobody wants: so that no other pass lists beside it, or, where the pass is stopped, a
        moment, so that its store can be closed in order."""
        if self._thread is not None:
            _wait(self._thread, self._stop)
            self._thread.join(LEAVE_SECONDS)


def _list(ask: Callable[[], Page], page: Future[Page]) -> None:
    try:
        page.set_result(ask())
    except BaseException as error:  # noqa: BLE001 - it is raised where the page is looked at
        page.set_exception(error)


def _wait(thread: threading.Thread, stop: threading.Event) -> None:
    while thread.is_alive() and not stop.is_set():
        thread.join(LOOK_SECONDS)
