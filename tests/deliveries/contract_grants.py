"""What the grants of deliveries promise on every database, as the scheduler gives them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Config, Throttle
from pipeline.consumers.deliverer import Deliverer
from pipeline.consumers.delivering import GRANT_SECONDS, LONGEST_GRANT_SECONDS, Delivering
from pipeline.consumers.filling import Outlet
from pipeline.ledger.deliveries import DeliveryIdentity, DeliveryRow, Granted
from pipeline.metrics import Metrics
from pipeline.sqlitefile import uptime
from tests.deliveries.desk import Remote
from tests.ledger.bench import EPOCH, Bench

EVERY = 1000.0
TWO = [DeliveryIdentity("cats", name, "memory", f"memory:{name}") for name in "ab"]


class Messages:
    """A queue of which nobody takes anything."""

    def __init__(self) -> None:
        self.sent: list[Granted] = []

    def epoch(self) -> str:
        """As `Queue.epoch`."""
        return EPOCH

    def deliver(self, granted: Granted) -> None:
        """As `Queue.deliver`."""
        self.sent.append(granted)


def _delivering(bench: Bench, messages: Messages, every: float, metrics: Metrics | None = None) -> Delivering:
    deliveries = [{"name": one.name, "jsonl": {"url": f"./{one.name}"}} for one in TWO]
    project = {"throttle": {"imports_every": every}, "deliveries": deliveries}
    config = Config.model_validate({"database": "sqlite:///x.db", "projects": {"cats": project}, "sources": []})
    return Delivering(config, bench.ledger, messages, metrics or Metrics())  # type: ignore[arg-type]  # the part that it uses


def _import(bench: Bench, rows: Sequence[DeliveryRow], granted: Granted) -> None:
    """Send what is granted, and wait for its end."""
    outlets = {
        row.id: Outlet(row.id, row.name, Remote(), Throttle(imports_every=EVERY), 5.0, 0.0, delete_remote=False)
        for row in rows
    }
    Deliverer(outlets, bench.ledger, Metrics(), "sender").run(granted.delivery, granted.lease)


class GrantContract:
    """Who may begin what, and when."""

    def test_imports_of_a_project_keep_their_distance(self, bench: Bench) -> None:
        """Of two deliveries of a project that wait, one imports at a time; the other one has its turn when the interval
        since the end of that import is over."""
        rows = bench.ledger.deliveries().register(TWO)
        bench.imported("k", texts=("x",))
        bench.ledger.beat("w", 1, 60.0)
        messages = Messages()
        delivering = _delivering(bench, messages, EVERY)

        for _ in range(3):
            delivering.step()
        (first,) = messages.sent
        _import(bench, rows, first)
        for _ in range(3):
            delivering.step()
        assert messages.sent == [first]

        bench.execute(f"UPDATE deliveries SET ended_at = {_past(bench)}")
        delivering.step()
        assert {one.delivery for one in messages.sent} == {row.id for row in rows}
        assert len(messages.sent) == len(TWO)

    def test_a_delivery_that_nobody_sends_for_holds_up_no_other(self, bench: Bench) -> None:
        """Where no worker starts what one delivery is granted, the other one of its project soon has its turn."""
        bench.ledger.deliveries().register(TWO)
        bench.imported("k", texts=("x",))
        bench.ledger.beat("w", 1, 3600.0)
        messages = Messages()
        delivering = _delivering(bench, messages, EVERY)
        for _ in range(4):
            delivering.step()
            assert _left(bench) < 2 * GRANT_SECONDS
            _end(bench)
        first, second, *others = [one.delivery for one in messages.sent]
        assert first != second
        assert others == [first, second]

    def test_what_is_retired_counts(self, bench: Bench) -> None:
        """An import into a delivery that is in no configuration any more keeps the others of its project at a distance;
        none is begun into it."""
        rows = bench.ledger.deliveries().register(TWO)
        bench.imported("k", texts=("x",))
        bench.ledger.beat("w", 1, 60.0)
        messages = Messages()
        delivering = _delivering(bench, messages, EVERY)
        delivering.step()
        (first,) = messages.sent
        (other,) = [one for one, row in zip(TWO, rows, strict=True) if row.id != first.delivery]
        bench.ledger.deliveries().register([other])
        delivering.step()
        _import(bench, rows, first)
        delivering.step()
        assert messages.sent == [first]
        bench.execute(f"UPDATE deliveries SET ended_at = {_past(bench)}")
        delivering.step()
        assert [one.name for one in messages.sent[1:]] == [f"cats/{other.name}"]

    def test_what_deliveries_wait_for_is_measured(self, bench: Bench) -> None:
        """The metrics say by the words of `status` what each delivery waits for: a worker, another one's import, the
        interval since that, which holds also where that one is in no configuration any more, or a person."""
        rows = bench.ledger.deliveries().register(TWO)
        bench.imported("k", texts=("x",))
        messages = Messages()

        def told() -> dict[str, str]:
            metrics = Metrics()
            _delivering(bench, messages, EVERY, metrics).step()
            names = {f"cats/{one.name}" for one in TWO}
            whys = ("paused", "failing", "workers", "unsure", "share", "throttled")
            return {
                name: why for name in names for why in whys if metrics.value("delivery_waits", delivery=name, why=why)
            }

        bench.ledger.beat("w", 1, -1.0)
        assert told() == {"cats/a": "workers", "cats/b": "workers"}
        bench.ledger.beat("w", 1, 60.0)
        assert told() == {"cats/b": "share"}
        (first,) = messages.sent
        assert first.name == "cats/a"
        _import(bench, rows, first)
        assert told() == {"cats/b": "throttled"}
        bench.ledger.deliveries().register(TWO[1:])
        assert told() == {"cats/b": "throttled"}
        bench.ledger.deliveries().pause(rows[1].id)
        assert told() == {"cats/b": "paused"}

    def test_nothing_is_granted_that_nobody_takes(self, bench: Bench) -> None:
        """Without a living worker no grant is made, whose message would stay in the queue."""
        bench.ledger.deliveries().register(TWO)
        bench.imported("k", texts=("x",))
        messages = Messages()
        delivering = _delivering(bench, messages, 0.0)
        bench.ledger.beat("w", 1, -1.0)
        delivering.step()
        assert not messages.sent
        bench.ledger.beat("w", 1, 60.0)
        delivering.step()
        assert len(messages.sent) == len(TWO)

    def test_a_grant_that_nobody_starts_is_repeated_ever_more_seldom(self, bench: Bench) -> None:
        """Workers that are busy for hours are left few messages: each unstarted grant waits twice as long as the one
        before, up to ten minutes; one that was started begins anew."""
        bench.ledger.deliveries().register(TWO[:1])
        bench.imported("k", texts=("x",))
        bench.ledger.beat("w", 1, 3600.0)
        messages = Messages()
        delivering = _delivering(bench, messages, 0.0)
        waits = []
        for _ in range(8):
            delivering.step()
            waits.append(_left(bench))
            _end(bench)
        expected = [min(GRANT_SECONDS * 2**n, LONGEST_GRANT_SECONDS) for n in range(8)]
        assert all(abs(wait - want) < GRANT_SECONDS / 2 for wait, want in zip(waits, expected, strict=True)), waits

        delivering.step()
        last = messages.sent[-1]
        assert bench.ledger.deliveries().start(last.delivery, last.lease, "w", 60.0) is not None
        _end(bench)
        delivering.step()
        assert abs(_left(bench) - GRANT_SECONDS) < GRANT_SECONDS / 2


def _is_sqlite(bench: Bench) -> bool:
    return isinstance(bench.execute("SELECT at FROM outbox")[0][0], float)


def _past(bench: Bench) -> str:
    return "1" if _is_sqlite(bench) else "'2000-01-01'"


def _left(bench: Bench) -> float:
    """Seconds until the one grant ends."""
    if _is_sqlite(bench):
        return float(bench.execute("SELECT max(until) FROM deliveries")[0][0]) - uptime()
    left = "extract(epoch FROM max(until) - clock_timestamp())::float8"
    return float(bench.execute(f"SELECT {left} FROM deliveries")[0][0])


def _end(bench: Bench) -> None:
    bench.execute(f"UPDATE deliveries SET until = {_past(bench)}")
