"""Sources that come, go, move and change: what the ledger makes of another configuration."""

from __future__ import annotations

from typing import Any

from tests.e2e.house import House

EXPECTED = {"a.json": [{"text": "a"}], "b.txt": [{"text": "b"}]}


def put(house: House) -> None:
    """Two files, imported."""
    house.put("a.json", '{"text": "a"}')
    house.put("b.txt", "b\n")
    house.once()


def source(**options: Any) -> dict[str, Any]:
    """A source of the folder `inbox`."""
    return {"name": "inbox", "project": "p", "url": "./inbox", "settle": "50ms"} | options


def test_a_removed_source_is_retired_and_comes_back(house: House) -> None:
    """The objects of a source that is no longer configured are retired, their tasks stay; it takes them up again."""
    put(house)
    other = source(name="other", url="./other")
    (house.folder / "other").mkdir()
    house.configure(sources=[other])
    house.once()
    shown = {row["name"]: row for row in house.look("status", "--json").json()["sources"]}
    assert (shown["inbox"]["retired"], shown["other"]["retired"]) == (True, False)
    assert [row["state"] for row in house.look("objects", "--source", "inbox", "--json").json()] == ["retired"] * 2
    assert house.tasks() == EXPECTED
    house.configure(sources=[source(), other])
    assert "nothing is new" in house.once().err
    house.agrees(EXPECTED)


def test_a_renamed_source_starts_afresh(house: House) -> None:
    """A source's name is part of its identity: under a new one its files are new objects."""
    put(house)
    house.configure({"name": "renamed"})
    house.once()
    assert house.tasks("renamed") == house.tasks("inbox")
    house.agrees(EXPECTED, "renamed")


def test_another_store_under_a_known_name_is_refused_until_accepted(house: House) -> None:
    """A known name for another folder may be a slip: nothing is done until `sources accept`, which keeps the ledger."""
    put(house)
    moved = house.inbox.rename(house.folder / "moved")
    house.configure({"url": "./moved"})
    refused = house.once(code=2)
    assert "sources accept inbox" in refused.err
    assert house.tasks() == EXPECTED
    assert house.run("sources", "accept", "inbox").code == 0
    house.put("c.json", '{"text": "c"}', within=moved)
    house.once()
    house.agrees(EXPECTED | {"c.json": [{"text": "c"}]})


def test_overlapping_sources_of_a_project_are_refused(house: House) -> None:
    """Two sources that would import the same file into one project are an error, unless `overlap` says it is meant."""
    house.put("deep/a.json", '{"text": "a"}')
    inner = source(name="inner", url="./inbox/deep")
    house.configure(sources=[source(), inner])
    assert "overlap" in house.once(code=2).err
    house.configure(sources=[source(overlap=True), inner | {"overlap": True}])
    house.once()
    assert house.tasks("inner") == {"a.json": [{"text": "a"}]}
    house.agrees({"deep/a.json": [{"text": "a"}]})


def test_what_is_no_longer_covered_goes_out_of_scope(house: House) -> None:
    """A narrower `match` leaves tasks alone and forgets nothing: covered again, the objects are as they were."""
    put(house)
    house.configure({"match": "*.txt"})
    house.once()
    assert house.states() == {"a.json": "out_of_scope", "b.txt": "done"}
    assert house.tasks() == EXPECTED
    house.verify()
    house.configure({"match": "*"})
    house.once()
    assert house.states() == {"a.json": "done", "b.txt": "done"}
    house.agrees(EXPECTED)


def test_a_changed_configuration_imports_again_only_when_asked(house: House) -> None:
    """What was imported stays as it is under another configuration; `retry --outdated` imports it as it is now."""
    house.put("rows.csv", "text,n\na,1\n")
    house.once()
    house.configure({"types": "text"})
    house.once()
    assert house.tasks() == {"rows.csv": [{"text": "a", "n": 1}]}
    assert house.run("retry", "--outdated").code == 0
    house.once()
    house.agrees({"rows.csv": [{"text": "a", "n": "1"}]})


def test_a_failed_object_is_tried_again_with_a_changed_configuration(house: House) -> None:
    """What failed under the old configuration is imported under the new one once it is retried."""
    house.put("latin.txt", b"caf\xe9\n")
    house.once(code=1)
    house.configure({"encoding": "latin-1"})
    assert house.run("retry").code == 0
    house.once()
    house.agrees({"latin.txt": [{"text": "café"}]})
