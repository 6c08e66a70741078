"""The scheduler's arithmetic, by example and by property; over minutes it is in consumers/test_turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import throttle
from pipeline.throttle import (
    WHYS,
    Bucket,
    Cost,
    Flight,
    History,
    Pace,
    Permit,
    Pressure,
    Wait,
    Waiting,
    adapt,
    admit,
    batches,
    claims,
    expected,
    owed,
    rank,
    refill,
    room,
    share,
    told,
)
from pipeline.throttle.claims import LONGEST_WINDOW

sources = st.lists(
    st.builds(
        Waiting,
        id=st.integers(),
        ready=st.integers(0, 5000),
        weight=st.floats(0.01, 100.0),
        deficit=st.floats(-1000.0, 1000.0),
    ),
    max_size=12,
    unique_by=lambda source: source.id,
)


@given(sources, st.integers(-5, 5000))
@settings(deadline=None)
def test_share_uses_all_there_is_and_no_more(waiting: list[Waiting], capacity: int) -> None:
    """Shares add up to the capacity or to all that is ready, whichever is less; nobody gets more than it has."""
    shares = share(waiting, capacity)
    total = sum(each.quota for each in shares.values())
    assert total == max(0, min(capacity, sum(source.ready for source in waiting)))
    assert all(0 <= shares[source.id].quota <= source.ready for source in waiting)


def turns(weights: dict[Any, float], capacities: list[int], ready: int = 10_000_000) -> dict[Any, int]:
    """What each source was served over turns with carried deficits, all of them having work without end."""
    deficits = dict.fromkeys(weights, 0.0)
    served = dict.fromkeys(weights, 0)
    for capacity in capacities:
        waiting = [Waiting(name, ready, weight, deficits[name]) for name, weight in weights.items()]
        shares = share(waiting, capacity)
        for source in waiting:
            served[source.id] += shares[source.id].quota
            deficits[source.id] = owed(source, shares[source.id].fair, shares[source.id].quota)
    return served


@given(
    st.dictionaries(st.integers(), st.floats(0.5, 20.0), min_size=2, max_size=8),
    st.lists(st.integers(1, 300), min_size=200, max_size=300),
)
@settings(deadline=None, max_examples=50)
def test_weights_are_met(weights: dict[int, float], capacities: list[int]) -> None:
    """Under contention each source's share of all that was served is its weight's, within 5 % or what is given at a
    time."""
    served = turns(weights, capacities)
    total = sum(served.values())
    for name, weight in weights.items():
        fair = total * weight / sum(weights.values())
        assert abs(served[name] - fair) <= 0.05 * fair + throttle.QUANTUM + len(weights)


def test_crumbs_are_given_together() -> None:
    """Of many sources that share little each turn serves some, with no less than a quantum each; none is passed over
    for long, and who has less than that gets all of it."""
    few = share([Waiting(number, 1000, 1.0, 0.0) for number in range(20)], 200)
    assert sorted(each.quota for each in few.values() if each.quota) == [25] * 8
    served = turns(dict.fromkeys(range(20), 1.0), [200] * 5).values()
    assert max(served) - min(served) <= throttle.QUANTUM
    assert share([Waiting(1, 3, 1.0, 9.0), Waiting(2, 1000, 1.0, 0.0)], 20)[1].quota == 3


def test_nobody_starves() -> None:
    """A source of little weight is served even if every turn has room for one object only."""
    served = turns({"large": 100.0, "small": 1.0}, [1] * 1010)
    assert served["small"] == 10


def test_what_one_cannot_use_goes_to_the_others() -> None:
    """A source with little work leaves its part to those that have more."""
    shares = share([Waiting(1, 10, 1.0, 0.0), Waiting(2, 1000, 1.0, 0.0), Waiting(3, 1000, 1.0, 0.0)], 310)
    assert {name: each.quota for name, each in shares.items()} == {1: 10, 2: 150, 3: 150}


def test_no_debt_without_work() -> None:
    """A source that has nothing left is owed nothing: silence saves up no burst."""
    assert owed(Waiting(1, 5, 1.0, 300.0), 5.0, 5) == 0.0
    assert owed(Waiting(1, 500, 1.0, 0.0), 100.5, 100) == 0.5


@given(st.floats(0.0, 100.0))
def test_priorities_age(seconds: float) -> None:
    """Others that go first raise a source by a class after each time, up to the highest; nobody falls."""
    for priority, own in throttle.PRIORITIES.items():
        assert rank(priority, 0.0, 1000.0) == own
        assert rank(priority, 1000.0, 1000.0 + seconds) == min(2, own + int(seconds / throttle.AGE_SECONDS))
        assert rank(priority, 2000.0, 1000.0) == own


@given(
    st.lists(st.integers(0, 2 * throttle.BATCH_BYTES), max_size=400),
    st.integers(1, 300),
    st.integers(1, 10),
)
@settings(deadline=None)
def test_batches_keep_order_and_bounds(sizes: list[int], most: int, parts: int) -> None:
    """Every object is in one batch, in order; a batch is within both bounds unless one object alone is larger."""
    cut = batches(sizes, most, parts)
    assert [place for batch in cut for place in batch] == list(range(len(sizes)))
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(sizes[place] for place in batch) <= throttle.BATCH_BYTES


def test_batches_spread_over_idle_threads() -> None:
    """Few objects are divided evenly over idle threads, but not into crumbs."""
    assert [len(batch) for batch in batches([1] * 200, 250, 4)] == [50, 50, 50, 50]
    assert [len(batch) for batch in batches([1] * 30, 250, 4)] == [30]
    assert [len(batch) for batch in batches([1] * 600, 250, 2)] == [250, 250, 100]


def test_room_is_bounded_by_time_and_ceiling() -> None:
    """Unstarted work is what was lately finished, or two batches for each idle thread, under the ceiling."""
    common: dict[str, Any] = {"batch": 100, "ceiling": 2000}
    idle, busy = Flight(threads=2), Flight(threads=2, running=2)
    assert room(idle, **common) == (400, 4)
    assert room(idle._replace(recent=900), **common) == (900, 9)
    assert room(busy._replace(recent=9000), **common) == (2000, 90)
    assert room(busy, **common) == (0, 0)
    assert room(idle._replace(objects=1990), **common).objects == 10
    assert room(idle._replace(waiting=4), **common) == (0, 0)
    assert room(idle._replace(unstarted=400, waiting=3), **common) == (0, 0)
    assert room(Flight(recent=900), **common) == (0, 0)


def test_pressure_bounds_the_claims() -> None:
    """With a bound there are no more claims than that, running or waiting; one above the threads bounds nothing."""
    flight = Flight(threads=8, running=2, waiting=1, recent=1000)
    assert room(flight, batch=100, ceiling=2000, bound=4).batches == 1
    assert room(flight, batch=100, ceiling=2000, bound=3).batches == 0
    assert room(flight, batch=100, ceiling=2000, bound=8) == room(flight, batch=100, ceiling=2000)


def test_claims_are_short() -> None:
    """A full batch keeps a thread busy for about a second, once the workers' pace is known; it is never a crumb."""
    assert Pace().batch(250) == 250
    assert Pace().after(1000, 4, 1.0).batch(250) == 250
    assert Pace().after(400, 4, 1.0).batch(250) == 100
    assert Pace().after(1, 4, 1.0).batch(250) == 10
    assert Pace().after(1, 4, 1.0).batch(3) == 3
    later = Pace().after(4000, 4, 1.0).after(0, 4, 60.0)
    assert later.batch(250) == 10


def test_how_much_keeps_a_thread_busy() -> None:
    """What a thread ends in some time, by the pace of late; no crumb before that is known."""
    assert Pace().ends(0.1) == throttle.SMALL_BATCH_OBJECTS
    assert Pace().after(4000, 4, 1.0).ends(0.1) == 100
    assert Pace().after(1, 4, 1.0).ends(0.1) < 1


@given(st.integers(0, 5000), st.floats(0.5, 100.0), st.integers(1, 1000), st.integers(1, 512))
def test_claims_are_whole_windows(objects: int, seconds: float, most: int, window: int) -> None:
    """Where a store reads some objects at once, a claim is a whole number of these, or the most there may be, and
    never shorter than it would be otherwise."""
    pace = Pace(objects, seconds)
    whole = pace.batch(most, window)
    enough = pace.batch(10**9)
    assert whole in (most, LONGEST_WINDOW * enough) or whole % window == 0
    assert pace.batch(most) <= whole <= min(most, enough + window, LONGEST_WINDOW * enough)


def test_a_slow_store_is_read_a_window_at_a_time() -> None:
    """Objects that take two seconds each, 64 at once, are claimed 64 at a time: fewer would take as long."""
    pace = Pace()
    for _ in range(20):
        pace = pace.after(pace.batch(500, 64), 1, 2.0)
    assert pace.batch(500, 64) == 64


def test_nobody_busy_gets_crumbs() -> None:
    """While all threads are busy only full batches are claimed, by the smallest of any source; an idle one gets any."""
    busy = Flight(threads=2, running=2, recent=131, unstarted=40)
    assert room(busy, batch=100, ceiling=2000, least=100) == (0, 0)
    assert room(busy, batch=100, ceiling=2000, least=20) == (80, 2)
    assert room(busy._replace(unstarted=30), batch=100, ceiling=2000, least=100) == (100, 2)
    assert room(busy._replace(running=1), batch=100, ceiling=2000, least=100).objects == 160


# --- permits ---


def test_what_an_object_should_cost() -> None:
    """By the tasks for each byte of its source so far; a task for each where each gave one; by the mean where the size
    is not known; many for its bytes where nothing was read yet."""
    assert expected(History(), 1000) == (1, 10.0, 1000.0)
    assert expected(History(), 0) == (1, 1.0, 0.0)
    assert expected(History(10, 5000, 100_000), 400) == (1, 20.0, 400.0)
    assert expected(History(10, 5000, 100_000), 0) == (1, 500.0, 10_000.0)
    assert expected(History(10, 10, 10_000), 1_000_000).tasks == 1.0
    assert expected(History(10, 5000, 100_000), 1).tasks == 1.0


@given(
    st.floats(0.1, 1000.0),
    st.lists(
        st.tuples(
            st.floats(0.0, 5.0), st.integers(1, 3000), st.floats(0.2, 3.0), st.sampled_from([0.0, 0.0, 0.5, 3600.0])
        ),
        min_size=1,
        max_size=80,
    ),
)
@settings(deadline=None)
def test_a_bucket_holds_its_rate(rate: float, steps: list[tuple[float, int, float, float]]) -> None:
    """However often it is asked, however wrong the guesses were and however the clock was set back: from any moment on
    no more is used than the rate and a burst, but for what one object has beyond them or beyond its guess."""
    now, used, bucket = 1e6, 0.0, Bucket(0.0, 0.0)
    level, surplus = 0.0, 0.0
    for pause, guess, factor, back in steps:
        now += pause - back
        bucket = refill(bucket, now, rate, used)
        # What a bucket of this rate would have to hold: the largest excess of any window that ends here.
        level = max(0.0, level - rate * pause)
        permit = throttle.paced("tasks", bucket, rate, used, 0.0)[0]
        if admit([permit], Cost(1, float(guess), 0.0)) is None:
            used += guess * factor
            level += guess * factor
            surplus = max(surplus, guess * factor - min(guess, throttle.burst(rate)))
        assert level <= throttle.burst(rate) + surplus + 1e-6


@given(st.floats(0.1, 1000.0), st.floats(1.5, 1e6), st.floats(0.1, 100.0))
def test_a_clock_that_is_set_back_stops_no_rate(rate: float, back: float, wait: float) -> None:
    """A bucket from the time before is filled from now on, by as much as ever."""
    empty = Bucket(50.0, 2e6)
    at = empty.at - back
    moved = refill(empty, at, rate, 50.0)
    assert (moved.allowed, moved.at) == (50.0, at)
    later = refill(moved, at + wait, rate, 50.0)
    assert later.allowed == pytest.approx(50.0 + min(throttle.burst(rate), rate * wait))


def test_a_wrong_guess_is_paid_for() -> None:
    """What an object gave beyond its guess is waited out before the next one; what it did not give comes back."""
    bucket = refill(Bucket(0.0, 0.0), 100.0, 10.0, 0)
    bucket = refill(bucket, 101.0, 10.0, 1000)
    (permit, _) = throttle.paced("tasks", bucket, 10.0, 1000, 0.0)
    assert not permit.admits(Cost(1, 1.0, 0.0))
    assert permit.wait(Cost(1, 10.0, 0.0), 101.0).until == pytest.approx(101.0 + 99.0)
    (permit, _) = throttle.paced("tasks", refill(bucket, 201.0, 10.0, 1000), 10.0, 1000, 0.0)
    assert permit.admits(Cost(1, 10.0, 0.0))
    (permit, _) = throttle.paced("tasks", refill(bucket, 101.0, 10.0, 5), 10.0, 5, 0.0)
    assert permit.left == 10.0


def test_what_stands_still_saves_up_nothing() -> None:
    """No more is under way than a rate gives in some seconds, however long it takes."""
    rate, used = 10.0, 500.0
    full = throttle.paced("tasks", Bucket(9999.0, 1.0), rate, used, rate * throttle.FLIGHT_SECONDS)
    assert admit(full, Cost(1, 1.0, 0.0)) is full[1]


def test_an_object_larger_than_a_bucket_passes() -> None:
    """What costs more than a whole bucket begins when the bucket is full, and is paid for after that."""
    permit = Permit("throttled", "tasks", 10.0, whole=10.0, rate=10.0)
    assert admit([permit], Cost(1, 1000.0, 0.0)) is None
    assert permit.left == -990.0


def test_nothing_is_spent_where_one_limit_forbids() -> None:
    """An object begins if every limit allows it, and only then costs anything."""
    wide, narrow = Permit("full", "tasks", 100.0), Permit("in_flight", "bytes", 5.0, first=True)
    assert admit([wide, narrow], Cost(1, 10.0, 10.0)) is narrow
    assert (wide.left, narrow.left) == (100.0, 5.0)
    assert admit([wide, narrow], Cost(1, 10.0, 10.0), first=True) is None
    assert (wide.left, narrow.left) == (90.0, -5.0)


# --- pressure ---


def test_pressure_is_additive_up_and_multiplicative_down() -> None:
    """Slow commits halve the bound, quick ones raise it by one, until it bounds nothing; it never falls below one."""
    now, told_, spent = 1000.0, 0, 0.0
    pressure = Pressure()
    bounds = []
    for seconds in [0.05, 0.05] + [1.0] * 5 + [0.05] * 20:
        now, told_, spent = now + throttle.ADAPT_SECONDS, told_ + 10, spent + 10 * seconds
        pressure = adapt(pressure, now, told_, spent, 16)
        bounds.append(claims(pressure))
    assert bounds[:7] == [0, 0, 8, 4, 2, 1, 1]
    assert bounds[7:22] == list(range(2, 17))
    assert bounds[22:] == [0] * 5


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 20.0), st.integers(0, 64)), max_size=60))
@settings(deadline=None)
def test_pressure_stays_within_bounds(looks: list[tuple[int, float, int]]) -> None:
    """Whatever the workers tell, the bound is none, or from one to the number of threads that ever lived."""
    now, told_, spent, pressure = 1000.0, 0, 0.0, Pressure()
    for commits, mean, threads in looks:
        now, told_, spent = now + 3.0, told_ + commits, spent + commits * mean
        pressure = adapt(pressure, now, told_, spent, threads)
        assert 0 <= claims(pressure) <= max(each[2] for each in looks)
        assert pressure.bound == 0 or pressure.bound >= 1


def test_commits_that_always_take_long_are_not_slow() -> None:
    """Large batches take long even when nothing else runs: what counts is how long they took at best."""
    pressure, now, told_ = Pressure(), 1000.0, 0
    for _ in range(30):
        now, told_ = now + 2.0, told_ + 5
        pressure = adapt(pressure, now, told_, told_ * 0.9, 8)
    assert claims(pressure) == 0


def test_workers_that_end_take_their_commits_with_them() -> None:
    """Totals that fall say nothing of the database."""
    pressure = Pressure(bound=4.0, best=0.1, commits=100, seconds=10.0, at=1000.0)
    assert adapt(pressure, 1003.0, 20, 2.0, 8).bound == 4.0
    assert adapt(pressure, 1003.0, 20, 2.0, 8).commits == 20
    assert adapt(pressure, 1001.0, 200, 2000.0, 8) == pressure


# --- words ---


def test_waits_are_told() -> None:
    """What is waited for is said in words, with amounts and times."""
    assert told(Wait("throttled", 112.0), 100.0) == "throttled: next import in 12 s"
    assert told(Wait("full", at=100_000, of=100_000), 0) == "full: 100,000 of 100,000"
    assert told(Wait("full", at=100_230, of=100_000), 0) == "full: 100,230 of 100,000, 230 too many"
    assert told(Wait("share", behind="hot"), 0) == "waiting for a fair share behind hot"
    assert told(Wait("paused"), 0) == "paused"
    assert told(Wait("queue"), 0) == "Redis does not answer"
    assert told(Wait("failing", 1000.0), 0) == "paused by its failures: next try in 17 min"
    assert all(told(Wait(why, at=1, of=2, behind="b"), 0) for why in WHYS)
    assert Wait.parse(list(Wait("full", None, None, 1.0, 2.0))) == Wait("full", None, None, 1.0, 2.0)
