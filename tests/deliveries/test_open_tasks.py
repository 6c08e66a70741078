"""Tasks in front of labellers who work in a Label Studio: as many as `open_tasks` says, and no more."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.projects import LabelStudio
from pipeline.errors import UnavailableError
from pipeline.sinks.label_studio import LabelStudioDelivery
from tests.deliveries.little import instead, little
from tests.deliveries.studio import Studio
from tests.deliveries.wire import Answer
from tests.e2e.house import House, until

MOST = 6


@pytest.mark.parametrize("told", [{}, {"task_number": 3}, {"task_number": 3, "finished_task_number": None}])
def test_a_project_that_does_not_tell_is_not_guessed_of(told: dict[str, Any]) -> None:
    """Where an answer lacks a number that is asked for, it is not known how many tasks are open."""
    with little() as studio, closing(studio.delivery()) as delivery:
        studio.spoils.append(("GET", "/api/projects/1/", instead(Answer.of(200, {"id": 1, **told}))))
        with pytest.raises(UnavailableError, match="does not tell"):
            delivery.open_tasks()


def counted(studio: Studio) -> int:
    """How many open tasks a delivery finds."""
    options = LabelStudio.model_validate(studio.delivery()["label_studio"])
    with closing(LabelStudioDelivery(options, Path())) as delivery:
        return delivery.open_tasks() or 0


def unlabelled(studio: Studio) -> list[int]:
    """The tasks that nobody has annotated or skipped, as Label Studio lists them."""
    found = studio.client.get("/api/tasks", params={"project": studio.project, "page_size": 1000, "fields": "all"})
    return [task["id"] for task in found.raise_for_status().json()["tasks"] if not task["is_labeled"]]


def test_labellers_of_a_label_studio_always_have_enough_and_never_more(house: House, studio: Studio) -> None:
    """As labellers finish tasks in Label Studio, as many others are imported and delivered, within seconds; never are
    more than `open_tasks` in front of them, those that others put there included."""
    path = f"/api/projects/{studio.project}/import"
    studio.client.post(path, json=[{"data": {"text": "of others"}}]).raise_for_status()
    throttle = {"open_tasks": MOST, "imports_every": "0s"}
    house.configure(projects={"p": {"throttle": throttle, "deliveries": [studio.delivery()]}})
    house.put_tasks(MOST * 3)

    def filled() -> bool:
        left = unlabelled(studio)
        assert len(left) <= MOST
        return len(left) == MOST

    total = 0
    with house.continuously():
        for done in (0, 2, MOST, 1):
            for task in unlabelled(studio)[:done]:
                studio.annotate(task, "a")
            total += done
            until(filled, what=f"{done} others")
            assert studio.count() == MOST + total
        (project,) = house.look("status", "--json").json()["projects"]
        assert project["waits"]["text"] == f"enough for the labellers: {MOST} of {MOST}"


def test_a_task_is_open_as_long_as_somebody_is_to_label_it(studio: Studio) -> None:
    """A task of which another one's annotation is wanted is open, and so is a skipped one, unless its project ignores
    what was skipped."""
    here = f"/api/projects/{studio.project}/"
    tasks = [{"data": {"text": text}} for text in ("left", "skipped", "annotated")]
    studio.client.post(f"{here}import", json=tasks).raise_for_status()
    _, skipped, annotated = sorted(unlabelled(studio))
    studio.annotate(annotated, "a")
    skip = {"result": [], "was_cancelled": True}
    studio.client.post(f"/api/tasks/{skipped}/annotations/", json=skip).raise_for_status()
    for settings, left in (
        ({"maximum_annotations": 2}, 3),
        ({"maximum_annotations": 1}, 2),
        ({"skip_queue": "IGNORE_SKIPPED"}, 1),
    ):
        studio.client.patch(here, json=settings).raise_for_status()
        assert counted(studio) == len(unlabelled(studio)) == left


def test_a_run_that_ends_asks_the_labellers_first(house: House, studio: Studio) -> None:
    """A run with `--once` goes by what is open there now, not by what was open when the last one ended."""
    throttle = {"open_tasks": 2, "imports_every": "0s"}
    house.configure(projects={"p": {"throttle": throttle, "deliveries": [studio.delivery()]}})
    house.put_tasks(5)
    assert "enough for the labellers: 2 of 2" in house.run("run", "--once").err
    assert studio.count() == 2
    for task in unlabelled(studio):
        studio.annotate(task, "a")
    with closing(sqlite3.connect(house.database, isolation_level=None)) as connection:
        connection.execute("UPDATE deliveries SET count_due = 1")  # some time has passed
    assert "enough for the labellers: 2 of 2" in house.run("run", "--once").err
    assert studio.count() == 4
