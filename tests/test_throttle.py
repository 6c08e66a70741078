"""The scheduler's arithmetic, by example and by property."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import throttle
from pipeline.throttle import Bucket, Waiting, batches, owed, project_room, refill, room, share

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
    """Under contention each source's share of all that was served is its weight's, within 5 %."""
    served = turns(weights, capacities)
    total = sum(served.values())
    for name, weight in weights.items():
        fair = total * weight / sum(weights.values())
        assert abs(served[name] - fair) <= max(0.05 * fair, len(weights))


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


@given(
    st.lists(st.integers(0, 2 * throttle.BATCH_BYTES), max_size=400),
    st.integers(1, 300),
    st.integers(1, 10),
)
@settings(deadline=None)
def test_batches_keep_order_and_bounds(sizes: list[int], most: int, parts: int) -> None:
    """Every object is in one batch, in order; a batch is within both bounds unless one object alone is larger."""
    items = list(enumerate(sizes))
    cut = batches(items, lambda item: item[1], most, parts)
    assert [item for batch in cut for item in batch] == items
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(size for _, size in batch) <= throttle.BATCH_BYTES


def test_batches_spread_over_idle_threads() -> None:
    """Few objects are divided evenly over idle threads, but not into crumbs."""
    assert [len(batch) for batch in batches(range(200), lambda _: 1, 250, 4)] == [50, 50, 50, 50]
    assert [len(batch) for batch in batches(range(30), lambda _: 1, 250, 4)] == [30]
    assert [len(batch) for batch in batches(range(600), lambda _: 1, 250, 2)] == [250, 250, 100]


def test_room_is_bounded_by_time_and_ceiling() -> None:
    """Unstarted work is what was lately finished, or two batches for each idle thread, under the ceiling."""
    common = {"in_flight": 0, "unstarted": 0, "waiting": 0, "batch": 100, "ceiling": 2000}
    assert room(**common, recent=0, idle=2) == (400, 4)
    assert room(**common, recent=900, idle=2) == (900, 9)
    assert room(**common, recent=9000, idle=0) == (2000, 90)
    assert room(**common, recent=0, idle=0) == (0, 0)
    assert room(**(common | {"in_flight": 1990}), recent=0, idle=2).objects == 10
    assert room(**(common | {"waiting": 4}), recent=0, idle=2) == (0, 0)
    assert room(**(common | {"unstarted": 400, "waiting": 3}), recent=0, idle=2) == (0, 0)


@given(
    st.floats(0.1, 1000.0),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 50)), min_size=1, max_size=100),
)
@settings(deadline=None)
def test_bucket_holds_the_rate(rate: float, steps: list[tuple[float, int]]) -> None:
    """However often it is asked, tasks never exceed the rate over any time by more than the burst and what one
    object brought beyond its estimate."""
    now, tasks, started = 1000.0, 0, 1000.0
    bucket = Bucket(0.0, 0.0)
    surplus = 0
    for pause, per_object in steps:
        now += pause
        bucket = refill(bucket, now, rate, tasks)
        if project_room(tasks=tasks, in_flight=0, bucket=bucket, max_tasks=0):
            tasks += per_object
            surplus = max(surplus, per_object)
        assert tasks <= rate * (now - started) + max(1.0, rate * throttle.BURST_SECONDS) + surplus + 1


def test_bucket_waits_out_a_wrong_guess() -> None:
    """An object that gave more tasks than was guessed is paid for before the next one."""
    bucket = refill(Bucket(0.0, 0.0), 100.0, 10.0, 0)
    assert project_room(tasks=0, in_flight=0, bucket=bucket, max_tasks=0) == 10
    bucket = refill(bucket, 101.0, 10.0, 1000)
    assert project_room(tasks=1000, in_flight=0, bucket=bucket, max_tasks=0) == 0
    bucket = refill(bucket, 200.5, 10.0, 1000)
    assert project_room(tasks=1000, in_flight=0, bucket=bucket, max_tasks=0) == 10


def test_full_project_holds() -> None:
    """At `max_tasks` nothing more starts; what is under way counts."""
    assert project_room(tasks=90, in_flight=5, bucket=None, max_tasks=100) == 5
    assert project_room(tasks=100, in_flight=0, bucket=None, max_tasks=100) == 0
    assert project_room(tasks=100, in_flight=0, bucket=None, max_tasks=0) is None
