"""A page of a listing that comes while the one before it is compared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from pipeline.errors import UnavailableError
from pipeline.stores import Page

LOOK_SECONDS = 0.1
"""How often a pass that waits for a page looks whether it is stopped."""
LEAVE_SECONDS = 1.0
"""How long a pass that is stopped waits for the page that is being listed."""


class Asked:
    """A page that is listed meanwhile, and when that was asked for, by the ledger's clock.

    The thread ends with the process: a store that does not answer holds up nobody who stops. Raises UnavailableError
    where there can be no further thread.
    """

    def __init__(self, name: str, requested: float, ask: Callable[[], Page], stop: threading.Event) -> None:
        self.requested = requested
        self._stop = stop
        self._page: Future[Page] = Future()
        self._thread = threading.Thread(target=self._list, args=(ask,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(f"this machine lets us start no thread to list with: {error}") from None

    def _list(self, ask: Callable[[], Page]) -> None:
        try:
            self._page.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - it is raised where the page is looked at
            self._page.set_exception(error)

    def page(self) -> Page | None:
        """The page, once it is there; None if the pass is stopped before. Raises what listing it raised."""
        self._wait()
        return self._page.result() if self._page.done() else None

    def leave(self) -> None:
        """Wait for a page that nobody wants: so that no other pass lists beside it, or, where the pass is stopped, a
        moment, so that its store can be closed in order."""
        self._wait()
        self._thread.join(LEAVE_SECONDS)

    def _wait(self) -> None:
        while self._thread.is_alive() and not self._stop.is_set():
            self._thread.join(LOOK_SECONDS)
