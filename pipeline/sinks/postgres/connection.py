"""A connection to PostgreSQL that notices when nobody answers on it any more.

The server ends each of our statements by itself, so that one on which nothing comes for longer is lost: what lies
between may acknowledge all that is sent and pass nothing on, for ever. libpq would wait as long.
"""

from __future__ import annotations

import time
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen

CONNECT_SECONDS = 5.0
"""How long a connection is waited for before the caller is told that the server does not answer."""
STATEMENT_SECONDS = 60
"""How long the server works on one of our statements at most."""
SILENT_SECONDS = STATEMENT_SECONDS + 10.0
"""A connection on which a statement brings nothing for this long is lost ..."""
DOUBT_SECONDS = 10.0
"""... and so it is as soon as it was silent for this long, and the server lets nobody connect, either."""
KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": int(SILENT_SECONDS * 1000),
}
"""A host that is gone acknowledges nothing: a connection to it ends when it would be lost by the rules above, also one
that nobody waits on (on Linux `tcp_user_timeout` decides, whatever the count of keepalives). No sooner: a server that
is alive, but whose disk is slow, may take nothing of a COPY for a while, which counts in the same way. One that nothing
comes from is asked whether it is still there, as what lies between forgets silent connections: the build of an index
may take hours."""

Row = tuple[object, ...]
T = TypeVar("T")


class Outage:
    """When the connections of one pool, to `url`, have last found that their server lets nobody in, by the monotonic
    clock."""

    __slots__ = ("at", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.at = 0.0


class Connection(psycopg.Connection[Row]):
    """A connection whose statements raise OperationalError, and leave it broken, when it is silent for too long."""

    silence: float | None = None
    """How many seconds a statement may bring nothing; None for any time."""
    outage: Outage
    made = 0.0
    """Since when it is there, by the monotonic clock."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As psycopg's, by which all waiting for the server is done."""
        heard = gen if self.silence is None else self._heard(gen, self.silence)
        return super().wait(heard, interval, timeout)

    def _heard(self, gen: PQGen[T], longest: float) -> PQGen[T]:
        last = asked = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    last = asked = now
                elif now - asked >= min(DOUBT_SECONDS, longest):
                    self._doubt(now - last, longest)
                    asked = now
                wanted = gen.send(ready)
        except StopIteration as end:
            found: T = end.value
            return found

    def _doubt(self, silent: float, longest: float) -> None:
        """Raise OperationalError if nothing will come any more after so many seconds without anything."""
        if silent < longest and time.monotonic() - silent > self.outage.at and self._answers():
            return
        self.pgconn.finish()
        raise psycopg.OperationalError("nothing comes from the server any more")

    def _answers(self) -> bool:
        """Whether somebody else gets an answer there, be it a refusal."""
        try:
            psycopg.connect(self.outage.url, connect_timeout=int(CONNECT_SECONDS)).close()
        except psycopg.errors.ConnectionTimeout:
            self.outage.at = time.monotonic()
            return False
        except psycopg.OperationalError:
            return True
        return True
