"""A continuous process: it says how it does from its first moment on, and waits for servers that are away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from threading import Event

from pipeline import logs
from pipeline.app.continuous import Continuous
from pipeline.app.installation import App
from pipeline.config import Config
from pipeline.consumers.broker import EMBEDDED
from pipeline.errors import LabelfeedError, NewerSchema, RetriableError, UsageError
from pipeline.metrics import Metrics
from pipeline.server import Server
from pipeline.waiting import Patience, our_error

TELL_SECONDS = 1.0
"""How often the metric `up` is brought up to date."""
JOIN_SECONDS = 1.0
"""How long it is waited for whoever does that, at the end."""
LONGEST_SECONDS = 5.0
"""Longest time between two attempts to reach a server that is away at the start."""

_log = logging.getLogger(__name__)


def serve(config: Config, roles: frozenset[str], stop: Event) -> None:
    """Work in these roles (`watch`, `dispatch`, `work`) until `stop` is set.

    A database, log or queue that does not answer is waited for, at the start as later; so is a program as new
    as the database's schema.

    Raises:
        UsageError: the configuration asks for what cannot be.
    """
    _check(config, roles)
    _Service(config, roles).run(stop)


def _check(config: Config, roles: frozenset[str]) -> None:
    ends = roles & {"dispatch", "work"}
    if config.queue == EMBEDDED and len(ends) == 1:
        (role,) = ends
        raise UsageError(
            f"`{role}` alone needs a queue that processes share, such as queue: redis://host:6379/0;"
            " with `embedded` there is `labelfeed run`"
        )


class _Service:
    def __init__(self, config: Config, roles: frozenset[str]) -> None:
        self._config = config
        self._roles = roles
        self._metrics = Metrics()
        self._patience = Patience("+".join(sorted(roles)), longest=LONGEST_SECONDS)
        self._waits: dict[str, str | None] = {}
        self._concerns: Callable[[], Sequence[str]] = tuple
        self._tell("starting")

    def run(self, stop: Event) -> None:
        token = self._config.server.token
        listen = self._config.server.listen
        secret = token.get_secret_value() if token else None
        server = Server(listen, self._metrics, self.ready, secret, self.concerns)
        _log.info(logs.LISTENING, extra={"host": listen.rpartition(":")[0], "port": server.port})
        try:
            while not stop.is_set():
                try:
                    self._open(stop)
                except (RetriableError, NewerSchema) as error:
                    self._wait(error, stop)
        finally:
            server.close()
            _log.info(logs.STOPPED)

    def ready(self) -> dict[str, str | None]:
        """Role → None while it works, or why it waits; as it was a second ago."""
        return self._waits

    def concerns(self) -> Sequence[str]:
        """What works but should be mended; as it was some seconds ago."""
        return self._concerns()

    def _tell(self, problem: str) -> None:
        self._waits = dict.fromkeys(sorted(self._roles), problem)

    def _open(self, stop: Event) -> None:
        with App.open(self._config, metrics=self._metrics) as app:
            continuous = app.continuous(self._roles)
            self._concerns = continuous.concerns
            with continuous.running(self._roles):
                self._patience.succeeded()
                looking = threading.Thread(target=self._look, args=(continuous, stop), name="look", daemon=True)
                looking.start()
                _log.info(logs.STARTED, extra={"roles": ",".join(sorted(self._roles))})
                stop.wait()
                _log.info(logs.STOPPING)
                self._tell("stopping")
            looking.join(JOIN_SECONDS)

    def _look(self, continuous: Continuous, stop: Event) -> None:
        """Look again and again how the roles do. A server that takes what it is asked and does not answer keeps this
        thread waiting: not the one that ends the roles in time."""
        while not stop.is_set():
            try:
                waits = continuous.look()
            except Exception as error:  # noqa: BLE001 - the outer boundary of this thread
                if stop.is_set():
                    return  # what it asks may be closed
                ours = our_error(error)
                waits = dict.fromkeys(sorted(self._roles), f"{ours.code}: {ours}")
            if not stop.is_set():
                self._waits = waits
                stop.wait(TELL_SECONDS)

    def _wait(self, error: LabelfeedError, stop: Event) -> None:
        self._tell(f"{error.code}: {error}")
        self._metrics.add("errors_total", stage="start", code=error.code)
        for role in self._roles:
            self._metrics.set("up", 0, role=role)
        self._patience.wait(error, stop)
