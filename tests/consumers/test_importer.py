"""What becomes of a claim: one object at a time, each with its own fate, and nothing written twice."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline import logs
from pipeline.consumers import importer as importers
from pipeline.consumers.importer import Importer
from pipeline.errors import DataRefused, ObjectFailed, ObjectUnsettled, UnavailableError
from pipeline.ledger import STAGE_ROWS
from pipeline.parsers import Parser
from pipeline.tasks import Parsed, RejectedRow, Task
from tests.consumers.house import House, inbox
from tests.ledger.bench import pending

GOOD = '{"data": {"text": "one"}}'


class Instead:
    """A ledger or a store with some methods replaced; the rest is the real one's."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real = real
        alike = {"contents": None, "floor": None} if {"open", "concurrency"} & methods.keys() else {}
        self.__dict__.update(alike | methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def failing(error: Exception) -> Any:
    """A method that always raises."""

    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def parsed_by(monkeypatch: pytest.MonkeyPatch, parse: Any) -> None:
    """Let every object be parsed by this function, as a parser from another package would be."""
    parser = Parser("planted", 1, parse)
    for module in ("reading", "plain"):
        monkeypatch.setattr(f"pipeline.consumers.{module}.select", lambda *_: parser)


def swap_store(house: House, store: Any) -> None:
    """Put another store into the inbox."""
    feed = house.feeds["inbox"]
    house.feeds["inbox"] = type(feed)(feed.source, store, feed.rules, feed.shape)


def test_files_become_tasks(house: House) -> None:
    """Each file of a claim is imported with its version, its size and its tasks."""
    house.put("a.json", GOOD)
    house.put("b.csv", "text\none\ntwo\n")
    house.bring_in("a.json", "b.csv")
    assert sorted(house.tasks()) == ['{"text":"one"}', '{"text":"one"}', '{"text":"two"}']
    assert house.states() == {"a.json": "done", "b.csv": "done"}
    assert house.rows()["a.json"]["imported_version"] == house.feeds["inbox"].store.head("a.json").version
    assert house.metric("imported_objects_total", source="inbox", state="done") == 2
    assert house.metric("written_tasks_total", source="inbox") == 3
    assert pending(house.ledger) == 0


def test_bad_neighbours_stop_nobody(house: House) -> None:
    """A broken file, an empty one, one that is gone and one of no known kind end with reasons; good ones are done."""
    house.put("bad.json", "{nope")
    house.put("empty.json", "")
    house.put("good.json", GOOD)
    house.put("what.xyz", "?")
    house.put("zgone.json", GOOD)
    house.note("bad.json", "empty.json", "good.json", "what.xyz", "zgone.json")
    (house.folder / "inbox" / "zgone.json").unlink()
    for claim in house.claim():
        house.importer().run(claim.lease)
    rows = house.rows()
    assert {key: (row["state"], (row["reason"] or {}).get("code")) for key, row in rows.items()} == {
        "bad.json": ("failed", "syntax"),
        "empty.json": ("skipped", "no_tasks"),
        "good.json": ("done", None),
        "what.xyz": ("skipped", "unsupported_format"),
        "zgone.json": ("gone", "gone"),
    }
    assert house.tasks() == ['{"text":"one"}']


def test_what_the_store_refuses_for_good_fails(house: House) -> None:
    """A file without permission fails at once, with the store's own code and advice."""
    house.put("secret.json", GOOD)
    house.note("secret.json")
    refusal = ObjectFailed("permission", "it may not be read", hint="chmod it")
    swap_store(house, Instead(house.feeds["inbox"].store, open=failing(refusal)))
    house.importer().run(house.claim()[0].lease)
    row = house.rows()["secret.json"]
    assert (row["state"], row["reason"]["code"], row["reason"]["hint"]) == ("failed", "permission", "chmod it")


def test_reference_is_not_read(house: House) -> None:
    """A media file becomes a task by its key alone: its bytes are never asked for."""
    house.put("cat.png", b"\x89PNG")
    house.note("cat.png")
    store = house.feeds["inbox"].store
    swap_store(house, Instead(store, open=failing(AssertionError("opened"))))
    house.importer().run(house.claim()[0].lease)
    assert len(house.tasks()) == 1
    assert "cat.png" in house.tasks()[0]


def test_wanted_version_is_learnt_from_the_store(house: House) -> None:
    """After a hint without a version, a failure records what the store holds: the next pass finds nothing new."""
    house.put("bad.json", "{nope")
    house.put("what.xyz", "?")
    house.note("bad.json", "what.xyz", version=None)
    house.importer().run(house.claim()[0].lease)
    for key, row in house.rows().items():
        assert row["version"] == house.feeds["inbox"].store.head(key).version


def test_unchanged_version_is_not_parsed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for again, a version that is imported already is left alone, unread."""
    house.put("a.json", GOOD)
    house.bring_in("a.json")
    parsed_by(monkeypatch, failing(AssertionError("parsed")))
    house.note("a.json", version=None)
    house.importer().run(house.claim()[0].lease)
    assert house.states() == {"a.json": "done"}
    assert house.tasks() == ['{"text":"one"}']


@pytest.mark.parametrize(
    ("on_change", "texts"), [("ignore", ["one"]), ("replace", ["two"]), ("append", ["one", "two"])]
)
def test_on_change_decides_over_a_new_version(make_house: Any, on_change: str, texts: list[str]) -> None:
    """A new version of an imported object is left, put in the old one's place, or added."""
    house = make_house(inbox(on_change=on_change))
    house.put("a.json", GOOD)
    house.bring_in("a.json")
    house.put("a.json", '{"data": {"text": "two"}, "meta": {}}')
    house.note("a.json", version=None)
    for claim in house.claim():
        house.importer().run(claim.lease)
    assert house.states() == {"a.json": "done"}
    assert sorted(house.tasks()) == [f'{{"text":"{text}"}}' for text in texts]


def test_failed_new_version_keeps_the_old_tasks(make_house: Any) -> None:
    """Tasks of the imported version stay live when the version that should replace them is broken."""
    house = make_house(inbox(on_change="replace"))
    house.put("a.json", GOOD)
    house.bring_in("a.json")
    house.put("a.json", "{nope")
    house.bring_in("a.json")
    assert house.states() == {"a.json": "failed"}
    assert house.tasks() == ['{"text":"one"}']


def test_bad_rows_are_kept_aside_or_fail_the_file(make_house: Any) -> None:
    """By default a bad row costs only itself; with `on_bad_row: fail` it fails its file, with its place."""
    rows = GOOD + "\n[]\n" + GOOD + "\n"
    house = make_house(inbox(), inbox(name="strict", url="strict", on_bad_row="fail"))
    for source in ("inbox", "strict"):
        house.put("a.jsonl", rows, source)
        house.note("a.jsonl", source=source)
    for claim in house.claim():
        house.importer().run(claim.lease)
    kept, failed = house.rows("inbox")["a.jsonl"], house.rows("strict")["a.jsonl"]
    assert (kept["state"], kept["tasks"], kept["rejected"]) == ("done", 2, 1)
    assert (failed["state"], failed["tasks"], failed["reason"]["code"]) == ("failed", 0, "not_an_object")


def test_only_rejected_rows_fail_with_the_first_ones_code(house: House) -> None:
    """A file none of whose rows is good is failed for its first row's reason."""
    house.put("a.jsonl", "7\n{nope\n")
    house.bring_in("a.jsonl")
    assert house.rows()["a.jsonl"]["reason"]["code"] == "not_an_object"
    assert house.rows()["a.jsonl"]["rejected"] == 2


def test_passing_errors_back_off_then_fail(make_house: Any) -> None:
    """An error that may pass puts the object back with a later due time, until the attempts are used up."""
    house = make_house(attempts=3)
    house.put("a.json", GOOD)
    house.note("a.json")
    store = house.feeds["inbox"].store
    swap_store(house, Instead(store, open=failing(ObjectUnsettled("it changed", retry_after=7))))
    now = house.ledger.now()
    house.importer().run(house.claim()[0].lease)
    row = house.rows()["a.json"]
    assert (row["state"], row["attempts"]) == ("ready", 1)
    assert row["not_before"] >= now + 7
    for _ in range(2):
        house.due_now()
        house.importer().run(house.claim()[0].lease)
    row = house.rows()["a.json"]
    assert (row["state"], row["reason"]["code"]) == ("failed", "unsettled")


def test_error_of_ours_fails_its_object_alone(house: House, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Any other exception in a parser is `internal`, with its class named and a traceback in the log."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        if "bad" in body.key:
            raise ZeroDivisionError("secret")
        yield Parsed([Task(1, "{}")])

    parsed_by(monkeypatch, parse)
    house.put("bad", "x")
    house.put("good", "x")
    with caplog.at_level(logging.ERROR):
        house.bring_in("bad", "good")
    rows = house.rows()
    assert (rows["bad"]["reason"]["code"], rows["good"]["state"]) == ("internal", "done")
    assert "ZeroDivisionError" in rows["bad"]["reason"]["message"]
    assert "secret" not in rows["bad"]["reason"]["message"]
    assert any(record.exc_info for record in caplog.records)


def pieces(count: int, each: int, restart_at: int | None = None) -> Any:
    """A parser of `count` pieces of `each` tasks; after some of them it begins anew, with other tasks."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        for number in range(restart_at or 0):
            yield Parsed([Task(number * each + n + 1, '"old"') for n in range(each)])
        for number in range(count):
            tasks = [Task(number * each + n + 1, f"{number * each + n}") for n in range(each)]
            yield Parsed(tasks, restart=bool(restart_at) and number == 0)

    return parse


def test_large_file_is_staged_and_published_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a large file are written in bounded pieces, invisible until all are there."""
    parsed_by(monkeypatch, pieces(25, 1000))
    house.put("large", "x")
    house.note("large")
    seen: list[tuple[int, int, int]] = []
    real = house.ledger

    def stage(lease: int, object_id: int, first: int, tasks: Any, rejected: Any) -> Callable[[], None]:
        ready, count = real.stage(lease, object_id, first, tasks, rejected), len(tasks)

        def write() -> None:
            ready()
            seen.append((first, count, len(house.tasks())))

        return write

    house.importer(Instead(real, stage=stage)).run(house.claim()[0].lease)
    assert seen == [(0, STAGE_ROWS, 0), (STAGE_ROWS, STAGE_ROWS, 0), (2 * STAGE_ROWS, 5000, 0)]
    assert house.tasks() == [str(n) for n in range(25_000)]
    assert house.rows()["large"]["tasks"] == 25_000


@pytest.mark.parametrize("before", [3, 15])
def test_restart_forgets_what_came_before(house: House, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """When a parser begins a file anew, neither rows in memory nor staged ones of its first try remain."""
    parsed_by(monkeypatch, pieces(12, 1000, restart_at=before))
    house.put("large", "x")
    house.bring_in("large")
    assert house.tasks() == [str(n) for n in range(12_000)]


def test_large_file_that_fails_late_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error after many staged rows fails the file; none of them is ever seen, and sweeping deletes them."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        yield from pieces(15, 1000)(body, rules)
        yield Parsed(rejected=[RejectedRow(15_001, "syntax", "broken")])
        raise ZeroDivisionError

    parsed_by(monkeypatch, parse)
    house.put("large", "x")
    house.bring_in("large")
    assert house.states() == {"large": "failed"}
    assert house.tasks() == []
    while house.ledger.sweep(5000):
        pass
    with house.file.read() as connection:
        assert connection.execute("SELECT count(*) FROM task_rows").fetchone() == (0,)


def test_newer_version_meanwhile_wins(make_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version recorded while its object is parsed takes the lease: the older one writes nothing."""
    house = make_house(inbox(on_change="replace"))

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        if body.key == "a":
            house.note("a", version="newer")
        yield Parsed([Task(1, f'"{body.key}"')])

    parsed_by(monkeypatch, parse)
    house.put("a", "x")
    house.put("b", "x")
    house.bring_in("a", "b")
    assert house.tasks() == ['"b"']
    assert house.states() == {"a": "ready", "b": "done"}
    assert house.metric("duplicates_avoided_total") == 1


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events of the log that say how a claim ended."""
    return [row.message for row in caplog.records if row.message in {logs.BATCH_COMMITTED, logs.BATCH_CANCELLED}]


@pytest.mark.parametrize("kept", [False, True])
def test_a_zombie_says_that_its_claim_was_cancelled(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    """A claim whose lease is over before its commit is told as cancelled; one that kept something, as committed."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        if body.key == "b":
            house.ledger.give_back(lease)
        yield Parsed([Task(1, "{}")])

    parsed_by(monkeypatch, parse)
    keys = "ab" if kept else "b"
    for key in keys:
        house.put(key, "x")
    house.note(*keys)
    lease = house.claim()[0].lease
    with caplog.at_level(logging.INFO, "pipeline.consumers.importer"):
        house.importer(at=lambda _: None).run(lease)
    assert told(caplog) == ([logs.BATCH_COMMITTED] if kept else [logs.BATCH_CANCELLED])
    assert len(house.tasks()) == kept


def test_lost_lease_stops_the_claim(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose lease has ended writes nothing more and leaves the objects to their new owner."""
    caplog.set_level(logging.INFO)
    parsed: list[str] = []

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        parsed.append(body.key)
        if body.key == "b":
            house.ledger.give_back(lease)
            (held,) = importer.renewer._held.values()
            importer.renewer.renew(held)
        yield Parsed([Task(1, "{}")])

    parsed_by(monkeypatch, parse)
    for key in "abc":
        house.put(key, "x")
    house.note("a", "b", "c")
    importer = house.importer()
    lease = house.claim()[0].lease
    importer.run(lease)
    assert parsed == ["a", "b"]
    assert house.states() == {"a": "ready", "b": "ready", "c": "ready"}
    assert house.tasks() == []
    assert told(caplog) == [logs.BATCH_CANCELLED]


def test_second_start_of_a_claim_does_nothing(house: House) -> None:
    """A message that comes twice is imported once."""
    house.put("a.json", GOOD)
    house.note("a.json")
    (claim,) = house.claim()
    house.importer().run(claim.lease)
    assert house.importer().run(claim.lease).tasks == 0
    assert len(house.tasks()) == 1


def test_cancel_keeps_what_is_finished_and_gives_back_the_rest(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle of a file: its claim's finished objects are committed, the others uncounted."""
    importer = house.importer()

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        yield Parsed([Task(1, f'"{body.key}"')])
        if body.key == "b":
            importer.cancel()
            yield Parsed([Task(2, "{}")])
            raise AssertionError("it went on")

    parsed_by(monkeypatch, parse)
    for key in "abc":
        house.put(key, "x")
    house.note("a", "b", "c")
    importer.run(house.claim()[0].lease)
    assert house.states() == {"a": "done", "b": "ready", "c": "ready"}
    assert house.tasks() == ['"a"']
    assert {row["attempts"] for row in house.rows().values() if row["state"] == "ready"} == {0}


def test_full_disk_gives_the_claim_back(house: House) -> None:
    """When the database has no room, the claim goes back uncounted after a wait, and a later one succeeds."""
    house.put("a.json", GOOD)
    house.note("a.json")
    full = Instead(house.ledger, commit=failing(UnavailableError("the disk is full", code="disk_full")))
    importer = house.importer(full)
    importer.run(house.claim()[0].lease)
    row = house.rows()["a.json"]
    assert (row["state"], row["attempts"]) == ("ready", 0)
    house.importer().run(house.claim()[0].lease)
    assert house.states() == {"a.json": "done"}


def test_an_error_of_ours_in_the_ledger_gives_the_claim_back(house: House) -> None:
    """What nobody foresaw in a commit costs a wait, not a lease's length, and blames no object."""
    house.put("a.json", GOOD)
    house.note("a.json")
    importer = house.importer(Instead(house.ledger, commit=failing(ZeroDivisionError())))
    importer.run(house.claim()[0].lease)
    assert {key: (row["state"], row["attempts"]) for key, row in house.rows().items()} == {"a.json": ("ready", 0)}


def test_out_of_memory_makes_a_suspect_of_one_object(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that exhausts the memory runs alone next time; its neighbours are not blamed."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        if body.key == "b":
            raise MemoryError
        yield Parsed([Task(1, "{}")])

    parsed_by(monkeypatch, parse)
    for key in "abc":
        house.put(key, "x")
    house.note("a", "b", "c")
    house.importer().run(house.claim()[0].lease)
    assert house.states() == {"a": "done", "b": "ready", "c": "ready"}

    def suspects(tick: Any) -> list[int]:
        (source,) = tick.load().sources
        return [found.lost for found in tick.candidates(source._replace(cursor=(0.0, 0)), 10)]

    healthy, suspect = sorted(house.ledger.tick(suspects))
    assert healthy == 0 < suspect


def test_refused_data_fails_the_one_object(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the database refuse one object's tasks, the others of the commit are written all the same."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        yield Parsed([Task(1, "\ud800" if body.key == "c" else "{}")])

    parsed_by(monkeypatch, parse)
    for key in "abcde":
        house.put(key, "x")
    house.bring_in(*"abcde")
    assert house.states() == {"a": "done", "b": "done", "c": "failed", "d": "done", "e": "done"}
    assert house.rows()["c"]["reason"]["code"] == "internal"


def test_refused_data_of_a_large_file_keeps_what_was_rejected(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the database refuse the outcome of a staged file, its rejected rows stay, and are counted."""

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        yield Parsed(rejected=[RejectedRow(1, "syntax", "broken")])
        yield from pieces(11, 1000)(body, rules)

    parsed_by(monkeypatch, parse)
    house.put("large", "x")
    house.note("large")
    real, refusals = house.ledger, iter([DataRefused("no")])

    def commit(lease: int, outcomes: Any) -> Any:
        for error in refusals:
            raise error
        return real.commit(lease, outcomes)

    house.importer(Instead(real, commit=commit)).run(house.claim()[0].lease)
    assert (house.states(), house.rows()["large"]["rejected"]) == ({"large": "failed"}, 1)
    with house.file.read() as connection:
        assert connection.execute("SELECT count(*) FROM rejected").fetchone() == (1,)


def test_store_with_latency_is_read_ahead(house: House) -> None:
    """Where a store asks for it, so many objects are opened at a time, and every one is imported once."""
    keys = [f"{n:03}.json" for n in range(60)]
    for key in keys:
        house.put(key, f'{{"data": {{"text": "{key}"}}}}')
    house.note(*keys)
    store = house.feeds["inbox"].store
    together = threading.Barrier(8, timeout=10)
    opened: list[str] = []

    def open_slowly(key: str) -> Any:
        opened.append(key)
        if len(opened) <= 8:
            together.wait()
        return store.open(key)

    swap_store(house, Instead(store, open=open_slowly, concurrency=8))
    importer = house.importer()
    importer.run(house.claim()[0].lease)
    importer.close()
    assert sorted(house.tasks()) == [f'{{"text":"{key}"}}' for key in keys]
    assert sorted(opened) == keys


def test_claim_reads_with_threads_that_others_leave_idle(house: House) -> None:
    """While one claim is committed, another one of its source is read with the threads of both."""
    keys = [f"{n:03}.json" for n in range(60)]
    for key in keys:
        house.put(key, GOOD)
    house.note(*keys)
    store = house.feeds["inbox"].store
    importer = house.importer()
    threads = 4 * importer.limits.workers
    assert threads > 4
    together = threading.Barrier(threads, timeout=10)
    opened = itertools.count()

    def open_slowly(key: str) -> Any:
        if next(opened) < threads:
            together.wait()
        return store.open(key)

    swap_store(house, Instead(store, open=open_slowly, concurrency=4))
    importer.run(house.claim()[0].lease)
    importer.close()
    assert set(house.states().values()) == {"done"}


def test_reading_ahead_keeps_errors_with_their_objects(house: House) -> None:
    """What goes wrong in a reading thread ends the object that it belongs to."""
    for key in ("a.json", "b.json", "c.xyz"):
        house.put(key, GOOD)
    house.note("a.json", "b.json", "c.xyz")
    (house.folder / "inbox" / "b.json").unlink()
    swap_store(house, Instead(house.feeds["inbox"].store, concurrency=4))
    importer = house.importer()
    importer.run(house.claim()[0].lease)
    importer.close()
    assert house.states() == {"a.json": "done", "b.json": "gone", "c.xyz": "skipped"}


def test_commits_do_not_wait_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome is committed while its claim still runs, once it has waited for long enough."""
    monkeypatch.setattr("pipeline.consumers.commits.LONGEST_WAIT_SECONDS", 0.0)
    seen: list[int] = []

    def parse(body: Any, rules: Any) -> Iterator[Parsed]:
        seen.append(len(house.tasks()))
        yield Parsed([Task(1, "{}")])

    parsed_by(monkeypatch, parse)
    for key in "abc":
        house.put(key, "x")
    house.bring_in(*"abc")
    assert seen == [0, 1, 2]


def test_a_large_claim_s_commits_wait_longer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many objects have waited already, few commits take them all."""
    monkeypatch.setattr("pipeline.consumers.commits.LONGEST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.consumers.commits.LARGE_CLAIM_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr("pipeline.consumers.commits.LARGE_CLAIM_OBJECTS", 10)
    parsed_by(monkeypatch, lambda *_: iter([Parsed([Task(1, "{}")])]))
    keys = [f"{number}" for number in range(10)]
    for key in keys:
        house.put(key, "x")
    house.bring_in(*keys)
    assert len(house.tasks()) == 10
    assert house.metric("commit_duration_seconds_count") == 1


def test_no_outcome_waits_for_storage_that_hangs(house: House) -> None:
    """What has been read is committed while the next object keeps its reader waiting."""
    house.put("a.json", GOOD)
    house.put("b.json", GOOD)
    house.note("a.json", "b.json")
    store, first_is_there = house.feeds["inbox"].store, threading.Event()

    def open_when(key: str) -> Any:
        assert key == "a.json" or first_is_there.wait(30)
        return store.open(key)

    swap_store(house, Instead(store, open=open_when, concurrency=2))
    importer, lease = house.importer(), house.claim()[0].lease
    thread = threading.Thread(target=importer.run, args=(lease,))
    thread.start()
    while house.states()["a.json"] != "done":
        assert thread.is_alive()
    first_is_there.set()
    thread.join()
    importer.close()
    assert house.states() == {"a.json": "done", "b.json": "done"}


def test_a_claim_is_cancelled_while_storage_hangs(house: House) -> None:
    """Who shuts down does not wait for an answer that may never come; the object goes back uncounted."""
    house.put("a.json", GOOD)
    house.note("a.json")
    store, asked, over = house.feeds["inbox"].store, threading.Event(), threading.Event()

    def hang(key: str) -> Any:
        asked.set()
        assert over.wait(30)
        return store.open(key)

    swap_store(house, Instead(store, open=hang, concurrency=2))
    importer, lease = house.importer(), house.claim()[0].lease
    thread = threading.Thread(target=importer.run, args=(lease,))
    thread.start()
    assert asked.wait(30)
    importer.cancel()
    thread.join(10)
    assert not thread.is_alive()
    over.set()
    importer.close()
    row = house.rows()["a.json"]
    assert (row["state"], row["attempts"]) == ("ready", 0)


def test_source_out_of_the_configuration_is_given_back(house: House) -> None:
    """A claim of a source that this process does not know goes back, uncounted."""
    house.put("a.json", GOOD)
    house.note("a.json")
    (claim,) = house.claim()
    importer = Importer({}, house.ledger, house.metrics, "w", house.limits, house.importer().renewer)
    importer.run(claim.lease)
    assert house.states() == {"a.json": "ready"}


def test_no_object_of_a_batch_is_named_in_the_log(house: House, caplog: Any) -> None:
    """A claim is one line at info level, however many objects it holds."""
    for n in range(20):
        house.put(f"{n}.json", GOOD)
    with caplog.at_level(logging.INFO, logger=importers.__name__):
        house.bring_in(*[f"{n}.json" for n in range(20)])
    assert len([record for record in caplog.records if record.name == importers.__name__]) == 1
