"""Claims: who gets them, how many, how large, and what becomes of them when the queue fails."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from pipeline.config import Config, Limits, Project, Throttle
from pipeline.consumers.scheduler import BUSY_SECONDS, IDLE_SECONDS, WAITING_SECONDS, Scheduler
from pipeline.errors import LabelfeedError, UnavailableError
from pipeline.events import ObjectEvent
from pipeline.ledger import Claim, Outcome
from pipeline.tasks import Task
from pipeline.throttle import BATCH_BYTES
from tests.consumers.house import EPOCH, House, build, inbox
from tests.ledger.bench import pending


class Sent:
    """A queue that keeps what it is sent; it can be made to fail."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.fails_after: float = float("inf")
        self.answers = True
        self.error: LabelfeedError = UnavailableError("no answer")

    def epoch(self) -> str:
        """As `Queue.epoch`."""
        if not self.answers:
            raise self.error
        return EPOCH

    def send(self, claim: Claim) -> None:
        """As `Queue.send`."""
        if len(self.claims) >= self.fails_after:
            raise self.error
        self.claims.append(claim)

    def sizes(self) -> list[int]:
        """Objects of each claim."""
        return [len(claim.ids) for claim in self.claims]


def fill(house: House, count: int, source: str = "inbox", size: int = 1) -> None:
    """Record so many objects; their files need not be there to be claimed."""
    events = [ObjectEvent(source=source, key=f"{n:06}", version="v", size=size) for n in range(count)]
    house.ledger.record("fill", events, {}, {source: "ignore"})


def scheduler(house: House, sent: Sent, threads: int = 2, **config: Any) -> Scheduler:
    """A scheduler in an installation with so many idle worker threads."""
    house.ledger.beat("w", threads, 60)
    return Scheduler(house.config.model_copy(update=config), house.ledger, sent, house.metrics)  # type: ignore[arg-type]


def finish(house: House, claims: list[Claim], state: Any = "done") -> None:
    """Run claims to their end without reading anything."""
    for claim in claims:
        house.ledger.start(claim.lease, "w", 60)
        house.ledger.commit(claim.lease, [Outcome(each, state, version="v") for each in claim.ids])


def test_idle_threads_get_two_batches_each(make_house: Any) -> None:
    """With nothing finished yet, what is claimed is two full batches for each idle thread, and no more."""
    house, sent = make_house(batch_objects=100), Sent()
    fill(house, 1000)
    made = scheduler(house, sent)
    assert made.step() == BUSY_SECONDS
    assert sent.sizes() == [100, 100, 100, 100]
    assert made.step() == WAITING_SECONDS
    assert len(sent.claims) == 4


def test_few_objects_are_spread(house: House) -> None:
    """A claim is no larger than it need be while threads are idle."""
    sent = Sent()
    fill(house, 80)
    scheduler(house, sent).step()
    assert sent.sizes() == [40, 40]


def test_large_objects_are_claims_of_their_own(house: House) -> None:
    """Bytes bound a claim as objects do, and no more claims wait than threads will soon take."""
    sent = Sent()
    fill(house, 20, size=BATCH_BYTES)
    made = scheduler(house, sent)
    for _ in range(3):
        made.step()
    assert sent.sizes() == [1, 1, 1, 1]


def test_ceiling_holds(make_house: Any) -> None:
    """`in_flight_objects` is never exceeded, however many threads are idle."""
    house, sent = make_house(in_flight_objects=150), Sent()
    fill(house, 1000)
    made = scheduler(house, sent, threads=20)
    for _ in range(3):
        made.step()
    assert sum(sent.sizes()) == 150


def test_nothing_is_claimed_without_workers(house: House) -> None:
    """While no worker thread lives nothing is claimed: there is nobody to start it."""
    sent = Sent()
    fill(house, 10)
    scheduler(house, sent, threads=0).step()
    assert sent.claims == []


def test_everything_is_claimed_in_the_end(house: House) -> None:
    """Turn by turn each object is claimed exactly once."""
    sent = Sent()
    fill(house, 2345)
    made = scheduler(house, sent)
    done = 0
    while made.step() < IDLE_SECONDS:
        finish(house, sent.claims[done:])
        done = len(sent.claims)
    ids = [each for claim in sent.claims for each in claim.ids]
    assert len(ids) == len(set(ids)) == 2345
    assert pending(house.ledger) == 0


def test_weights_divide_what_is_claimed(tmp_path: Any) -> None:
    """Sources with work get their shares by weight, in every turn's claims."""
    house = build(tmp_path, [inbox(name="a", weight=3), inbox(name="b", weight=1)], batch_objects=100)
    sent = Sent()
    fill(house, 2000, "a")
    fill(house, 2000, "b")
    scheduler(house, sent).step()
    got = {name: sum(len(claim.ids) for claim in sent.claims if claim.source == name) for name in "ab"}
    assert got == {"a": 300, "b": 100}
    house.ledger.close()


def test_what_is_not_due_leaves_its_part_to_others(tmp_path: Any) -> None:
    """A source whose objects all back off takes nothing from one that has due ones."""
    house = build(tmp_path, [inbox(name="a"), inbox(name="b")], batch_objects=100)
    sent = Sent()
    fill(house, 1000, "a")
    fill(house, 1000, "b")
    house.file.write(lambda db: db.execute("UPDATE objects SET due = due + 1000 WHERE source_id = 1"))
    scheduler(house, sent).step()
    assert {claim.source for claim in sent.claims} == {"b"}
    assert sum(sent.sizes()) == 400
    house.ledger.close()


def test_back_off_is_not_passed_over_for_good(house: House) -> None:
    """An object that comes back to the front of the order is claimed, though the cursor had passed its place."""
    sent = Sent()
    fill(house, 30)
    made = scheduler(house, sent)
    made.step()
    finish(house, sent.claims, "ready")
    house.file.write(lambda db: db.execute("UPDATE objects SET due = 1"))
    made.step()
    assert sum(sent.sizes()) == 60


def test_suspects_run_alone_and_hold_up_nobody(house: House) -> None:
    """Objects that lost a worker are claimed apart, few at a time; healthy ones go on meanwhile."""
    sent = Sent()
    fill(house, 200)
    house.file.write(lambda db: db.execute("UPDATE objects SET lost = 1 WHERE id % 2"))
    made = scheduler(house, sent)
    for _ in range(6):
        made.step()
        finish(house, [claim for claim in sent.claims if not claim.alone])
    alone = [claim for claim in sent.claims if claim.alone]
    assert [len(claim.ids) for claim in alone] == [25, 25]
    assert all(each % 2 for claim in alone for each in claim.ids)
    assert sorted(each for claim in sent.claims if not claim.alone for each in claim.ids) == list(range(2, 201, 2))


def test_many_suspects_do_not_stand_before_the_healthy(house: House) -> None:
    """More suspects than one turn looks at, all of them older, do not keep a healthy object from being claimed."""
    sent = Sent()
    fill(house, 3000)
    house.file.write(lambda db: db.execute("UPDATE objects SET lost = 1 WHERE id < 3000"))
    made = scheduler(house, sent)
    for _ in range(10):
        made.step()
    assert [claim.ids for claim in sent.claims if not claim.alone] == [(3000,)]


def test_failed_messages_undo_their_claims(make_house: Any) -> None:
    """Claims whose message could not be sent go back at once, uncounted."""
    house, sent = make_house(batch_objects=50), Sent()
    fill(house, 200)
    made = scheduler(house, sent)
    sent.fails_after = 1
    try:
        made.step()
    except UnavailableError:
        failed = True
    assert failed
    assert sent.sizes() == [50]
    states = list(house.states().values())
    assert (states.count("claimed"), states.count("ready")) == (50, 150)
    assert {row["attempts"] for row in house.rows().values()} == {0}


def test_nothing_is_claimed_while_the_queue_is_away(house: House) -> None:
    """Without an answer from the queue nothing is claimed, but leases end all the same."""
    sent = Sent()
    fill(house, 10)
    house.claim(seconds=-1)
    sent.answers = False
    try:
        scheduler(house, sent).step()
    except UnavailableError:
        failed = True
    assert failed
    assert set(house.states().values()) == {"ready"}


def throttled(house: House, sent: Sent, **throttle: Any) -> Scheduler:
    """A scheduler of a project with this throttle."""
    return scheduler(house, sent, projects={"p": Project(throttle=Throttle(**throttle))})


def test_full_project_holds(house: House) -> None:
    """`max_tasks` bounds what is started: a task is reckoned for each object under way."""
    sent = Sent()
    fill(house, 100)
    made = throttled(house, sent, max_tasks=30)
    for _ in range(3):
        made.step()
    assert sum(sent.sizes()) == 30


def test_rate_holds_from_the_first_turn(house: House) -> None:
    """`tasks_per_second` lets one second's worth start at once, and no more until time has passed."""
    sent = Sent()
    fill(house, 100)
    made = throttled(house, sent, tasks_per_second=10)
    for _ in range(3):
        made.step()
    assert 10 <= sum(sent.sizes()) <= 12


def test_what_was_kept_before_the_clock_was_set_back(house: House) -> None:
    """The ledger keeps a bucket that nothing could be claimed of as of the new time, and says what waits."""
    sent = Sent()
    fill(house, 100)
    made = throttled(house, sent, tasks_per_second=10)
    made.step()
    later = house.ledger.now() + 3600

    def ahead(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE projects SET tokens_at = ?", (later,))
        connection.execute("UPDATE scheduling SET noted_at = ?, notes = '{}'", (later,))

    house.file.write(ahead)
    sent.claims.clear()
    made.step()
    assert sent.claims == []
    assert house.ledger.tick(lambda tick: tick.load().projects[0].tokens_at) < later - 3000  # type: ignore[operator]
    assert house.ledger.reports().scheduling()["sources"]["inbox"][0] == "throttled"


def test_two_sources_share_one_projects_room(tmp_path: Any) -> None:
    """The bound of a project holds for its sources together."""
    house = build(tmp_path, [inbox(name="a"), inbox(name="b")])
    sent = Sent()
    fill(house, 100, "a")
    fill(house, 100, "b")
    throttled(house, sent, max_tasks=40).step()
    assert sum(sent.sizes()) == 40
    house.ledger.close()


def test_claims_of_a_lost_queue_are_released(house: House) -> None:
    """Claims that a process took into its own queue and never started are free once that process is gone."""
    sent = Sent()
    fill(house, 10)
    house.ledger.tick(
        lambda tick: [
            tick.claim(source, tick.candidates(source, 10), "local:of-a-dead-process", 60, alone=False)
            for source in tick.load().sources
        ]
    )
    scheduler(house, sent).step()
    assert sum(sent.sizes()) == 10


def test_the_loop_wakes_at_once(house: House) -> None:
    """Woken, the loop claims without waiting for its next turn; stopped, it ends."""
    arrived = threading.Event()

    class Waking(Sent):
        def send(self, claim: Claim) -> None:
            arrived.set()

    made = scheduler(house, Waking())
    thread = threading.Thread(target=made.run)
    thread.start()
    fill(house, 1)
    made.wake()
    assert arrived.wait(10)
    made.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_an_error_of_ours_does_not_end_the_loop(house: House) -> None:
    """After an exception that nobody foresaw the next turn claims again."""
    arrived = threading.Event()

    class Broken(Sent):
        def epoch(self) -> str:
            if self.answers:
                self.answers = False
                raise ZeroDivisionError
            return EPOCH

        def send(self, claim: Claim) -> None:
            arrived.set()

    fill(house, 1)
    made = scheduler(house, Broken())
    thread = threading.Thread(target=made.run)
    thread.start()
    assert arrived.wait(10)
    made.stop()
    thread.join(10)


def test_limits_come_from_the_configuration() -> None:
    """Defaults let a laptop work: two batches for each of two threads are below the ceiling."""
    limits = Config(projects={}, sources=()).limits
    assert limits == Limits()
    assert limits.workers * 2 * limits.batch_objects <= limits.in_flight_objects


def test_what_is_held_may_go_on_once_something_has_happened(house: House) -> None:
    """A run that ends does so by no turn that was before the last events: one of them may make room."""
    sent = Sent()
    made = scheduler(house, sent, projects={"p": Project(throttle=Throttle(max_tasks=1))})
    fill(house, 3)
    made.step()
    (claim,) = sent.claims
    house.ledger.start(claim.lease, "w", 60)
    outcome = Outcome(claim.ids[0], "done", version="v", tasks=[Task(1, "{}")], task_count=1)
    house.ledger.commit(claim.lease, [outcome])
    made.step()
    assert made.held == {"inbox": "full: 1 of 1"}
    made.wake()
    assert made.held == {}
    made.stop()
    assert made.held == {"inbox": "full: 1 of 1"}
