"""Redis as a source, from the server to the tasks: streams, lists, strings and hashes, and their bad days."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from deploy import services
from deploy.services import Service
from tests.e2e.house import House, Running, until


class Side:
    """The other side: a server, a key that is the test's own, and what was pushed to it."""

    def __init__(self, server: Service, key: str) -> None:
        self.server = server
        self.key = key
        self.client = redis.Redis.from_url(server.url)
        self.pushed: list[str] = []

    def url(self, kind: str, options: str = "") -> str:
        """The URL of a source."""
        return f"{kind}://127.0.0.1:{self.server.port}/0/{self.key}{options}"

    def add(self, count: int, prefix: str = "t") -> None:
        """XADD so many tasks."""
        with self.client.pipeline(transaction=False) as pipeline:
            for text in self._texts(count, prefix):
                pipeline.xadd(self.key, {"task": json.dumps({"data": {"text": text}})})
            pipeline.execute()

    def push(self, count: int, prefix: str = "t") -> None:
        """RPUSH so many tasks."""
        self.client.rpush(self.key, *[json.dumps({"text": text}) for text in self._texts(count, prefix)])

    def _texts(self, count: int, prefix: str) -> Sequence[str]:
        texts = [f"{prefix} {len(self.pushed) + number}" for number in range(count)]
        self.pushed += texts
        return texts


@pytest.fixture
def side(redis_server: Service, unique: str) -> Iterator[Side]:
    """The server that tests share, and a key of this test alone."""
    made = Side(redis_server, unique)
    yield made
    for key in made.client.scan_iter(match=f"{unique}*", count=10_000):
        made.client.delete(key)
    made.client.close()


@pytest.fixture
def own(own_redis: Callable[..., Service]) -> Iterator[Side]:
    """A server of this test alone, which it may empty, stop and kill."""
    made = Side(own_redis(**{"notify-keyspace-events": "KA"}), "tasks")
    yield made
    made.client.close()


def texts(house: House) -> Counter[str]:
    """The texts of all tasks."""
    return Counter(data["text"] for rows in house.tasks().values() for data in rows)


def arrived(house: House, side: Side) -> None:
    """Wait until all that was pushed is a task, once, and `verify` agrees."""
    until(lambda: sum(texts(house).values()) >= len(side.pushed), what=f"all {len(side.pushed)} tasks")
    until(lambda: house.look("verify").code == 0, what=house.look("verify").out)
    assert texts(house) == Counter(side.pushed)


def status(house: House) -> dict[str, Any]:
    """What `status` says of the inbox."""
    (row,) = [row for row in house.look("status", "--json").json()["sources"] if row["name"] == "inbox"]
    return dict(row)


# --- streams ------------------------------------------------------------------------------------------------


def test_a_stream_is_imported_once(house: House, side: Side) -> None:
    """`run --once` imports what is in the stream, a second run nothing, a third one what has come since."""
    house.configure({"url": side.url("redis+stream", "?group=feed&batch=100")})
    side.add(250)
    house.once()
    assert texts(house) == Counter(side.pushed)
    assert sorted(map(len, house.tasks().values())) == [64, 86, 100]
    house.verify()
    assert side.client.xinfo_groups(side.key)[0]["lag"] == 0  # type: ignore[index]  # not awaited

    house.once()
    side.add(5, "more")
    house.once()
    assert texts(house) == Counter(side.pushed)
    assert side.client.xlen(side.key) == 255


def test_bad_entries_are_rows_of_the_ledger(house: House, side: Side) -> None:
    """A bad entry is a rejected row with its reason, and blocks nothing: not even where there is nothing else."""
    house.configure({"url": side.url("redis+stream")})
    for _ in range(30):
        side.client.xadd(side.key, {"task": '{"broken":'})
        side.client.xadd(side.key, {"text": b"\xff"})
    house.once()
    side.add(3)
    side.client.xadd(side.key, {"task": "[]"})
    house.once()

    assert texts(house) == Counter(side.pushed)
    assert set(house.states().values()) == {"done"}
    rejected = house.rows("SELECT row, code, message FROM rejected ORDER BY key, row")
    assert len(rejected) == 61
    assert rejected[0] == (1, "syntax", rejected[0][2])
    assert "UTF-8" in rejected[1][2]
    assert rejected[-1][:2] == (4, "not_an_object")
    assert status(house)["rejected"] == 61
    house.verify()


def test_plan_and_explain_of_a_stream(house: House, side: Side) -> None:
    """`plan` shows what a run would take and takes nothing, `verify` that it waits, `explain` a range and its rows."""
    house.configure({"url": side.url("redis+stream", "?batch=10")})
    side.add(25)
    (planned,) = house.look("plan", "--json").json()
    assert (planned["new"], planned["deleted"], planned["problems"]) == (3, 0, [])
    assert 20 <= planned["tasks"] <= 30
    assert [data["text"] for data in planned["first_tasks"]] == side.pushed[:3]
    assert house.tasks() == {}
    house.once()
    side.add(1)
    assert house.verify(code=1)["sources"][0]["waiting"] == 1

    key = next(iter(house.tasks()))
    found = house.explain(key)
    assert (found["state"], len(found["first_tasks"]) > 0) == ("done", True)
    uri = f"{side.url('redis+stream')}/{key}"
    assert house.look("explain", "--json", uri).json()[0]["key"] == key


def test_import_by_hand(house: House, side: Side) -> None:
    """`labelfeed import redis+stream://…` takes what is there; again, what has come since; of values what is new."""
    side.add(10)
    for more in (0, 3):
        side.add(more)
        ended = house.run("import", side.url("redis+stream"), "--project", "p")
        assert ended.code == 0, ended.err
    side.client.set(f"{side.key}:one", '{"text":"value"}')
    side.pushed.append("value")
    place = f"redis://127.0.0.1:{side.server.port}/0?prefix={side.key}:"
    for _ in range(2):
        assert house.run("import", place, "--project", "p").code == 0
    found = house.rows("SELECT data FROM tasks")
    assert Counter(json.loads(data)["text"] for (data,) in found) == Counter(side.pushed)


def test_a_stream_is_followed(house: House, side: Side) -> None:
    """`labelfeed run` imports what is added as it is added, and trims the stream behind it."""
    house.configure({"url": side.url("redis+stream", "?trim=yes&group=feed"), "poll": "1h"})
    side.add(10)
    with house.continuously() as running:
        arrived(house, side)
        for _ in range(5):
            side.add(20)
            arrived(house, side)
        until(lambda: side.client.xlen(side.key) == 0, what="trimming")
        assert running.get("/readyz")[0] == 200
    assert side.client.xinfo_groups(side.key)[0]["lag"] == 0  # type: ignore[index]  # not awaited


POINTS = ("watcher.taken", "watcher.recorded", "worker.started", "worker.parsing", "worker.before_commit",
          "worker.committed")  # fmt: skip


@pytest.mark.parametrize("kind", ["redis+stream", "redis+list"])
def test_kills_while_a_queue_is_followed(house: House, side: Side, kind: str) -> None:
    """Whatever a process was at when it was killed, each entry is a task once, and none is left on the server."""
    options = "?batch=40&trim=yes" if kind == "redis+stream" else "?batch=40"
    house.configure({"url": side.url(kind, options)}, limits={"lease": "2s"})
    push = side.add if kind == "redis+stream" else side.push
    for point in POINTS:
        push(90, point)
        killed = house.start("run", "--log-format=json", fault=point)
        assert killed.end().code == -signal.SIGKILL
    with house.continuously():
        arrived(house, side)
        until(lambda: not side.client.exists(side.key) or not side.client.xlen(side.key), what="an empty queue")
        until(lambda: side.client.keys(f"{side.key}:*") == [], what="an empty server")


def test_two_processes_and_a_kill_on_postgresql(house: House, side: Side, database_url: str, redis_url: str) -> None:
    """Two processes follow one stream into PostgreSQL; the one that leads it is killed; nothing is lost or doubled."""
    house.configure(
        {"url": side.url("redis+stream", "?batch=50")}, database=database_url, queue=redis_url, limits={"lease": "2s"}
    )

    def found() -> Counter[str]:
        ended = house.look("tasks")
        return Counter(json.loads(line)["data"]["text"] for line in ended.out.splitlines())

    first = house.start("run", "--log-format=json", fault="watcher.recorded:3")
    first.await_start()
    second = house.start("run", "--log-format=json")
    second.await_start()
    for _ in range(6):
        side.add(100)
        until(lambda: not side.pushed or sum(found().values()) or first.process.poll() is not None, what="a beginning")
    until(lambda: first.process.poll() is not None, what="the kill")
    until(lambda: sum(found().values()) >= len(side.pushed), what="all that was pushed")
    until(lambda: house.look("verify").code == 0, what="the end")
    assert found() == Counter(side.pushed)


# --- lists ----------------------------------------------------------------------------------------------------


def test_a_list_is_imported_once(house: House, side: Side) -> None:
    """`run --once` takes all items of a list, equal ones too, and leaves nothing of them on the server."""
    house.configure({"url": side.url("redis+list", "?batch=100")})
    side.push(250)
    side.client.rpush(side.key, "no task", json.dumps({"text": side.pushed[0]}))
    side.pushed.append(side.pushed[0])
    (planned,) = house.look("plan", "--json").json()
    assert (planned["new"], side.client.llen(side.key)) == (3, 252)
    assert house.verify(code=1)["sources"][0]["waiting"] == 3
    house.once()

    assert texts(house) == Counter(side.pushed)
    assert [code for (code,) in house.rows("SELECT code FROM rejected")] == ["syntax"]
    assert side.client.keys(f"{side.key}*") == []
    house.verify()


# --- strings and hashes -----------------------------------------------------------------------------------------


def test_values_are_imported(house: House, own: Side) -> None:
    """JSON objects, lists and lines, and hashes, become tasks; other types are skipped; a second run does nothing."""
    house.configure({"url": f"redis://127.0.0.1:{own.server.port}/0?prefix=in:"})
    own.client.set("in:one", '{"text":"a"}')
    own.client.set("in:list", '[{"text":"b"},{"text":"c"}]')
    own.client.set("in:lines.jsonl", '{"text":"d"}\n{"text":"e"}\n')
    own.client.hset("in:hash", mapping={"text": "f"})
    own.client.sadd("in:set", "x")
    own.client.set("in:bad", "{")
    own.client.set("out:one", '{"text":"no"}')
    house.once(code=1)

    assert texts(house) == Counter("abcdef")
    states = house.states()
    assert (states["set"], states["bad"]) == ("skipped: unsupported_format", "failed: syntax")
    house.verify()
    (planned,) = house.look("plan", "--json").json()
    assert (planned["new"], planned["changed"], planned["deleted"], planned["unchanged"]) == (0, 0, 0, 6)
    own.client.delete("in:one")
    assert house.look("plan", "--json").json()[0]["deleted"] == 1
    uri = f"redis://127.0.0.1:{own.server.port}/0/in:hash"
    assert house.look("explain", "--json", uri).json()[0]["state"] == "done"


def test_values_are_noticed(house: House, own: Side) -> None:
    """With notifications a change is a task at once, whatever the passes do; so are deletions and overwriting."""
    url = f"redis://127.0.0.1:{own.server.port}/0?prefix=in:"
    house.configure({"url": url, "poll": "1h", "on_change": "replace", "on_delete": "archive"})
    with house.continuously() as running:
        until(lambda: running.says("pass_finished"), what="a pass")
        own.client.set("in:a", '{"text":"a"}')
        own.client.hset("in:b", "text", "b")
        until(lambda: texts(house) == Counter("ab"), what="two tasks")
        own.client.set("in:a", '{"text":"A"}')
        until(lambda: texts(house) == Counter("Ab"), what="another version")
        own.client.delete("in:b")
        until(lambda: texts(house) == Counter("A"), what="a deletion")


def test_kills_while_values_are_noticed(house: House, own: Side) -> None:
    """Whatever a process was at when it was killed, each value is a task once."""
    house.configure(
        {"url": f"redis://127.0.0.1:{own.server.port}/0?prefix=in:", "poll": "500ms"}, limits={"lease": "2s"}
    )
    put = _set(own)
    for point in ("watcher.published", "dispatcher.recorded", "scheduler.claimed", "worker.before_commit"):
        put(8, point)
        killed = house.start("run", "--log-format=json", fault=point)
        assert killed.end().code == -signal.SIGKILL
    with house.continuously():
        arrived(house, own)


# --- bad days -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redis+stream", "redis+list"])
def test_a_queue_that_is_flushed(house: House, own: Side, kind: str) -> None:
    """FLUSHALL loses what nobody had read: it is told as gone. What was imported stays, and what comes is imported."""
    house.configure({"url": own.url(kind, "?batch=50"), "poll": "300ms"})
    push = own.add if kind == "redis+stream" else own.push
    push(100)
    house.once()
    push(200)
    suspended = house.start("run", "--log-format=json", fault="worker.started:1:STOP")
    until(suspended.suspended, what="a worker at work")
    own.client.flushall()
    lost, own.pushed = own.pushed[100:], own.pushed[:100]
    suspended.process.kill()
    suspended.process.wait()
    with house.continuously():
        until(lambda: "gone: gone" in house.states().values(), what="the loss")
        push(30)
        arrived(house, own)
    assert not set(lost) & {text for text in texts(house) if text not in own.pushed}
    assert house.look("objects", "--state", "gone", "--json").json()[0]["reason"]["message"]


def test_values_that_are_flushed(house: House, own: Side) -> None:
    """After FLUSHALL of values the pass that would archive them all stops and asks."""
    house.configure({"url": f"redis://127.0.0.1:{own.server.port}/0?prefix=in:", "on_delete": "archive"})
    for number in range(20):
        own.client.set(f"in:{number}", json.dumps({"text": str(number)}))
    house.once()
    own.client.flushall()
    ended = house.run("run", "--once")
    assert "sources accept" in ended.out + ended.err
    assert len(texts(house)) == 20


@pytest.mark.parametrize("kind", ["redis+stream", "redis+list", "redis"])
def test_a_server_that_goes_away(house: House, own: Side, kind: str) -> None:
    """While Redis is away the source waits and says so, another one goes on, and afterwards nothing is missing."""
    url = own.url(kind) if kind != "redis" else f"redis://127.0.0.1:{own.server.port}/0?prefix=in:"
    other = {"name": "other", "project": "p", "url": "./inbox", "settle": "0s", "poll": "300ms"}
    inbox = {"name": "inbox", "project": "p", "url": url, "poll": "300ms"}
    house.configure(sources=[inbox, other])
    push = {"redis+stream": own.add, "redis+list": own.push}.get(kind, _set(own))
    with house.continuously() as running:
        push(20)
        until(lambda: texts(house) == Counter(own.pushed), what="the first tasks")
        services.kill(own.server)
        until(lambda: running.get("/readyz")[0] == 503, what="waiting")
        assert "does not answer" in running.get("/readyz")[1]
        house.put("a.json", '{"text":"other"}')
        until(lambda: house.tasks("other"), what="the other source")
        _restarted(own)
        own.pushed = [] if kind != "redis" else own.pushed[:0]
        push(20, "after")
        until(lambda: {text for text in texts(house) if text.startswith("after")} == set(own.pushed), what="the rest")
        until(lambda: running.get("/readyz")[0] == 200, what="readiness")
        until(lambda: not status(house)["problems"], what="an end of all problems")


def _set(own: Side) -> Callable[..., None]:
    def put(count: int, prefix: str = "t") -> None:
        for text in own._texts(count, prefix):
            own.client.set(f"in:{text}", json.dumps({"text": text}))

    return put


def _restarted(own: Side) -> None:
    services.restart(own.server)
    own.client = redis.Redis.from_url(own.server.url)


BAD = {
    "wrong password": ("u:wrong@", "permission: .*refuses our user or password"),
    "no permission": ("u:opensesame@", "permission: .*may not do this"),
    "wrong type": ("", "wrong_type: .*the key holds no stream"),
}


@pytest.mark.parametrize("why", BAD)
def test_what_a_person_must_see_to(house: House, own: Side, why: str) -> None:
    """It ends `run --once` with a sentence, makes `check` fail and /readyz say so, never with a secret in it."""
    user, told = BAD[why]
    own.client.acl_setuser(
        "u", enabled=True, passwords=["+opensesame"], categories=["+@all"], keys=["other"], reset=True
    )
    own.client.set(own.key, "x")
    url = f"redis+stream://{user}127.0.0.1:{own.server.port}/0/{own.key}"
    house.configure({"url": url, "poll": "300ms"})
    ended = house.run("run", "--once")
    assert ended.code != 0
    checked = house.look("check")
    assert checked.code == 1
    running = house.start("run", "--log-format=json")
    running.await_start()
    said = until(lambda: _matches(running, told), what="the reason")
    assert any(re.search(told, f"{one['code']}: {one['message']}") for one in status(house)["problems"])
    for text in (ended.out + ended.err, checked.out + checked.err, said, running.err.read_text()):
        assert "opensesame" not in text
        assert "wrong@" not in text


def _matches(running: Running, told: str) -> str:
    code, body = running.get("/readyz")
    return body if code == 503 and re.search(told, body) else ""
