"""Deliveries that are behind hold up imports: of a run that goes on, and of one that is to end."""

from __future__ import annotations

import json

from tests.e2e.house import House, until

LIMIT = 3
FILES = 8


def configure(house: House, **throttle: object) -> None:
    """A project that goes on to a folder, with no more than LIMIT tasks before it."""
    throttle = {"undelivered_tasks": LIMIT, "imports_every": 0, **throttle}
    house.configure(projects={"p": {"deliveries": [{"jsonl": {"url": "./out"}}], "throttle": throttle}})


def delivered(house: House) -> list[str]:
    """The texts of what is in the folder by its manifests."""
    batches = sorted(path.stem for path in (house.folder / "out").glob("manifests/*.json"))
    lines = [line for batch in batches for line in (house.folder / "out" / f"{batch}.jsonl").read_text().splitlines()]
    return sorted(json.loads(line)["data"]["text"] for line in lines)


def texts(house: House) -> list[str]:
    """The texts of all tasks."""
    return sorted(data["text"] for tasks in house.tasks().values() for data in tasks)


def waits(house: House) -> str:
    """What the source waits for, in words."""
    told = house.look("status", "--json").json()["sources"][0]["waits"]
    return "" if told is None else str(told["text"])


def before_it(house: House) -> int:
    """Tasks that the delivery has before it."""
    (row,) = house.look("deliveries", "--json").json()["deliveries"]
    return int(row["waiting_tasks"])


def all_delivered(house: House, seen: set[int]) -> bool:
    """Whether all is delivered; `seen` gets how much the delivery has before it."""
    seen.add(before_it(house))
    return len(delivered(house)) == 2 * FILES


def test_a_delivery_that_cannot_write_holds_up_no_run(house: House) -> None:
    """A run ends when its source waits for a delivery that fails, and says so; mended, the next one does the rest."""
    configure(house)
    (house.folder / "out").write_text("in the way")
    house.put_tasks(FILES)
    ended = house.once()
    assert f"{FILES - LIMIT} objects of inbox wait; deliveries are behind: {LIMIT} of {LIMIT}" in ended.err
    assert len(texts(house)) == LIMIT
    (house.folder / "out").unlink()
    house.look("deliveries", "resume", "p/jsonl")
    house.once()
    assert delivered(house) == texts(house)
    assert len(texts(house)) == FILES


def test_a_paused_delivery_holds_up_no_run(house: House) -> None:
    """A run ends when its source waits for a delivery that is paused, and says so."""
    configure(house)
    house.look("deliveries", "pause", "p/jsonl")
    house.put_tasks(FILES)
    (row,) = house.once("--json").json()
    assert (row["imported"], row["waiting"]) == (LIMIT, FILES - LIMIT)
    assert row["held"] == f"deliveries are behind: {LIMIT} of {LIMIT}"


def test_claims_stop_at_what_is_undelivered_and_go_on(house: House) -> None:
    """While a delivery is paused no more is imported than it may have before it, and `status` says so; when it goes on,
    however slowly, everything is imported and delivered once, and it never has more before it."""
    configure(house, tasks_per_import=2, imports_every="200ms")
    house.look("deliveries", "pause", "p/jsonl")
    with house.continuously():
        house.put_tasks(FILES)
        until(lambda: waits(house) == f"deliveries are behind: {LIMIT} of {LIMIT}", what="the wait")
        house.put_tasks(FILES, prefix="later")
        until(lambda: len(house.states()) == 2 * FILES, what="the later files")
        assert len(texts(house)) == before_it(house) == LIMIT
        house.look("deliveries", "resume", "p/jsonl")
        seen = {LIMIT}
        until(lambda: all_delivered(house, seen), what="all of them")
    assert max(seen) <= LIMIT
    assert delivered(house) == texts(house)
