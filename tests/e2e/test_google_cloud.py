"""Buckets of Google Cloud Storage become tasks: by passes and by notifications, on their good days and on bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from deploy.services import Service
from tests.e2e.house import House, until
from tests.e2e.test_secrets import left_by
from tests.google_front import Answer, Asked, Front, front_of, key_file, refused, refused_xml
from tests.servers import GCS_TOPIC, gcs_client, pubsub_client

pytestmark = pytest.mark.usefixtures("google")
Put = Callable[[str, Any], None]
KEYS = ["a.json", "a b+ü%41.json", "/leading.json", "a//b.json", "x/../y.json", "line\nbreak.json", "é" * 509 + ".json"]


@pytest.fixture
def bucket(fakegcs: Service, unique: str) -> str:
    """A bucket of this test alone."""
    gcs_client(fakegcs).create_bucket(unique)
    return unique


@pytest.fixture
def put(fakegcs: Service, bucket: str) -> Put:
    """Put an object of one task into it."""
    held = gcs_client(fakegcs).bucket(bucket)
    return lambda key, data: held.blob(key).upload_from_string(json.dumps(data))


@pytest.fixture
def front(fakegcs: Service) -> Iterator[Front]:
    """A server before fake-gcs-server that refuses what it is told to."""
    with front_of(fakegcs.url) as front:
        yield front


def test_a_bucket_becomes_tasks(house: House, fakegcs: Service, bucket: str, put: Put) -> None:
    """One pass imports everything, whatever the keys; another one finds nothing new; empty objects are skipped."""
    expected = {key: [{"text": key}] for key in KEYS}
    for key in KEYS:
        put(f"in/{key}", {"text": key})
    gcs_client(fakegcs).bucket(bucket).blob("in/empty.json").upload_from_string(b"")
    gcs_client(fakegcs).bucket(bucket).blob("in/folder/").upload_from_string(b"")
    house.configure({"url": f"gs://{bucket}/in", "endpoint": fakegcs.url})
    house.once()
    assert house.states() == dict.fromkeys(KEYS, "done") | {"empty.json": "skipped: no_tasks"}
    assert "nothing is new" in house.once().err
    house.agrees(expected)
    generation = gcs_client(fakegcs).bucket(bucket).get_blob("in/a.json").generation

    assert house.rows("SELECT imported_version FROM objects WHERE key = 'a.json'") == [(str(generation),)]


def test_notifications_bring_changes_within_a_moment(
    house: House, gcs_telling: Service, pubsub: Service, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new object, an overwritten one and a deleted one are noticed long before the next pass."""
    held = gcs_client(gcs_telling).create_bucket(unique)
    name = f"projects/test/subscriptions/{unique}"
    pubsub_client("subscriber", pubsub).create_subscription(name=name, topic=GCS_TOPIC)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)
    source = {"url": f"gs://{unique}", "endpoint": gcs_telling.url, "notifications": name, "poll": "1h"}
    house.configure(source | {"on_change": "replace", "on_delete": "archive"})
    held.blob("before.json").upload_from_string('{"text": "before"}')
    with house.continuously() as running:
        until(lambda: house.tasks() == {"before.json": [{"text": "before"}]}, what="the first pass")
        held.blob("new.json").upload_from_string('{"text": "new"}')
        until(lambda: house.tasks().get("new.json") == [{"text": "new"}], what="the new object")
        held.blob("new.json").upload_from_string('{"text": "newer"}')
        until(lambda: house.tasks().get("new.json") == [{"text": "newer"}], what="the overwritten object")
        held.blob("before.json").delete()
        until(lambda: "before.json" not in house.tasks(), what="the deletion")
        passes = [row for row in running.says("pass_finished") if row["published"]]
        assert len(passes) <= 1, "no later pass found anything"
    pubsub_client("subscriber", pubsub).delete_subscription(subscription=name)

    assert house.states() == {"before.json": "gone: gone", "new.json": "done"}
    house.agrees({"new.json": [{"text": "newer"}]})


def test_what_may_not_be_read_fails_and_the_rest_goes_on(house: House, front: Front, bucket: str, put: Put) -> None:
    """A permission on one object is its failure, with what to grant; `retry` imports it once it is granted."""
    for key in ("a.json", "secret.json", "z.json"):
        put(key, {"text": key})

    def denied(request: Asked) -> Answer | None:
        return refused_xml(403, "AccessDenied") if unquote(request.path).endswith("/secret.json") else None

    front.rules.append(denied)
    house.configure({"url": f"gs://{bucket}", "endpoint": front.url})
    house.once(code=1)
    assert house.states() == {"a.json": "done", "secret.json": "failed: permission", "z.json": "done"}
    assert "storage.objects.get" in json.dumps(house.explain("secret.json"))
    front.rules.clear()
    assert house.run("retry").code == 0
    house.once()
    house.agrees({key: [{"text": key}] for key in ("a.json", "secret.json", "z.json")})


def test_a_missing_bucket_stops_no_other_source(house: House, fakegcs: Service, bucket: str, put: Put) -> None:
    """It is said by name, and the other source's objects become tasks. STORAGE_EMULATOR_HOST leads to both."""
    put("a.json", {"text": "a"})
    house.environment["STORAGE_EMULATOR_HOST"] = fakegcs.url
    missing = {"name": "missing", "project": "p", "url": f"gs://{bucket}-not"}
    house.configure(sources=[missing, {"name": "inbox", "project": "p", "url": f"gs://{bucket}"}])
    ended = house.run("run", "--once", "--log-format=json")

    assert ended.code != 0
    assert f"{bucket}-not" in ended.err
    assert house.tasks() == {"a.json": [{"text": "a"}]}


def test_a_page_that_fails_in_mid_pass_loses_nothing(house: House, front: Front, bucket: str, put: Put) -> None:
    """The pass goes on where it failed, in the same run or in the next one, and nothing is taken for deleted."""
    expected = {f"{number:04}.json": [{"n": number}] for number in range(4)}
    for key, (data,) in expected.items():
        put(key, data)
    house.configure({"url": f"gs://{bucket}", "endpoint": front.url, "on_delete": "archive"})
    house.once()
    put("0004.json", {"n": 4})
    left = [refused(403, "forbidden")]

    def failing(request: Asked) -> Answer | None:
        return left.pop() if left and request.path.endswith("/o") else None

    front.rules.append(failing)
    ended = house.run("run", "--once", "--log-format=json")
    assert ended.code != 0
    assert "storage.objects.list" in ended.err
    assert house.tasks() == expected
    house.once()
    house.agrees(expected | {"0004.json": [{"n": 4}]})


def test_status_says_why_a_source_waits_while_others_go_on(
    house: House, front: Front, fakegcs: Service, bucket: str, put: Put
) -> None:
    """A listing that is denied is told with its remedy, for as long as it is."""
    for folder in ("one", "two"):
        put(f"{folder}/a.json", {"text": "a"})
    front.rules.append(lambda request: refused(403, "forbidden") if request.path.endswith("/o") else None)
    denied = {"name": "denied", "project": "p", "url": f"gs://{bucket}/one", "endpoint": front.url, "poll": "200ms"}
    fine = {"name": "inbox", "project": "p", "url": f"gs://{bucket}/two", "endpoint": fakegcs.url, "poll": "200ms"}
    house.configure(sources=[denied, fine])

    def problems() -> dict[str, list[Any]]:
        rows = json.loads(house.look("status", "--json").out)["sources"]
        return {row["name"]: row["problems"] for row in rows}

    with house.continuously():
        until(lambda: house.tasks() == {"a.json": [{"text": "a"}]}, what="the other source")
        until(lambda: problems()["denied"], what="the reason")
        ((told,), others) = problems().values()
        assert (told["part"], told["code"], others) == ("listing", "permission", [])
        assert "storage.objects.list" in told["message"]
        front.rules.clear()
        until(lambda: house.tasks("denied") == {"a.json": [{"text": "a"}]}, what="the source that waited")
        until(lambda: not problems()["denied"], what="the end of its problem")


def test_neither_key_nor_token_is_written_anywhere(house: House, front: Front, bucket: str, put: Put) -> None:
    """Not in logs at the most talkative level, not in the database, not in what commands say; nor when they fail."""
    put("a.json", {"text": "a"})
    key = json.loads(key_file(house.folder / "token", front).read_text())["private_key"]
    front.guarded = True
    house.configure({"url": f"gs://{bucket}?anonymous=false&credentials_file=token", "endpoint": front.url})
    house.once("--log-level=debug")
    front.rules.append(lambda one: refused(401, "authError", one.token or "") if one.path != "/token" else None)
    assert house.run("run", "--once", "--log-level=debug", "--log-format=json").code != 0
    shown = "".join(ended.out + ended.err for ended in (house.look("check"), house.look("status")))
    planted = [key.splitlines()[1], *front.tokens]
    written = left_by(house) | {"shown": shown.encode()}
    told = [(name, one) for name, text in written.items() for one in planted if one.encode() in text]

    assert front.tokens
    assert told == []
    assert house.tasks() == {"a.json": [{"text": "a"}]}
