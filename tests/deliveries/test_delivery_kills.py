"""Processes that are killed at the worst moments, against a real Label Studio."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.deliveries.studio import Studio, choice
from tests.e2e.house import House

POINTS = (
    "scheduler.granted", "deliverer.taken", "deliverer.filled", "deliverer.sending", "deliverer.sent",
    "deliverer.remembered",
)  # fmt: skip


def configure(house: House, studio: Studio, **throttle: object) -> None:
    """A source of files whose tasks go on to a project."""
    throttle = {"imports_every": "0s", "tasks_per_import": 25, **throttle}
    delivery = studio.delivery(timeout="5s", settle="1s")
    house.configure({"on_change": "replace"}, projects={"p": {"throttle": throttle, "deliveries": [delivery]}})


def put(house: House, files: int, rows: int = 5) -> list[str]:
    """Files of several tasks each; gives their texts."""
    texts = []
    for number in range(files):
        tasks = [{"text": f"{number:04} {row}"} for row in range(rows)]
        house.put(f"f{number:04}.json", json.dumps(tasks))
        texts += [task["text"] for task in tasks]
    return sorted(texts)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_process_doubles_and_loses_nothing(house: House, studio: Studio, point: str) -> None:
    """Killed before, during and after an import, the next run brings each task exactly once."""
    configure(house, studio)
    texts = put(house, 12)
    killed = house.run("run", "--once", fault=f"{point}:2")
    assert killed.code == -signal.SIGKILL
    house.once()
    assert studio.texts() == texts
    assert house.rows("SELECT count(*), count(DISTINCT remote_id) FROM delivered WHERE state = 'done'") == [(60, 60)]


def test_a_killed_change_is_made_again(house: House, studio: Studio) -> None:
    """Killed after an update was made there and before that was noted, it is made again, and no harm is done."""
    configure(house, studio)
    house.put("a.json", json.dumps([{"text": "one"}, {"text": "two"}]))
    house.once()
    house.put("a.json", json.dumps([{"text": "one"}, {"text": "TWO"}]))
    assert house.run("run", "--once", fault="deliverer.changed").code == -signal.SIGKILL
    house.once()
    assert studio.texts() == ["TWO", "one"]
    assert house.rows("SELECT updated, delivered FROM deliveries") == [(1, 2)]


def test_what_it_exports_can_be_imported_again(house: House, studio: Studio) -> None:
    """Its own export, with its predictions written out, imported again through us into another project, has the same
    annotations and predictions."""
    configure(house, studio)

    def predicted(n: int) -> list[dict[str, Any]]:
        return [choice("ba"[k % 2], score=(n + k) / 32, model_version=f"m{k}") for k in range(n % 3)]

    tasks = [
        {
            "data": {"text": f"t{n}"},
            "annotations": [
                choice("ab"[n % 2], lead_time=n / 2, was_cancelled=n % 3 == 0, ground_truth=n % 5 == 0),
                choice("ba"[n % 2], lead_time=n + 0.25, ground_truth=n % 5 == 1),
            ][: 1 + n % 4],
            "predictions": predicted(n),
            "meta": {"n": n},
        }
        for n in range(20)
    ]
    house.put("first.json", json.dumps(tasks))
    house.once()
    studio.annotate(studio.export()[0]["id"], "b")
    # As a snapshot has them; its plain export names their numbers alone.
    exported = [task | {"predictions": _predictions(studio, task)} for task in studio.export()]
    other = Studio(studio.url, studio.token, _another(studio), studio.client)
    again = House(house.folder / "again")
    again.inbox.mkdir(parents=True)
    configure(again, other)
    again.put("export.json", json.dumps(exported))
    again.once()

    assert [_told(_predictions(other, task)) for task in other.export()] == [_told(predicted(n)) for n in range(20)]
    assert _labels(other) == _labels(studio)
    for name, made in ("was_cancelled", 7), ("ground_truth", 7):
        assert sum(one[name] for task in other.export() for one in task["annotations"]) == made
    assert [task["meta"]["n"] for task in other.export()] == list(range(20))


def _another(studio: Studio) -> int:
    config = studio.client.get(f"/api/projects/{studio.project}/").json()["label_config"]
    made = studio.client.post("/api/projects/", json={"title": "again", "label_config": config})
    return int(made.json()["id"])


def _labels(studio: Studio) -> list[tuple[str, list[tuple[object, ...]]]]:
    names = ("lead_time", "was_cancelled", "ground_truth")
    return [
        (task["data"]["text"], sorted((str(one["result"]), *map(one.get, names)) for one in task["annotations"]))
        for task in studio.export()
    ]


def _predictions(studio: Studio, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    shown = studio.client.get(f"/api/tasks/{task['id']}/").raise_for_status().json()
    return list(shown["predictions"])


def _told(predictions: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """What makes predictions, in one order."""
    return sorted((one["model_version"], one["score"], str(one["result"])) for one in predictions)


def test_bad_tasks_are_set_aside_and_the_rest_goes(house: House, studio: Studio) -> None:
    """A task that Label Studio refuses is set aside with its reason, and told; all others arrive."""
    configure(house, studio)
    tasks = [{"data": {"text": f"t{n}"}} for n in range(30)]
    tasks[7]["annotations"] = [choice("a", completed_by=4711)]  # type: ignore[assignment]
    house.put("a.json", json.dumps(tasks))
    house.once()
    assert len(studio.texts()) == 29
    found = house.look("deliveries", "--json").json()
    (row,) = found["deliveries"]
    assert (row["delivered"], row["refused"]) == (29, 1)
    (refused,) = found["refused"]
    assert (refused["key"], refused["row"]) == ("a.json", 8)
    assert "4711" in refused["reason"]
    explained = house.explain("a.json")["deliveries"]
    assert {one["state"]: one["tasks"] for one in explained} == {"done": 29, "refused": 1}


def test_the_projects_configuration_decides(house: House, studio: Studio) -> None:
    """Without a labelling configuration of its own a project is held against Label Studio's."""
    configure(house, studio)
    house.put("a.csv", "text,other\nx,1\n")
    house.put("b.csv", "other\n1\n")
    house.once(code=1)
    assert studio.texts() == ["x"]
    assert house.states()["b.csv"].startswith("failed")
