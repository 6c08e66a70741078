"""Objects of a store with latency, opened ahead of their turn: each once, in bounded memory, whatever one does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Lock

import orjson
import pytest

from pipeline.consumers import reading
from pipeline.consumers.plain import Sieve
from pipeline.consumers.reading import CHUNK_BYTES, CHUNK_OBJECTS, Ahead, ReadAhead
from pipeline.errors import ObjectGone, UnavailableError
from pipeline.ledger import Work
from pipeline.stores import Reading
from pipeline.stores.local import LocalStore
from tests.consumers.house import Feed, House, inbox
from tests.parsers.reading import rules

WINDOW = 4


class Watched(LocalStore):
    """A folder that is read ahead of its turn, and counts what is opened and open."""

    concurrency = WINDOW

    def __init__(self, root: Path) -> None:
        super().__init__(root, settle=0)
        self.opened: Counter[str] = Counter()
        self.now = self.bytes = self.most_bytes = 0
        self.lock = Lock()
        self.hang: tuple[str, Event] | None = None

    @contextmanager
    def open(self, key: str) -> Iterator[Reading]:  # type: ignore[override]  # as the protocol has it
        """As `LocalStore.open`."""
        if self.hang is not None and self.hang[0] == key:
            self.hang[1].wait(60)
        with super().open(key) as found:
            size = len(found.content or b"")
            with self.lock:
                self.opened[key] += 1
                self.now += 1
                self.bytes += size
                self.most_bytes = max(self.most_bytes, self.bytes)
            try:
                yield found
            finally:
                with self.lock:
                    self.now -= 1
                    self.bytes -= size


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads to read with."""
    with ThreadPoolExecutor(WINDOW) as made:
        yield made


def nothing() -> None:
    """Nothing is due meanwhile."""


def work_of(keys: list[str]) -> list[Work]:
    """Objects of a claim."""
    return [Work(n, "inbox", key, None, None, False, False, 0, 0) for n, key in enumerate(keys)]


def files(folder: Path, count: int, size: int = 1) -> list[str]:
    """So many JSON files of one task each."""
    keys = [f"{number:04}.json" for number in range(count)]
    for key in keys:
        (folder / key).write_bytes(orjson.dumps({"text": "x" * size}))
    return keys


@pytest.mark.parametrize("count", [0, 1, WINDOW, 333])
def test_each_object_is_opened_once(tmp_path: Path, pool: ThreadPoolExecutor, count: int) -> None:
    """All of a claim come, each once, in bounded chunks; what keeps one from being opened waits for its turn."""
    store = Watched(tmp_path)
    keys = [*files(tmp_path, count), "gone.json"]
    found: list[Ahead] = []
    for chunk in ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys)):
        assert 0 < len(chunk) <= CHUNK_OBJECTS
        found += chunk
        for one in chunk:
            if one.work.key == "gone.json":
                with pytest.raises(ObjectGone):
                    one.open()
            else:
                assert one.open()[0].name == "json"
    assert sorted(one.work.key for one in found) == sorted(keys)
    assert set(store.opened.values()) <= {1}
    assert store.now == 0


def test_what_is_read_ahead_is_bounded(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit nothing more is read than what each thread had begun, and all of it comes in the end."""
    size, limit = 100_000, 400_000
    monkeypatch.setattr(reading, "READ_AHEAD_BYTES", limit)
    store = Watched(tmp_path)
    keys = files(tmp_path, 150, size)
    ahead = ReadAhead(pool, store, rules(), WINDOW, nothing)
    found = [one.work.key for chunk in ahead.chunks(work_of(keys)) for one in chunk]
    assert sorted(found) == keys
    assert store.most_bytes <= limit + CHUNK_BYTES + (WINDOW + 2) * size


def test_what_was_read_for_nothing_is_closed(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Whoever stops early leaves nothing open, of the chunk at hand nor of what was ahead of it."""
    store = Watched(tmp_path)
    keys = files(tmp_path, 400)
    with closing(ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys))) as chunks:
        first = next(chunks)
    pool.shutdown()
    assert len(first) <= sum(store.opened.values()) < len(keys)
    assert store.now == 0


def test_a_hanging_read_holds_up_nobody_who_has_other_things_to_do(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """While one object keeps its claim waiting, `meanwhile` is called, and what it raises ends the waiting."""
    store = Watched(tmp_path)
    keys = files(tmp_path, 40)
    store.hang = (keys[0], Event())
    calls = 0

    def meanwhile() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise UnavailableError("it is time to go")

    with pytest.raises(UnavailableError, match="time to go"):
        list(ReadAhead(pool, store, rules(), WINDOW, meanwhile).chunks(work_of(keys)))
    assert calls == 3
    store.hang[1].set()
    pool.shutdown()
    assert store.now == 0


def test_plain_objects_are_sifted_from_others(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """A file of one ordinary item is plain; lists, broken files and tables are left as they were opened."""
    kinds = [("a.json", b'{"text":"a"}'), ("b.json", b'[{"text":"b"}]'), ("c.json", b"{nope"), ("d.csv", b"text\nd\n"),
             ("e.json", b'{"text":"e"}'), ("f.json", b'{"text":"f"}'), ("g.bin", b"?")]  # fmt: skip
    for key, content in kinds:
        (tmp_path / key).write_bytes(content)
    feed = Feed(inbox(), Watched(tmp_path), rules())
    sieve = Sieve(feed)
    plain, others = [], []
    for chunk in ReadAhead(pool, feed.store, feed.rules, WINDOW, nothing).chunks(work_of([key for key, _ in kinds])):
        found, rest = sieve.sift(chunk)
        plain += [(one.work.key, one.task.data) for one in found]
        others += [one.work.key for one in rest]
    # A chunk that is poor in plain files, which it may be by chance, ends the sifting.
    assert dict(plain).items() <= {"a.json": '{"text":"a"}', "e.json": '{"text":"e"}', "f.json": '{"text":"f"}'}.items()
    assert sorted([*dict(plain), *others]) == sorted(key for key, _ in kinds)


def test_a_claim_is_imported_with_one_request_an_object(house: House) -> None:
    """Plain or not, an object is asked of its store once, and ends as it does alone."""
    store = Watched(house.folder / "inbox")
    house.feeds["inbox"] = Feed(house.feeds["inbox"].source, store, house.feeds["inbox"].rules)
    for number in range(300):
        house.put(f"{number:03}.json", orjson.dumps({"text": str(number)}))
    house.put("bad.json", "{nope")
    house.put("list.json", '[{"text":"x"},{"text":"y"}]')
    house.put("table.csv", "text\nz\n")
    keys = sorted(path.name for path in (house.folder / "inbox").iterdir())
    house.bring_in(*keys)
    assert {key for key, state in house.states().items() if state != "done"} == {"bad.json"}
    assert sorted(house.tasks()) == sorted(f'{{"text":"{text}"}}' for text in [*map(str, range(300)), *"xyz"])
    assert store.opened == dict.fromkeys(keys, 1)
    assert house.metric("store_requests_total", source="inbox", operation="get") == len(keys)
    assert store.now == 0


def test_objects_wait_for_no_other_that_hangs(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """All objects come while one of them hangs, also those behind it; that one comes when it is there."""
    store = Watched(tmp_path)
    keys = files(tmp_path, 200)
    store.hang = (keys[0], Event())
    found: list[str] = []
    for chunk in ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys)):
        found += [one.work.key for one in chunk]
        if len(found) == len(keys) - 1:
            assert keys[0] not in found
            store.hang[1].set()
    assert sorted(found) == keys


def test_a_library_that_panics_fails_its_object(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised beside all exceptions, as a panic in Rust is, is an error of its object; the others come."""
    store = Watched(tmp_path)
    keys = files(tmp_path, 10)
    opened = store.open

    class Panic(BaseException):
        """As pyo3's."""

    def panic(key: str) -> object:
        if key == keys[3]:
            raise Panic("index out of bounds")
        return opened(key)

    monkeypatch.setattr(store, "open", panic)
    chunks = ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys))
    errors = {one.work.key: repr(one.error) for chunk in chunks for one in chunk}
    assert {key: error for key, error in errors.items() if error != "None"} == {
        keys[3]: """RuntimeError("Panic('index out of bounds')")"""
    }
    assert sorted(errors) == keys


def test_a_reader_that_fails_ends_its_claim(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends a thread that reads is raised where its objects are waited for."""

    def out_of_memory(*_: object) -> Ahead:
        raise MemoryError

    monkeypatch.setattr(reading, "Ahead", out_of_memory)
    with pytest.raises(MemoryError):
        list(ReadAhead(pool, Watched(tmp_path), rules(), WINDOW, nothing).chunks(work_of(files(tmp_path, 10))))


def test_claims_take_turns_at_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that finds all threads at another one's work is served before that one has ended."""
    monkeypatch.setattr(reading, "READ_AHEAD_OBJECTS", 10_000)
    store = Watched(tmp_path)
    keys = files(tmp_path, 2_000)
    with ThreadPoolExecutor(1) as pool:
        first = ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys))
        second = ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys[:1]))
        begun = next(first)
        assert [one.work.key for one in next(second)] == keys[:1]
        assert sum(store.opened.values()) < len(keys) / 2
        assert len(begun) + sum(map(len, first)) == len(keys)


def test_what_is_opened_and_not_taken_is_bounded(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody takes what was read, no more than a limit of objects is opened."""
    monkeypatch.setattr(reading, "READ_AHEAD_OBJECTS", 20)
    store = Watched(tmp_path)
    keys = files(tmp_path, 300)
    chunks = ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys))
    taken = len(next(chunks))
    time.sleep(0.3)
    assert sum(store.opened.values()) <= taken + 20 + WINDOW
    assert taken + sum(map(len, chunks)) == len(keys)


def test_storage_that_fails_fails_each_object_once(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where storage does not answer, each object is asked for once and comes with its error."""
    store = Watched(tmp_path)
    keys = files(tmp_path, 200)
    asked: list[str] = []

    def fail(key: str) -> Iterator[Reading]:
        asked.append(key)
        raise UnavailableError("it does not answer")

    monkeypatch.setattr(store, "open", fail)
    found = list(ReadAhead(pool, store, rules(), WINDOW, nothing).chunks(work_of(keys)))
    assert sorted(asked) == keys
    assert [one.work.key for chunk in found for one in chunk if one.error is None] == []
    assert sum(map(len, found)) == len(keys)
