"""Plain objects, read and parsed many at a time: what comes of them is what comes of each by itself."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.consumers.plain import CHUNK_OBJECTS, chunks
from pipeline.ledger import Work
from pipeline.parsers import Body, Rules, json
from pipeline.stores.local import LocalStore
from pipeline.tasks import to_json
from tests.consumers.house import Feed, House, inbox
from tests.parsers.reading import rules

TEXT = '<View><Text name="t" value="$text"/></View>'
TURNS = '<View><Paragraphs name="p" value="$turns" nameKey="who" textKey="said"/></View>'
RULES = [rules(), rules(TEXT), rules(TEXT, level="strict"), rules(TURNS), rules(encoding="latin-1")]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a", "data", "id"]), inner),
    max_leaves=6,
)
ITEMS = st.dictionaries(
    st.sampled_from(["text", "data", "meta", "id", "annotations", "predictions", "$undefined$", "x"]), VALUES
)
FILES = st.one_of(
    ITEMS.map(to_json).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from(
        [
            b'{"text":"a"},{"text":"b"}',
            b'{"text":[{}',
            b"{}]}",
            b'\xef\xbb\xbf{"text":"a"}',
            b' {"text":"a"}',
        ]
    ),
)


def alone(content: bytes, given: Rules) -> object:
    """What a file becomes by itself: its tasks, or anything else."""
    try:
        pieces = list(json.parse(Body("a.json", "file:///a.json", len(content), content), given))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not plain
        return error
    return [task for piece in pieces for task in piece.tasks], [row for piece in pieces for row in piece.rejected]


@settings(max_examples=300, deadline=None)
@given(contents=st.lists(FILES, min_size=1, max_size=5), given=st.sampled_from(RULES))
def test_what_is_plain_is_what_it_is_alone(contents: list[bytes], given: Rules) -> None:
    """Whatever lies beside it, a file that is taken for plain has just the task that it has by itself."""
    found = json.plain(contents, given)
    if found is not None:
        assert [([task], []) for task in found] == [alone(content, given) for content in contents]


def feed_of(folder: Path, given: Rules | None = None) -> Feed:
    """A folder as a source."""
    return Feed(inbox(), LocalStore(folder, settle=0), given or rules())


def work_of(keys: list[str], **columns: object) -> list[Work]:
    """Objects of a claim."""
    return [Work(n, "inbox", key, None, None, False, False, 0, 0)._replace(**columns) for n, key in enumerate(keys)]


def test_no_object_is_left_out(tmp_path: Path) -> None:
    """Of many files of all kinds each comes back once, as a plain one or for the importer to look at."""
    keys = []
    for number in range(5 * CHUNK_OBJECTS):
        kind, content = [("json", b'{"text":"a"}'), ("csv", b"text\na\n"), ("json", b'{"text":"b"}')][number % 3]
        if number % 50 == 10:
            content = b"{nope"
        keys.append(f"{number}.{kind}")
        if number % 70:
            (tmp_path / keys[-1]).write_bytes(content)
    found = list(chunks(feed_of(tmp_path), work_of(keys)))
    plain = [one.work.key for chunk in found for one in chunk.plain]
    others = [item.key for chunk in found for item in chunk.others]
    assert sorted(plain + others) == sorted(keys)
    assert len(plain) > len(keys) / 2
    assert all(key.endswith(".json") for key in plain)
    assert max(len(chunk.plain) for chunk in found) <= CHUNK_OBJECTS
    assert {one.task.data for chunk in found for one in chunk.plain} <= {'{"text":"a"}', '{"text":"b"}'}


def test_a_source_without_plain_files_is_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are lists, no more than a chunk is tried; the importer opens the rest for the first time."""
    keys = [f"{number:04}.json" for number in range(1000)]
    for key in keys:
        (tmp_path / key).write_bytes(b'[{"text":"a"}]')
    feed = feed_of(tmp_path)
    read: list[str] = []
    contents = feed.store.contents
    monkeypatch.setattr(feed.store, "contents", lambda keys: contents(read.append(key) or key for key in keys))
    found = list(chunks(feed, work_of(keys)))
    assert not any(chunk.plain for chunk in found)
    assert [item.key for chunk in found for item in chunk.others] == keys
    assert len(read) <= CHUNK_OBJECTS + 1


@pytest.mark.parametrize("before", [{"imported": "old", "live": True}, {"imported": "same", "live": False}])
def test_what_has_tasks_is_looked_at_by_itself(tmp_path: Path, before: dict[str, object]) -> None:
    """Only the first import of an object is plain: what concerns tasks that exist is decided elsewhere."""
    (tmp_path / "a.json").write_bytes(b'{"text":"a"}')
    feed = feed_of(tmp_path)
    entry = feed.store.head("a.json")
    assert entry is not None
    if before["imported"] == "same":
        before = before | {"imported": entry.version}
    found = list(chunks(feed, work_of(["a.json"], **before)))
    assert not any(chunk.plain for chunk in found)


def test_a_claim_of_plain_files_and_others_is_imported_as_a_whole(house: House) -> None:
    """Good files, broken ones, lists and tables of one claim end as they do alone, each with its version and count."""
    for number in range(300):
        house.put(f"{number:03}.json", orjson.dumps({"text": str(number)}))
    house.put("bad.json", "{nope")
    house.put("empty.json", "")
    house.put("list.json", '[{"text":"x"},{"text":"y"}]')
    house.put("table.csv", "text\nz\n")
    keys = sorted(path.name for path in (house.folder / "inbox").iterdir())
    house.bring_in(*keys)
    states = house.states()
    assert {key for key, state in states.items() if state != "done"} == {"bad.json", "empty.json"}
    assert sorted(house.tasks()) == sorted(f'{{"text":"{text}"}}' for text in [*map(str, range(300)), *"xyz"])
    rows, store = house.rows(), house.feeds["inbox"].store
    for key in ("000.json", "list.json", "table.csv"):
        entry = store.head(key)
        assert (rows[key]["imported_version"], rows[key]["size"]) == (entry.version, entry.size)
    assert house.metric("written_tasks_total", source="inbox") == 303
    assert house.metric("store_requests_total", source="inbox", operation="get") >= 300
