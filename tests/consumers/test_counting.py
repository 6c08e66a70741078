"""The arithmetic of tasks that are labelled in remotes of deliveries, and what a scheduler makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.consumers.counting import Counting
from pipeline.consumers.delivering import counted
from pipeline.ledger import ProjectLoad
from pipeline.ledger.deliveries import DeliveryLoad, Failure, next_steps
from pipeline.ledger.labelling import COUNT_SECONDS, Count, OpenThere, count_pause, open_there, with_counts
from pipeline.throttle import Wait
from tests.consumers.world import World
from tests.deliveries.loads import TIMES, loads

LOADS = loads(retired=st.booleans(), count_due=TIMES)
STEPS = st.lists(st.tuples(st.sampled_from(["import", "send", "label", "unlabel", "count"]), st.integers(1, 50)))


class Remote:
    """A project that is labelled in one remote, how the ledger has it, and how it really is."""

    def __init__(self) -> None:
        self.waiting = self.open = self.labelled = self.delivered = self.imported = 0
        self.counted: int | None = None
        self.by_then = 0

    def do(self, what: str, tasks: int) -> None:
        """Something happens to at most so many tasks."""
        if what == "import":
            self.waiting, self.imported = self.waiting + tasks, self.imported + tasks
        elif what == "send":
            sent = min(tasks, self.waiting)
            self.waiting, self.open, self.delivered = self.waiting - sent, self.open + sent, self.delivered + sent
        elif what == "label":
            done = min(tasks, self.open)
            self.open, self.labelled = self.open - done, self.labelled + done
        elif what == "count":
            self.counted, self.by_then = self.open, self.delivered

    def told(self, *, settled: bool = True) -> OpenThere:
        """What the ledger tells."""
        count = Count(self.counted, self.delivered - self.by_then, self.waiting, filled=True, settled=settled)
        return open_there([count], self.imported, self.imported)


class Telling:
    """Reports that tell of one project."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.settled = True

    def open_there(self, project: str) -> OpenThere:
        """As `Reports.open_there`."""
        return self.remote.told(settled=self.settled)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is asked each time."""
    monkeypatch.setattr("pipeline.consumers.counting.COUNT_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.consumers.counting.COUNT_SHARE", 1e9)


@given(STEPS)
def test_no_open_task_is_overlooked(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whichever order: never are more tasks open, or waiting to be, than is told; right after a
    count it is exactly as many, and before the first one it is not known."""
    remote, seen = Remote(), None
    for what, tasks in steps:
        remote.do(what, tasks)
        told = remote.told()
        seen = remote.told() if what == "count" else seen
        assert (told.open is None) == (seen is None)
        if told.open is not None and seen is not None and seen.open is not None:
            real = remote.open + remote.waiting
            assert real <= told.open <= seen.open + remote.imported - seen.imported
            assert what != "count" or told.open == real


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.integers(0, 9), st.integers(0, 9), st.booleans()))
)
def test_the_remote_with_most_is_what_counts(rows: list[tuple[int | None, int, int, bool]]) -> None:
    """Of several remotes the one with most open tasks counts; where one is unknown, it is not known."""
    counts = [Count(*row, settled=True) for row in rows]
    found = open_there(counts, 5)
    known = [count for count in counts if count.counted is not None and count.filled]
    assert (found.open is None) == (len(known) < len(counts) or not counts)
    assert found.open is None or found.open == max(sum(row[:3]) for row in rows)  # type: ignore[arg-type]  # all known


@given(LOADS, TIMES, st.floats(0, 100))
def test_a_count_is_begun_when_it_is_due(load: DeliveryLoad, now: float, every: float) -> None:
    """A remote is counted when that is due and nothing but changes is: not beside another grant, a pause, a back-off
    or a batch whose arrival is unknown, and only where it is asked for."""
    steps = list(next_steps([load], now, {load.name: every}))
    assert list(with_counts([load], steps, now, frozenset())) == steps
    found = {one.id: step for one, step in with_counts([load], steps, now, {load.name})}
    held = load.granted or load.paused or load.retired or load.due > now or load.batch == "unsure"
    before = {one.id: step for one, step in steps}
    if held or load.count_due > now or before.get(1) == "import":
        assert found == before
    else:
        assert found == {1: "count"}


def test_a_remote_is_left_alone_for_as_long_as_it_asks() -> None:
    """Counts keep their distance, and a longer one where the remote asks for that."""
    assert count_pause(7) == count_pause(None) == count_pause(Failure("too_many", "", 1.0)) == COUNT_SECONDS
    assert count_pause(Failure("too_many", "", 300.0)) == 300.0


def config(**throttle: Any) -> Config:
    """A project that is labelled in one place and written to another, one without a limit, one that stays here."""
    there = {"label_studio": {"url": "http://there", "project": 1, "token": "t"}}
    return Config.model_validate({
        "projects": {
            "p": {"deliveries": [there, {"jsonl": {"url": "./out"}}], "throttle": throttle},
            "free": {"deliveries": [{"label_studio": {**there["label_studio"], "project": 2}}]},
            "here": {"throttle": throttle},
        },
        "sources": [{"name": "a", "project": "p", "url": "./x"}],
    })  # fmt: skip


def test_only_what_is_asked_for_is_counted() -> None:
    """A remote is counted where labellers work in it and `open_tasks` is set for its project."""
    assert counted(config(open_tasks=5)) == {"p/label_studio"}
    assert counted(config()) == set()


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_labellers_have_enough_and_never_more(seconds: float) -> None:
    """Before the first count nothing is imported; then never more than `open_tasks` are open, however seldom they are
    counted; and as labellers finish some, as many come after."""
    remote, counting = Remote(), Counting(there=["p"])
    remote.open = 30
    world = World(config(open_tasks=100), counting=counting)
    world.put("a", 1000)

    def run(seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            counting.look(Telling(remote))  # type: ignore[arg-type]  # the part that is asked
            before = world.projects["p"].imported
            world.run(0.05)
            remote.do("import", world.projects["p"].imported - before)
            remote.do("send", 7)
            assert remote.open + remote.waiting <= 100

    run(2)
    assert (remote.imported, world.last.sources["a"]) == (0, Wait("uncounted"))
    remote.do("count", 0)
    run(3)
    assert world.last.sources["a"] == Wait("enough", at=100, of=100)
    for _ in range(10):
        before = remote.imported
        remote.do("label", 60)
        run(seconds)
        assert remote.imported == before
        remote.do("count", 0)
        run(seconds)
        assert remote.imported == before + 60


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("known", [None, 10])
def test_no_run_ends_before_the_labellers_were_counted(known: int | None) -> None:
    """A run that is to end waits for a count that may be made, not for one that nobody will make before long."""
    remote, counting = Remote(), Counting(there=["p"])
    remote.counted = known
    telling = Telling(remote)
    world = World(config(open_tasks=10), counting=counting)
    world.put("a", 5)
    for settled in (False, True):
        telling.settled = settled
        counting.look(telling)  # type: ignore[arg-type]  # the part that is asked
        world.run(1)
        assert set(world.last.held) == ({"a"} if settled else set())
    assert world.tasks("p") == 0


def test_what_was_imported_since_is_open() -> None:
    """Between two looks into the ledger every task that is imported is taken for an open one, those that replace
    others too; it is asked no more often than it may be."""
    remote, counting = Remote(), Counting(there=["p"])
    remote.do("count", 0)
    telling = Telling(remote)
    counting.look(telling)  # type: ignore[arg-type]  # the part that is asked
    remote.do("import", 4)
    counting.look(telling)  # type: ignore[arg-type]  # the part that is asked
    project = ProjectLoad(1, "p", 0, 0.0, 0.0, imported=4)
    assert counting.open(project) == 4
    assert not counting.open_exactly(project)
    assert counting.open(project._replace(name="here", tasks=9)) == 9
