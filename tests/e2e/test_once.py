"""`labelfeed run --once`, from a folder to tasks."""

from __future__ import annotations

import pytest

from tests.e2e.house import House

MIXED = {
    "one.json": ('{"text": "a"}', [{"text": "a"}]),
    "list.json": ('[{"data": {"text": "b"}}, {"text": "c"}]', [{"text": "b"}, {"text": "c"}]),
    "lines.jsonl": ('{"text": "d"}\n{"text": "e"}\n', [{"text": "d"}, {"text": "e"}]),
    "deep/er/table.csv": ("text,n\nf,1\ng,2\n", [{"text": "f", "n": 1}, {"text": "g", "n": 2}]),
    "table.tsv": ("text\tn\nh\t3\n", [{"text": "h", "n": 3}]),
    "note.txt": ("i\nj\n", [{"text": "i"}, {"text": "j"}]),
}


def put_mixed(house: House) -> dict[str, list[object]]:
    """Put them all into the inbox; gives what is to come of them."""
    for key, (content, _) in MIXED.items():
        house.put(key, content)
    return {key: list(data) for key, (_, data) in MIXED.items()}


def test_a_mixed_folder_becomes_tasks(house: House) -> None:
    """Files of every form become their tasks, each once, and the run that imported them all exits 0."""
    expected = put_mixed(house)
    ended = house.once("--json")
    (row,) = ended.json()
    assert (row["found"], row["imported"], row["tasks"], row["failed"]) == (6, 6, 10, 0)
    assert house.run("verify").code == 0
    house.agrees(expected)


def test_a_second_run_imports_nothing_twice(house: House) -> None:
    """Running again finds everything unchanged, says so, and leaves every task as it was."""
    expected = put_mixed(house)
    house.once()
    before = house.rows("SELECT id, data, revision FROM tasks ORDER BY id")
    ended = house.once()
    assert "nothing is new" in ended.err
    assert house.rows("SELECT id, data, revision FROM tasks ORDER BY id") == before
    house.agrees(expected)


def test_a_failed_object_makes_exit_code_1_until_it_is_mended(house: House) -> None:
    """One bad file fails the run, not its neighbours; the mended file is imported by the next run, which exits 0."""
    expected = house.put_tasks(3)
    house.put("bad.json", '{"text": ')
    ended = house.once(code=1)
    assert "inbox:bad.json" in ended.out
    assert house.run("status").code == 1
    house.agrees(expected)
    house.put("bad.json", '{"text": "good"}')
    house.once()
    house.agrees(expected | {"bad.json": [{"text": "good"}]})


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("sources: [", "labelfeed.yaml"),
        ("projects: {p: {}}\nsources: [{name: a, project: p, url: ./inbox, pol: 3s}]", "poll"),
        ("projects: {}\nsources: [{name: a, project: p, url: ./inbox}]", "project"),
        ("projects: {p: {}}\nsources: [{name: a, project: p, url: 'nowhere://x/y'}]", "nowhere"),
    ],
)
def test_a_wrong_configuration_makes_exit_code_2(house: House, written: str, told: str) -> None:
    """What a person has to change is told in a sentence, and nothing is written."""
    (house.folder / "labelfeed.yaml").write_text(written)
    ended = house.once(code=2)
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert not house.database.exists()


def test_sources_share_a_database_and_do_not_mix(house: House) -> None:
    """The same key in two sources is two objects, each with its own tasks in its own project."""
    other = house.folder / "other"
    house.put("a.json", '{"text": "first"}')
    house.put("a.json", '{"text": "second"}', within=other)
    sources = [
        {"name": "inbox", "project": "p", "url": "./inbox"},
        {"name": "other", "project": "q", "url": "./other"},
    ]
    house.configure(projects={"p": {}, "q": {}}, sources=sources)
    house.once()
    assert house.tasks("other") == {"a.json": [{"text": "second"}]}
    house.agrees({"a.json": [{"text": "first"}]})


def test_an_empty_inbox_is_no_failure(house: House) -> None:
    """A run that finds nothing exits 0."""
    house.once()
    house.agrees({})
