"""Passes and imports against an S3 that throttles, breaks off, forgets us, or has put things into its archive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.app import App
from pipeline.bus.embedded import EmbeddedLog
from pipeline.config import Config, Source, build
from pipeline.errors import LabelfeedError, ObjectSkipped, UnavailableError
from pipeline.ledger import SourceIdentity
from pipeline.metrics import Metrics
from pipeline.notifications import Target, decode
from pipeline.producers import listing
from pipeline.producers.passes import PassRunner
from pipeline.producers.runner import SourceRunner
from pipeline.sinks.sqlite import SqliteLedger
from pipeline.sqlitefile import SqliteFile
from pipeline.stores.s3 import S3Store, access, open_store
from pipeline.stores.scope import Scope
from tests.simulated_s3 import BUCKET, Asked, Bucket, Failure, credentials, served, wait_until

COUNT = 25
PAGE = 10


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages, credentials that nobody checks, and clients that don't try again by themselves."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(listing, "PAGE_KEYS", PAGE)
    monkeypatch.setattr(access, "ATTEMPTS", 1)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """A bucket of 25 objects, in three pages."""
    with served(Bucket(COUNT)) as made:
        made.most = PAGE
        yield made


class House:
    """A source in the simulated bucket, and the parts of a pass."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.file = SqliteFile(folder / "labelfeed.db")
        self.ledger, self.log = SqliteLedger(self.file), EmbeddedLog(self.file)
        self.ledger.migrate()
        self.log.create()
        self.source = Source(name="bucket", project="p", url=f"s3://{BUCKET}", endpoint=bucket.url, poll=0.05)
        self.store: S3Store = open_store(self.source, folder)
        identity = self.store.identity()
        self.ledger.register([SourceIdentity("bucket", "p", identity, self.source.url, "shape")])
        self.metrics = Metrics()
        self.runner = PassRunner(self.source, 1, self.store, Scope.of(self.source), self.ledger, self.log, self.metrics)

    def published(self) -> list[str]:
        """The keys on the event log."""
        with closing(self.log.consumer(lambda _: {})) as consumer:
            found: list[Any] = []
            while records := consumer.poll(1000, 0).records:
                found += [record.event.key for record in records]  # type: ignore[union-attr]  # all can be read
        return found

    def problems(self) -> list[dict[str, Any]]:
        """What `status` says is wrong."""
        found: list[dict[str, Any]] = self.ledger.reports().sources()[0]["problems"]
        return found


@pytest.fixture
def house(bucket: Bucket, tmp_path: Path) -> Iterator[House]:
    """A source in the bucket."""
    made = House(bucket, tmp_path)
    yield made
    made.store.close()
    made.ledger.close()


def from_page(number: int, failure: Failure) -> Callable[[Asked], Failure | None]:
    """Fail each listing that begins at a page or after it."""
    first = f"{number * PAGE - 1:08}.json"
    return lambda asked: failure if asked.operation == "list" and asked.key >= first else None


FAILURES = [
    (Failure(503, "SlowDown"), "unavailable", "slow down"),
    (Failure(429, "TooManyRequests"), "unavailable", "slow down"),
    (Failure(500, "InternalError"), "unavailable", "InternalError"),
    (Failure(400, "ExpiredToken"), "permission", "ExpiredToken"),
    (Failure(403, "InvalidAccessKeyId"), "permission", "InvalidAccessKeyId"),
    (Failure(403, "RequestTimeTooSkewed"), "unavailable", "15 minutes"),
    (Failure(403, "AccessDenied"), "permission", "denies"),
]


@pytest.mark.parametrize(("failure", "code", "told"), FAILURES, ids=lambda value: getattr(value, "code", ""))
def test_a_listing_that_fails_in_mid_pass_goes_on_where_it_was(
    bucket: Bucket, house: House, failure: Failure, code: str, told: str
) -> None:
    """It is told in `status`; afterwards each object is published once, and nothing is gone."""
    bucket.fails = from_page(1, failure)
    with pytest.raises(UnavailableError) as error:
        house.runner.run(threading.Event())
    assert error.value.code == code
    (problem,) = house.problems()
    assert (problem["part"], problem["code"], told in problem["message"]) == ("listing", code, True)

    bucket.fails = lambda _: None
    before = bucket.asked["list"]
    state = house.runner.run(threading.Event())
    assert (state.listed, state.published, state.candidates, state.stopped) == (COUNT, COUNT, 0, None)
    assert sorted(house.published()) == [bucket.key(number) for number in range(COUNT)]
    assert bucket.asked["list"] - before <= 3
    assert house.problems() == []


def test_a_first_page_that_fails(bucket: Bucket, house: House) -> None:
    """Nothing is known yet, nothing is concluded, and it is told."""
    bucket.fails = lambda asked: Failure(503, "SlowDown") if asked.operation == "list" else None
    with pytest.raises(UnavailableError, match="slow down"):
        house.runner.run(threading.Event())
    assert "slow down" in house.problems()[0]["message"]
    assert house.published() == []


def test_a_source_that_is_throttled_for_a_while_catches_up_by_itself(bucket: Bucket, house: House) -> None:
    """The runner backs off, says so, and goes on; the problem is gone from `status` then."""
    bucket.fails = from_page(1, Failure(503, "SlowDown"))
    runner, stop = SourceRunner(house.runner, None), threading.Event()
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: bool(house.problems()))
        assert (runner.status().ready, "slow down" in runner.status().reason) == (False, True)
        bucket.fails = lambda _: None
        wait_until(lambda: runner.status().last_pass is not None)
        assert house.problems() == []
        assert len(house.published()) == COUNT
        assert house.metrics.value("passes_total", source="bucket", outcome="failed") >= 1
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_every_request_is_counted(bucket: Bucket, house: House) -> None:
    """A pass counts its LIST and HEAD calls for its source."""
    house.runner.run(threading.Event())
    assert house.metrics.value("store_requests_total", source="bucket", operation="list") == 3


def test_an_archived_object_is_skipped(bucket: Bucket, house: House) -> None:
    """What lies in Glacier cannot be read until it is restored: that is no failure, and not tried for ever."""
    bucket.fails = lambda asked: Failure(403, "InvalidObjectState") if asked.operation == "get" else None
    with pytest.raises(ObjectSkipped) as told, house.store.open(bucket.key(1)):
        pass
    assert (told.value.code, "restore" in str(told.value.hint)) == ("archived", True)


def config(bucket: Bucket, folder: Path, **options: Any) -> Config:
    """An installation with the simulated bucket, options of its source, and a folder beside it."""
    (folder / "inbox").mkdir(exist_ok=True)
    (folder / "inbox" / "local.json").write_text('[{"text": "local"}]')
    bucket_source = {"name": "bucket", "project": "p", "url": f"s3://{BUCKET}", "endpoint": bucket.url} | options
    local = {"name": "inbox", "project": "p", "url": "./inbox", "settle": 0}
    limits = {"backoff": "20ms", "attempts": 2, "storage_patience": "3s"}
    return build({"projects": {"p": {}}, "sources": [bucket_source, local], "limits": limits}, folder)


def run_once(config: Config) -> dict[str, Any]:
    """One run; each source's row of the reports afterwards."""
    with App.open(config) as app:
        try:
            app.run_once(lambda _: None)
        except LabelfeedError:
            """The sources that work are imported before it is told."""
        return {row["name"]: row for row in app.ledger.reports().sources()}


def test_archived_objects_do_not_stop_the_others(bucket: Bucket, tmp_path: Path) -> None:
    """In a whole run they are skipped with their reason, each asked for once; the next run does not ask again."""
    away = {bucket.key(number) for number in range(0, COUNT, 5)}
    bucket.fails = lambda asked: (
        Failure(403, "InvalidObjectState") if asked.operation == "get" and asked.key in away else None
    )
    rows = run_once(config(bucket, tmp_path))
    assert (rows["bucket"]["done"], rows["bucket"]["skipped"], rows["bucket"]["failed"]) == (20, 5, 0)
    asked = bucket.asked["get"]
    assert asked == COUNT
    rows = run_once(config(bucket, tmp_path))
    assert (bucket.asked["get"], rows["bucket"]["skipped"]) == (asked, 5)


def test_a_restored_object_comes_by_its_event(bucket: Bucket, tmp_path: Path) -> None:
    """A listing shows nothing new of it, as its version is the one that was skipped; what S3 tells of it brings it."""
    made, key = config(bucket, tmp_path), bucket.key(1)
    bucket.fails = lambda asked: (
        Failure(403, "InvalidObjectState") if asked.operation == "get" and asked.key == key else None
    )
    assert run_once(made)["bucket"]["skipped"] == 1
    bucket.fails = lambda _: None
    assert run_once(made)["bucket"]["skipped"] == 1
    found = {"key": key, "size": 1, "eTag": bucket.etag(key)}
    record = {"eventName": "ObjectRestore:Completed", "s3": {"bucket": {"name": BUCKET}, "object": found}}
    with App.open(made) as app:
        app.log.publish(decode(orjson.dumps({"Records": [record]}), lambda _, key: [Target("bucket", key)]))
    rows = run_once(made)
    assert (rows["bucket"]["done"], rows["bucket"]["skipped"]) == (COUNT, 0)


LONG = "é" * 507 + "{:05}.json"
"""Keys of 1,024 bytes."""


@pytest.mark.parametrize(
    "pattern",
    [
        "/{:05}.json",
        "//{:05}",
        "a//{:05}",
        "../{:05}",
        "x/../{:05}",
        "./{:05}",
        "{:05} +%20&?#ü.json",
        "n\n{:05}",
        LONG,
    ],
)
def test_odd_keys_are_imported(tmp_path: Path, pattern: str) -> None:
    """Leading slashes, dots, control characters, what URLs give a meaning to, 1,024 bytes: each key is its own object,
    read as it is named, and a second run finds nothing new."""
    with served(Bucket(COUNT, b'{"text": "a"}', pattern)) as bucket:
        rows = run_once(config(bucket, tmp_path, format="json"))
        assert (rows["bucket"]["done"], rows["bucket"]["tasks"]) == (COUNT, COUNT)
        asked = bucket.asked["get"]
        rows = run_once(config(bucket, tmp_path, format="json"))
        assert (bucket.asked["get"], rows["bucket"]["done"], rows["bucket"]["changes"]) == (asked, COUNT, 0)


def test_a_permission_that_lists_but_does_not_read(bucket: Bucket, tmp_path: Path) -> None:
    """What may not be read fails by itself, with what to do; the others and the other source are imported."""
    shut = {bucket.key(number) for number in range(0, COUNT, 5)}
    bucket.fails = lambda asked: (
        Failure(403, "AccessDenied") if asked.operation == "get" and asked.key in shut else None
    )
    with App.open(config(bucket, tmp_path)) as app:
        done = {item.source: item for item in app.run_once(lambda _: None)}
    assert (done["bucket"].imported, done["bucket"].failed, done["inbox"].imported) == (20, 5, 1)
    reasons: list[Any] = [row["reason"] for row in done["bucket"].failures]
    assert {(reason["code"], "s3:GetObject" in reason["hint"]) for reason in reasons} == {("permission", True)}


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "SlowDown"])
def test_reads_that_fail_for_a_while_fail_nothing(bucket: Bucket, tmp_path: Path, code: str) -> None:
    """A token that ends in mid-run, a clock that is set right, a throttle: more attempts than an object has of its
    own go by, and everything is imported all the same."""
    bucket.fails = lambda asked: Failure(403, code) if asked.operation == "get" and asked.before < 4 * COUNT else None
    rows = run_once(config(bucket, tmp_path))
    assert (rows["bucket"]["done"], rows["bucket"]["failed"], rows["inbox"]["done"]) == (COUNT, 0, 1)


def test_credentials_that_stay_wrong_leave_the_source_to_the_next_run(bucket: Bucket, tmp_path: Path) -> None:
    """Where reading never works the run ends all the same, and says how many objects wait and why."""
    bucket.fails = lambda asked: Failure(403, "InvalidAccessKeyId") if asked.operation == "get" else None
    with App.open(config(bucket, tmp_path)) as app:
        done = {item.source: item for item in app.run_once(lambda _: None)}
    told = done["bucket"].unanswered
    assert told is not None
    assert (told["objects"], told["code"], done["bucket"].failed) == (COUNT, "permission", 0)
    assert "does not take our credentials" in told["message"]
    bucket.fails = lambda _: None
    assert run_once(config(bucket, tmp_path))["bucket"]["done"] == COUNT


def test_a_source_that_is_throttled_does_not_stop_the_others(bucket: Bucket, tmp_path: Path) -> None:
    """The folder beside it is imported, as is what was listed before; `status` says what is wrong with the bucket."""
    bucket.fails = from_page(1, Failure(503, "SlowDown"))
    rows = run_once(config(bucket, tmp_path))
    assert (rows["inbox"]["done"], rows["inbox"]["problems"]) == (1, [])
    (problem,) = rows["bucket"]["problems"]
    assert "slow down" in problem["message"]
    assert rows["bucket"]["gone"] == 0


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_is_wrong_decides_nothing(bucket: Bucket, tmp_path: Path, minutes: int) -> None:
    """A store whose times lie 20 minutes off is listed and imported as any other: versions decide, not times."""
    bucket.modified = datetime.now(UTC) + timedelta(minutes=minutes)
    rows = run_once(config(bucket, tmp_path))
    assert rows["bucket"]["done"] == COUNT
    rows = run_once(config(bucket, tmp_path))
    assert (rows["bucket"]["done"], rows["bucket"]["changes"], rows["bucket"]["gone"]) == (COUNT, 0, 0)


@pytest.mark.parametrize(
    ("options", "listed", "most"),
    [
        ({"prefixes": ["0000003", "0000007"]}, 20, 5),
        ({"prefixes": ["0000003"], "start_after": "latest"}, 10, 3),
        ({}, 300, 30),
    ],
)
def test_a_listing_of_prefixes_asks_for_little_else(
    bucket: Bucket, house: House, options: dict[str, Any], listed: int, most: int
) -> None:
    """Keys between prefixes and behind the last cost no request; what is listed twice is the same."""
    bucket.count = 300
    source = Source.model_validate(house.source.model_dump(exclude_unset=True) | options)
    runner = PassRunner(source, 1, house.store, Scope.of(source), house.ledger, house.log, house.metrics)
    before = bucket.asked["list"]
    state = runner.run(threading.Event())
    assert (state.listed, sum(state.left_out.values()) <= 3 * PAGE) == (listed, True)
    # Two requests more tell what the server is, and whether names begin with a slash.
    assert bucket.asked["list"] - before <= most + 2


def test_folders_that_are_not_wanted_cost_a_page_each(tmp_path: Path) -> None:
    """With `recursive: false` a listing jumps over what is in them."""
    with served(Bucket(500, pattern="folder/{:08}.json")) as bucket:
        bucket.most = PAGE
        house = House(bucket, tmp_path)
        source = house.source.model_copy(update={"recursive": False})
        runner = PassRunner(source, 1, house.store, Scope.of(source), house.ledger, house.log, house.metrics)
        state = runner.run(threading.Event())
        assert (state.listed, state.left_out, state.finished is not None) == (0, {"recursive": PAGE}, True)
        assert bucket.asked["list"] <= 4
        house.store.close()
        house.ledger.close()
