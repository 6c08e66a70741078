"""Minutes of scheduling on a simulated clock: limits in every window, nobody idle, nobody starved, weights met."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pipeline import throttle
from pipeline.config import Config
from pipeline.consumers.counting import Counting, Counts
from pipeline.consumers.turns import Turn
from pipeline.ledger import Claim, Load, ProjectLoad, Reports
from pipeline.ledger.reports import Tally
from pipeline.throttle import AGE_SECONDS, Wait
from tests.consumers.world import BEGIN, Lease, World, heaviest

STEP = 0.05
"""Between two turns of a world."""

simulated = settings(deadline=None, max_examples=5, phases=(Phase.explicit, Phase.reuse, Phase.generate))


def config(*sources: dict[str, Any], limits: dict[str, Any] | None = None, **throttled: Any) -> Config:
    """One project `p` with this throttle, and sources of it."""
    return Config.model_validate({
        "projects": {"p": {"throttle": throttled}},
        "sources": [{"name": "a", "project": "p", "url": "./x", **source} for source in sources or ({},)],
        "limits": limits or {},
    })  # fmt: skip


@given(st.floats(0.5, 300.0), st.sampled_from([1, 3, 40]), st.floats(0.0005, 0.2), st.integers(1, 3))
@simulated
def test_rate_holds_in_every_window_and_nothing_idles(rate: float, tasks: int, seconds: float, schedulers: int) -> None:
    """With any number of schedulers, no window holds more tasks than its rate, a burst and one object beyond it; and
    while there is work and a token, and the workers can follow, the rate is used to the full."""
    world = World(config({}, tasks_per_second=rate), seconds=seconds, schedulers=schedulers)
    world.put("a", 3, tasks=tasks)
    world.run(20)
    world.put("a", 30_000, tasks=tasks)
    del world.claims[:]
    done, begun = world.tasks("p"), world.now
    world.run(60)
    beyond = max(0.0, tasks - throttle.burst(rate))
    assert heaviest(world.claims, "tasks", rate) <= throttle.burst(rate) + beyond + 1e-6
    possible = min(rate, world.threads * tasks / seconds * 0.5)
    assert world.tasks("p") - done >= 0.95 * possible * (world.now - begun) - 2 * tasks


@given(
    st.floats(0.5, 300.0),
    st.lists(st.tuples(st.sampled_from([10, 1000, 1_000_000]), st.sampled_from([1, 30, 5000])), min_size=1, max_size=6),
    st.floats(0.0005, 0.5),
    st.integers(1, 3),
)
@example(10.0, [(1_000_000, 1)], 0.3, 1)
@simulated
def test_wrong_guesses_break_no_rate_and_idle_nothing(
    rate: float, kinds: list[tuple[int, int]], seconds: float, schedulers: int
) -> None:
    """However wrong guesses are, by orders of magnitude both ways, no window holds more than its rate, a burst, one
    object and what was guessed wrong of what is under way; a full bucket with nothing under way is used at once, and
    `status` tells no later time than when it will be full."""
    world = World(config({}, tasks_per_second=rate), seconds=seconds, schedulers=schedulers)
    for number in range(600):
        size, tasks = kinds[number * 7 // 3 % len(kinds)]
        world.put("a", 1, size=size, tasks=tasks)
    burst, turns = throttle.burst(rate), 2 * STEP * schedulers
    level, idle, wrong, flying = burst, 0.0, 0.0, dict[int, Lease]()
    while world.now < BEGIN + 60:
        world.run(STEP)
        ended, begun = flying.keys() - world.leases.keys(), world.leases.keys() - flying.keys()
        level = min(burst, level + rate * STEP) - sum(max(0.0, beyond_guess(flying[lease])) for lease in ended)
        flying = dict(world.leases)
        level -= sum(tasks_of(flying[lease]) - max(0.0, beyond_guess(flying[lease])) for lease in begun)
        wrong = max(wrong, sum(abs(each.tasks - lease.each[0]) for lease in flying.values() for each in lease.things))
        if world.places["a"].ready and not flying:
            idle = idle + STEP if level >= burst else 0.0
            assert idle <= turns
            wait = world.last.sources.get("a", Wait("share"))
            assert (wait.until or world.now) - world.now <= (burst - level) / rate + turns
    beyond = max(0.0, max(tasks for _, tasks in kinds) - burst)
    assert heaviest(world.claims, "tasks", rate) <= burst + beyond + wrong + 1e-6


def tasks_of(lease: Lease) -> int:
    """What a claim's objects will give."""
    return sum(thing.tasks for thing in lease.things)


def beyond_guess(lease: Lease) -> float:
    """How much more that is than was guessed; what it is less is negative."""
    return tasks_of(lease) - len(lease.things) * lease.each[0]


def test_a_wrong_guess_holds_nothing_up() -> None:
    """Where large documents turn out to hold one task each, their source is read as fast as its rate allows."""
    world = World(config({}, tasks_per_second=10), seconds=0.01)
    world.put("a", 400, size=1_000_000)
    world.run(30)
    assert world.tasks("p") >= 280


@given(st.integers(1, 5000), st.sampled_from([1, 7, 500]), st.integers(1, 3))
@simulated
def test_a_full_project_holds_and_goes_on(most: int, tasks: int, schedulers: int) -> None:
    """A project gets its `max_tasks` and no object more than the one that fills it; raised, it goes on."""
    world = World(config({}, max_tasks=most), schedulers=schedulers)
    world.put("a", 2, tasks=tasks)
    world.run(2)
    world.put("a", 6000, tasks=tasks)
    world.run(30)
    assert most <= world.tasks("p") < max(most, 2 * tasks) + tasks
    assert world.last.sources["a"].why == world.last.projects["p"].why == "full"
    assert set(world.last.held) == {"a"}
    raised = World(config({}, max_tasks=most + 600))
    raised.places, raised.projects, raised.now = world.places, world.projects, world.now
    raised.run(30)
    assert raised.tasks("p") >= most + 600


@given(st.integers(1, 400), st.integers(1, 200), st.integers(1, 3))
@simulated
def test_a_full_project_is_emptied(leaving: int, flying: int, schedulers: int) -> None:
    """What takes tasks out of a full project is not kept by what waits before it, but by what may be in flight; only
    what finds room then comes in."""
    world = World(config({"max_in_flight": flying}, max_tasks=500), schedulers=schedulers)
    world.put("a", 500)
    world.run(40)
    world.put("a", 3000)
    world.put("a", leaving, leaves=True)
    begun, room = world.now, world.tasks("p")
    while world.now < begun + 60:
        world.run(STEP)
        room = min(room, world.tasks("p"))
        assert world.tasks("p") <= 500
        assert world.places["a"].claimed <= flying
    assert room < 500
    assert world.served["a"] == 500 + 2 * leaving
    assert not [thing for thing in world.places["a"].ready if thing.leaves]
    assert set(world.last.held) == {"a"}


@pytest.mark.parametrize("limit", ["open_tasks", "undelivered_tasks"])
def test_what_has_enough_is_emptied(limit: str) -> None:
    """What takes tasks away goes on while labellers have enough, and deliveries are behind."""
    counting = Counting()
    counting.unlabelled = counting.undelivered = Counts(["p"], lambda _, __: Tally(1000))
    counting.unlabelled.look(Reports)  # type: ignore[arg-type]  # what is asked is the function above
    project = {"deliveries": [{"jsonl": {"url": "./out"}}], "throttle": {limit: 1000}}
    sources = [{"name": "a", "project": "p", "url": "./x"}]
    world = World(Config.model_validate({"projects": {"p": project}, "sources": sources}), counting=counting)
    world.put("a", 200)
    world.put("a", 30, leaves=True)
    world.run(5)
    assert world.tasks("p") == -30
    assert len(world.places["a"].ready) == 200


def test_what_is_not_known_is_guessed_with_care() -> None:
    """Before anything was read of a source, its bytes are taken for many tasks: large files do not flood a project."""
    world = World(config({}, max_tasks=10_000), seconds=1.0)
    world.put("a", 500, size=1_000_000, tasks=5000)
    world.run(30)
    assert world.tasks("p") == 10_000


@given(st.lists(st.floats(0.3, 8.0), min_size=2, max_size=5), st.integers(1, 3), st.floats(0.004, 0.02))
@simulated
def test_weights_are_met_over_a_minute(weights: list[float], schedulers: int, seconds: float) -> None:
    """Over a minute of contention each source gets its weight's share of what was begun, within 5 %."""
    sources = [{"name": f"s{number}", "weight": weight} for number, weight in enumerate(weights)]
    world = World(config(*sources), seconds=seconds, schedulers=schedulers)
    for source in sources:
        world.put(str(source["name"]), int(64 * world.threads / seconds))
    world.run(60)
    total = sum(world.served.values())
    assert all(place.ready for place in world.places.values())
    for number, weight in enumerate(weights):
        fair = total * weight / sum(weights)
        assert abs(world.served[f"s{number}"] - fair) <= 0.05 * fair + throttle.QUANTUM


@given(
    st.lists(st.floats(0.3, 8.0), min_size=1, max_size=3),
    st.lists(st.floats(0.3, 8.0), min_size=1, max_size=3),
    st.integers(1, 3),
    st.floats(0.006, 0.02),
)
@example([0.3], [8.0, 8.0, 8.0], 1, 0.02)
@simulated
def test_weights_are_met_over_two_projects(
    few: list[float], many: list[float], schedulers: int, seconds: float
) -> None:
    """Over a minute of contention a project gets what the weights of its sources are of all weights, and each of these
    its own part, within 5 %; none waits for longer than about what is given at a time would last it."""
    weights = {"p": few, "q": many}
    sources = {f"{name}{n}": (name, weight) for name, own in weights.items() for n, weight in enumerate(own)}
    told = [{"name": name, "project": p, "url": "./x", "weight": weight} for name, (p, weight) in sources.items()]
    made = Config.model_validate({"projects": {"p": {}, "q": {}}, "sources": told})
    world = World(made, seconds=seconds, schedulers=schedulers)
    for name in sources:
        world.put(name, int(96 * world.threads / seconds))
    world.run(30)  # the first claims are made before the pace of the workers is known, and last for long
    world.served.clear()
    world.claims.clear()
    begun = world.now
    world.run(60)
    assert all(place.ready for place in world.places.values())
    for_one = sum(world.served.values()) / sum(few + many)
    for name, (_, weight) in sources.items():
        assert abs(world.served[name] - for_one * weight) <= 0.05 * for_one * weight + throttle.QUANTUM
    for project, own in weights.items():
        fair = for_one * sum(own)
        served = sum(world.served[name] for name, (of, _) in sources.items() if of == project)
        assert abs(served - fair) <= 0.05 * fair + throttle.QUANTUM * len(own)
        times = [at for at, name, _ in world.claims if sources[name][0] == project]
        gaps = [later - sooner for sooner, later in pairwise([begun, *times, world.now])]
        assert max(gaps) <= 2 * throttle.QUANTUM / (fair / 60) + 2


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.integers(1, 3))
@simulated
def test_nobody_starves(high: float, low: float, schedulers: int) -> None:
    """A source of low priority is served, however much of high priority waits and however the weights are."""
    world = World(
        config({"name": "h", "priority": "high", "weight": high}, {"name": "l", "priority": "low", "weight": low}),
        schedulers=schedulers,
        seconds=0.006,
    )
    world.put("h", 60_000)
    world.put("l", 2000)
    world.run(70)
    assert world.places["h"].ready
    times = [at for at, source, _ in world.claims if source == "l"]
    gaps = [later - sooner for sooner, later in pairwise([BEGIN, *times, world.now])]
    assert max(gaps) <= 2 * AGE_SECONDS + 2
    assert world.served["h"] > world.served["l"]


def test_higher_priority_goes_first() -> None:
    """While something of higher priority waits, a lower one gets no more than its age gives it."""
    world = World(config({"name": "h", "priority": "high"}, {"name": "n"}, {"name": "l", "priority": "low"}))
    for name in "hnl":
        world.put(name, 5000)
    world.run(0.2)
    assert world.served["h"] > 0
    assert world.served["n"] == world.served["l"] == 0
    assert world.last.sources["l"] == Wait("share", behind="h")


@given(st.integers(10_000, 10_000_000), st.integers(1, 2_000_000), st.floats(0.001, 0.05))
@simulated
def test_bytes_per_second_hold(rate: int, size: int, seconds: float) -> None:
    """A source is read no faster than it says, by the sizes that are known, and as fast as that."""
    world = World(config({"bytes_per_second": rate}), seconds=seconds, schedulers=2)
    world.put("a", max(200, 70 * rate // size), size=size)
    world.run(60)
    assert heaviest(world.claims, "size", rate) <= rate + max(0, size - rate) + 1
    read = sum(thing.size for _, _, things in world.claims for thing in things)
    assert read >= min(0.95 * rate * 60 - 2 * size, 0.4 * size * 60 * world.threads / seconds)


@given(st.integers(1, 200), st.integers(1, 3))
@simulated
def test_max_in_flight_holds(most: int, schedulers: int) -> None:
    """No more of a source than it says is under way at any moment; what that leaves goes to others."""
    world = World(config({"name": "a", "max_in_flight": most}, {"name": "b"}), seconds=0.005, schedulers=schedulers)
    world.put("a", 3000)
    world.put("b", 30_000)
    for _ in range(200):
        world.run(0.05)
        assert world.places["a"].claimed <= most
    assert world.served["a"] > most
    assert world.served["b"] > 500


@given(st.integers(1000, 1_000_000), st.lists(st.integers(1, 3_000_000), min_size=3, max_size=30))
@simulated
def test_in_flight_bytes_hold(limit: int, sizes: list[int]) -> None:
    """The bytes under way are within the limit, but for one object of each source that had nothing under way; and
    everything gets its turn."""
    world = World(config({"name": "a"}, {"name": "b"}, limits={"in_flight_bytes": limit}), seconds=0.01)
    for size in sizes:
        world.put("a", 1, size=size)
    world.put("b", 500, size=1000)
    largest = max(*sizes, 1000)
    for _ in range(600):
        world.run(0.05)
        flying = sum(place.expected[1] for place in world.places.values())
        assert flying <= limit + largest + 1000 + 1
    assert not world.places["a"].ready
    assert not world.places["b"].ready


@given(st.integers(2, 6), st.integers(1, 2))
@settings(parent=simulated, max_examples=2)
def test_pressure_finds_what_the_database_takes(bears: int, schedulers: int) -> None:
    """Where commits become slow beyond so many at once, the claims in flight settle about there, and the work goes on
    faster than with all threads; where they stay quick, or with `off`, nothing is bounded."""

    def commit(busy: int) -> float:
        return 0.05 if busy <= bears else 0.05 + 0.5 * (busy - bears)

    worlds = {
        pressure: World(
            config({}, limits={"database_pressure": pressure, "batch_objects": 10}), threads=16, commit=commit,
            schedulers=schedulers,
        )
        for pressure in ("auto", "off")
    }  # fmt: skip
    for world in worlds.values():
        world.put("a", 60_000)
        world.run(40)
    (bounded, free), begun = worlds.values(), worlds["auto"].now
    flying = []
    while bounded.now < begun + 30:
        bounded.run(0.25)
        flying.append(len(bounded.leases))
    assert max(flying) <= 2 * bears + 2
    assert sum(flying) / len(flying) >= 0.4 * bears
    assert len(free.leases) > 16
    assert free.shared.pressure[0] == 0.0
    quick = World(config({}), threads=16, commit=lambda _: 0.05)
    quick.put("a", 100_000)
    quick.run(30)
    assert throttle.claims(throttle.Pressure(*quick.shared.pressure)) == 0


def test_deliveries_that_are_behind_hold_up_imports() -> None:
    """A project whose deliveries have too much before them begins nothing more, and says so; without any, nothing is
    counted."""
    counting = Counting()
    counting.undelivered = Counts(["p"], lambda _, __: Tally(950))
    counting.undelivered.look(Reports)  # type: ignore[arg-type]  # what is asked is the function above
    target = {"jsonl": {"url": "./out"}}
    settings = {"projects": {"p": {"deliveries": [target], "throttle": {"undelivered_tasks": 1000}}}}
    made = Config.model_validate(settings | {"sources": [{"name": "a", "project": "p", "url": "./x"}]})
    world = World(made, counting=counting)
    world.put("a", 200)
    world.run(5)
    assert world.tasks("p") == 50
    assert world.last.sources["a"] == Wait("undelivered", at=1000, of=1000)
    assert world.last.held == {}


def test_what_is_archived_makes_no_room_for_what_was_not_counted() -> None:
    """Between two counts of open or undelivered tasks archived ones leave room for no other: they may have been
    annotated, or delivered. What is imported or comes back counts, and nothing makes it fewer than were counted."""
    counts = Counts(["p"], lambda _, __: Tally(10, 60, 60))
    counts.look(Reports)  # type: ignore[arg-type]  # what is asked is the function above
    project = ProjectLoad(1, "p", 60, 0.0, 0.0, 60)
    assert (counts.of(project), counts.exact(project)) == (10, True)
    assert (counts.of(project._replace(tasks=20)), counts.exact(project._replace(tasks=20))) == (10, False)
    more = project._replace(tasks=25, imported=65)
    assert (counts.of(more), counts.exact(more)) == (15, False)
    back = project._replace(tasks=75)
    assert (counts.of(back), counts.exact(back)) == (25, False)
    assert counts.of(project._replace(imported=40)) == 10


def test_a_rate_says_when_it_goes_on() -> None:
    """A source whose project's rate is used up waits until a time that is told, and is not looked at before."""
    world = World(config({}, tasks_per_second=0.1))
    world.put("a", 10)
    world.run(2)
    wait = world.last.sources["a"]
    assert wait.why == world.last.projects["p"].why == "throttled"
    assert wait.until is not None
    assert 7 < wait.until - world.now <= 10
    assert throttle.told(wait, wait.until - 12).startswith("throttled: next import in 12 s")
    assert not world.last.more


@pytest.mark.parametrize("limit", ["tasks", "bytes"])
@pytest.mark.parametrize("schedulers", [1, 2])
def test_a_clock_that_is_set_back_stops_no_rate(limit: str, schedulers: int) -> None:
    """An hour that comes again is no hour without imports: a rate is used to the full from then on, and not passed."""
    limited = config({}, tasks_per_second=10) if limit == "tasks" else config({"bytes_per_second": 1000})
    world = World(limited, schedulers=schedulers)
    world.put("a", 2000)
    world.run(20)
    world.behind = 900.0
    done = world.tasks("p")
    world.run(60)
    assert 570 <= world.tasks("p") - done <= 10 * 60 + 20


def test_a_paused_project_begins_nothing() -> None:
    """Nothing of a paused project is claimed; it and its sources say so, and hold up no run."""
    world = World(config({}, max_tasks=1))
    world.projects["p"] = world.projects["p"]._replace(paused=1.0)
    world.projects["p"] = world.projects["p"]._replace(tasks=1)
    world.put("a", 10, leaves=True)
    world.run(1)
    assert not world.claims
    assert world.last.sources == {"a": Wait("paused")}
    assert world.last.projects == {"p": Wait("paused")}
    assert world.last.held == {"a": "paused"}


def test_without_workers_it_is_told() -> None:
    """While no worker lives, that is what everything waits for."""
    world = World(config({}), threads=0)
    world.put("a", 10)
    world.run(1)
    assert world.last.sources == {"a": Wait("workers")}


@pytest.mark.parametrize(
    ("running", "waiting", "claims", "supplied"),
    [(0, 0, 4, True), (0, 0, 3, False), (2, 2, 0, True), (2, 0, 2, True), (2, 1, 0, False), (1, 2, 0, False)],
)
def test_turns_are_rare_only_while_nobody_can_stand_idle(
    running: int, waiting: int, claims: int, supplied: bool
) -> None:
    """The next turn may wait longer only while each thread has a further claim behind the one that it works on, which
    is no crumb."""
    load = Load(
        now=0.0, sources=(), projects=(), unstarted=30 * waiting, running=running, threads=2, finished=0,
        waiting=waiting,
    )  # fmt: skip
    turn = Turn(claims=[Claim(number, "bucket", tuple(range(30))) for number in range(claims)], load=load, enough=25)
    assert turn.supplied is supplied
    assert not Turn(claims=turn.claims, load=load, enough=31).supplied
    assert not Turn(claims=turn.claims, load=replace(load, threads=0)).supplied
    assert not Turn().supplied


def test_claims_of_suspects_supply_no_thread() -> None:
    """They run in a process of their own: a thread has none of them to go on with."""
    load = Load(now=0.0, sources=(), projects=(), unstarted=30, running=2, threads=2, finished=0, waiting=1)
    claims = [Claim(number, "bucket", tuple(range(30)), alone=True) for number in range(2)]
    assert not Turn(claims=claims, load=load).supplied
    assert Turn(claims=[*claims, Claim(9, "bucket", tuple(range(30)))], load=load).supplied
