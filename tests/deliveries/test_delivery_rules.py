"""The arithmetic of deliveries, as properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.deliveries import (
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    DeliveryLoad,
    backoff,
    look_pause,
    next_step,
    next_steps,
)
from tests.deliveries.loads import TIMES, loads

LOADS = loads()


@given(load=LOADS, now=TIMES, every=st.floats(min_value=0, max_value=100))
def test_nothing_begins_too_early(load: DeliveryLoad, now: float, every: float) -> None:
    """No import begins before its interval is over or beside another grant, a pause, a back-off, or a batch whose
    arrival is unknown."""
    step = next_step(load, now, every)
    if load.granted or load.paused or load.due > now:
        assert step is None
    if step == "import":
        assert load.ended_at + every <= now
        assert load.batch != "unsure"
    if step == "resolve":
        assert (load.batch, load.look_due <= now) == ("unsure", True)


@given(load=LOADS, now=TIMES, every=st.floats(min_value=0, max_value=100))
def test_nothing_idles_that_may_begin(load: DeliveryLoad, now: float, every: float) -> None:
    """Whatever is to be done and may be begun is begun."""
    free = not (load.granted or load.paused or load.due > now)
    work = load.batch is not None or load.waiting
    if free and load.batch == "unsure":
        assert (next_step(load, now, every) is not None) == (load.look_due <= now)
    elif free:
        assert (next_step(load, now, every) is not None) == (load.changes or (work and load.ended_at + every <= now))


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 5)), min_size=1, max_size=50), st.floats(0, 10))
def test_the_interval_holds_over_any_run(steps: list[tuple[float, float]], every: float) -> None:
    """However long imports take and however seldom turns come: each begins at least the interval after the last one's
    end; and updates that never cease hold up no import that may begin."""
    now, ended, last = 1_000.0, 0.0, None
    waited = 0
    for pause, takes in steps:
        now += pause
        load = DeliveryLoad(1, "p/d", ended_at=ended, waiting=True, changes=True, last=last)
        step = next_step(load, now, every)
        assert step is not None
        if step == "import":
            assert now >= ended + every
            now += takes
            ended, waited = now, 0
        elif ended + every <= now:
            waited += 1
            assert waited <= 1
        last = step


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 5)), max_size=60), st.floats(0.1, 10))
def test_the_interval_holds_over_the_deliveries_of_a_project(turns: list[tuple[float, float]], every: float) -> None:
    """However many deliveries a project has and however long their imports take: one import at a time, the interval
    after the last one's end, each in its turn; another project's do not wait for them."""
    names = ["p/a", "p/b", "p/c", "q/a"]
    loads = {name: DeliveryLoad(number, name, waiting=True) for number, name in enumerate(names)}
    ends: dict[str, float] = {}
    now, last, order = 1_000.0, {"p": 0.0, "q": 0.0}, []
    for pause, takes in turns:
        now += pause
        for name in [name for name, end in ends.items() if end <= now]:
            loads[name] = loads[name]._replace(granted=False, ended_at=ends.pop(name))
            last[loads[name].project] = loads[name].ended_at
        for load, step in next_steps(list(loads.values()), now, dict.fromkeys(names, every)):
            assert step == "import"
            assert now >= last[load.project] + every
            assert load.project not in {loads[name].project for name in ends}
            loads[load.name] = load._replace(granted=True, last=step)
            ends[load.name] = now + takes
            order.append(load.name)
    mine = [name for name in order if name.startswith("p/")]
    assert all(len(set(mine[first : first + 3])) == len(mine[first : first + 3]) for first in range(len(mine)))


def test_without_an_interval_deliveries_do_not_wait_for_each_other() -> None:
    """`imports_every: 0` lets every delivery of a project have an import in flight."""
    loads = [DeliveryLoad(1, "p/a", waiting=True), DeliveryLoad(2, "p/b", waiting=True)]
    assert [load.id for load, _ in next_steps(loads, 1_000.0, {"p/a": 0.0, "p/b": 0.0})] == [1, 2]


@given(st.integers(1, 10_000), st.one_of(st.none(), st.floats(0, 10_000)))
def test_back_off_grows_and_ends(failing: int, asked: float | None) -> None:
    """A back-off is never shorter than what the remote asks for, nor by itself longer than five minutes."""
    seconds = backoff(failing, asked)
    assert seconds >= max(FIRST_BACKOFF, asked or 0)
    assert seconds <= max(LONGEST_BACKOFF, asked or 0)
    assert 1 <= look_pause(failing) <= 60
