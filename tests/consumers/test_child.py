"""Suspects alone: only the child's own death counts, and only against the object that it was at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.consumers.child import ChildRunner
from pipeline.ledger import LOST_WORKERS_LIMIT
from tests.consumers.house import House

CHILD = [sys.executable, str(Path(__file__).with_name("child_main.py"))]


def runner(house: House, command: list[str] = CHILD) -> ChildRunner:
    """A runner whose children work in the same installation."""
    payload = {"folder": str(house.folder)}
    return ChildRunner(command, payload, house.ledger, house.importer().renewer, "w", house.limits)


def suspect(house: House, *keys: str) -> None:
    """Make objects ready; what makes a suspect of them is that the claim is `alone`."""
    for key in keys:
        house.put(key, "x")
    house.note(*keys)


def run_alone(house: House, made: ChildRunner) -> None:
    """Claim all that is ready, back-offs or not, and run it."""
    house.due_now()
    for claim in house.claim(alone=True):
        made.run(claim.lease)


def test_healthy_suspects_are_imported(house: House) -> None:
    """What lost its worker by another's fault is imported by the child like anything else."""
    suspect(house, "a", "b", "c")
    run_alone(house, runner(house))
    assert house.states() == {"a": "done", "b": "done", "c": "done"}
    assert sorted(house.tasks()) == ['"a"', '"b"', '"c"']


def test_the_killer_is_found_and_its_neighbours_live(house: House) -> None:
    """The object that kills its process is failed after three deaths; none of its neighbours is blamed or lost."""
    suspect(house, "a", "b-kill", "c")
    made = runner(house)
    for _ in range(LOST_WORKERS_LIMIT):
        assert house.states()["b-kill"] == "ready"
        run_alone(house, made)
    run_alone(house, made)
    rows = house.rows()
    assert {key: row["state"] for key, row in rows.items()} == {"a": "done", "b-kill": "failed", "c": "done"}
    assert rows["b-kill"]["reason"]["code"] == "worker_lost"
    assert rows["c"]["attempts"] == 1
    assert sorted(house.tasks()) == ['"a"', '"c"']


@pytest.mark.parametrize(
    ("key", "limits"), [("b-hang", {"child_time": 0.5}), ("b-hog", {"child_memory": 128 * 1024**2})]
)
def test_time_and_memory_are_bounded(make_house: Any, key: str, limits: dict[str, Any]) -> None:
    """A suspect that hangs or takes all memory is ended, which counts against it, not against those after it."""
    house = make_house(**limits)
    suspect(house, "a", key, "c")
    run_alone(house, runner(house))
    assert {name: (row["state"], row["attempts"]) for name, row in house.rows().items()} == {
        "a": ("done", 1),
        key: ("ready", 1),
        "c": ("ready", 0),
    }


def test_a_child_that_does_not_start_counts_against_nobody(house: House) -> None:
    """A broken installation blames no object."""
    suspect(house, "a")
    run_alone(house, runner(house, ["false"]))
    assert house.states() == {"a": "ready"}
    assert house.rows()["a"]["attempts"] == 0


def test_cancel_ends_the_child_and_counts_nothing(house: House) -> None:
    """A shutdown ends the child at once; its objects are ready again, uncounted."""
    suspect(house, "a-hang")
    made = runner(house)
    made.cancel()
    run_alone(house, made)
    assert house.states() == {"a-hang": "ready"}
    assert house.rows()["a-hang"]["attempts"] == 0


def test_no_descriptors_are_left(house: House) -> None:
    """A thousand suspects later the parent has no more open files than before."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = runner(house, ["true"])
    made.cancel()
    for n in range(3):
        suspect(house, f"{n}")
        run_alone(house, made)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
