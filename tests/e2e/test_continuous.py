"""`labelfeed run`: continuous work, what it says of itself, and its end."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.e2e.house import House, until

SOON = 10.0
"""Seconds within which a change has to be tasks; it takes far fewer."""
SLOW = """
import time
from pathlib import Path
from pipeline.tasks import Parsed, Task

def parse(body, rules):
    for n in range(1000):
        yield Parsed([Task(n + 1, '{"n": %d}' % n)], [])
        if not Path("quick").exists():
            time.sleep(0.05)
"""
"""A parser whose file takes 50 seconds, unless there is a file `quick` where the command was started."""


def sample(text: str, name: str, **labels: str) -> float:
    """A value out of the text of /metrics; 0 where it is not there."""
    pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    found = re.search(rf"^{re.escape(name)}{re.escape('{' + pairs + '}') if pairs else ''} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_new_file_becomes_tasks_at_once(house: House) -> None:
    """A file that lands while the command runs is tasks within seconds, though the next pass is an hour away."""
    house.configure({"poll": "1h"})
    with house.continuously() as running:
        until(lambda: running.says("pass_finished"), what="the first pass")
        house.put("new/deep.json", '{"text": "b"}')
        until(house.tasks, SOON)
    house.agrees({"new/deep.json": [{"text": "b"}]})


def test_passes_alone_find_everything(house: House) -> None:
    """With `watch: false` the passes bring what is new."""
    house.configure({"watch": False})
    with house.continuously() as running:
        until(lambda: running.says("pass_finished"), what="the first pass")
        house.put("new.json", '{"text": "b"}')
        until(house.tasks, SOON)
    house.agrees({"new.json": [{"text": "b"}]})


@pytest.mark.parametrize(
    ("on_change", "after"),
    [
        ("ignore", [{"text": "old"}]),
        ("replace", [{"text": "new"}]),
        ("append", [{"text": "old"}, {"text": "new"}]),
    ],
)
def test_a_changed_file_follows_the_policy(house: House, on_change: str, after: list[object]) -> None:
    """Another content of an imported file is counted, takes its tasks' place, or is added, as `on_change` says."""
    house.configure({"on_change": on_change})
    house.put("a.json", '{"text": "old"}')
    with house.continuously():
        until(house.tasks)
        house.put("a.json", '{"text": "new"}')
        seen = "SELECT 1 FROM objects WHERE changes > 0 OR tasks = 2 UNION SELECT 1 FROM tasks WHERE data LIKE '%new%'"
        until(lambda: house.rows(seen), SOON)
    house.agrees({"a.json": after})


@pytest.mark.parametrize(("on_delete", "after"), [("keep", {"a.json": [{"text": "a"}]}), ("archive", {})])
def test_a_deleted_file_follows_the_policy(house: House, on_delete: str, after: dict[str, list[object]]) -> None:
    """The tasks of a deleted file stay, or go out of sight and come back with the file, as `on_delete` says."""
    house.configure({"on_delete": on_delete, "delete_guard": 1})
    path = house.put("a.json", '{"text": "a"}')
    with house.continuously():
        until(house.tasks)
        away = path.rename(house.folder / "a.json")
        until(lambda: house.states() == {"a.json": "gone: gone"}, SOON)
        assert house.tasks() == after
        if on_delete == "archive":
            away.rename(path)
            until(house.tasks, SOON)
            after = {"a.json": [{"text": "a"}]}
    house.agrees(after)


def test_many_deletions_wait_for_a_person(house: House) -> None:
    """A pass that would archive too much stops and asks; `sources accept NAME --deletions` lets a running one go on."""
    house.configure({"on_delete": "archive", "watch": False})
    expected = house.put_tasks(10)
    with house.continuously() as running:
        until(lambda: house.tasks() == expected)
        for key in list(expected)[:5]:
            (house.inbox / key).unlink()
            del expected[key]
        (stopped, *_) = until(lambda: running.says("pass_stopped"))
        assert "sources accept inbox --deletions" in stopped["why"]
        assert len(house.tasks()) == 10
        assert "sources accept inbox --deletions" in house.look("status", "--json").out
        assert house.run("sources", "accept", "inbox", "--deletions").code == 0
        until(lambda: len(house.tasks()) == 5, SOON)
    house.agrees(expected)


def test_accepted_deletions_are_for_one_pass(house: House) -> None:
    """What was accepted lets the next run archive what is gone then, and asks again for the one after it."""
    house.configure({"on_delete": "archive"})
    expected = house.put_tasks(8)
    house.once()
    for key in list(expected)[:4]:
        (house.inbox / key).unlink()
        del expected[key]
    house.run("sources", "accept", "inbox", "--deletions")
    house.once()
    assert house.tasks() == expected
    away = [(house.inbox / key).rename(house.folder / key) for key in list(expected)[:2]]
    assert "pass_stopped" in house.once().err
    assert house.tasks() == expected
    for path in away:
        path.rename(house.inbox / path.name)
    house.agrees(expected)


def test_it_says_how_it_does(house: House) -> None:
    """/healthz, /readyz and /metrics answer on loopback, and the metrics move with the work."""
    expected = house.put_tasks(5)
    house.put("bad.json", "{")
    with house.continuously() as running:
        until(lambda: house.states().get("bad.json") == "failed: syntax" and len(house.tasks()) == 5)
        assert running.get("/healthz")[0] == 200
        status, body = until(lambda: (answer := running.get("/readyz"))[0] == 200 and answer)
        assert all(why is None for why in json.loads(body).values())
        status, text = running.get("/metrics")
        assert status == 200
        assert sample(text, "labelfeed_written_tasks_total", source="inbox") == 5
        assert sample(text, "labelfeed_imported_objects_total", source="inbox", state="failed") == 1
        assert sample(text, "labelfeed_listed_objects_total", source="inbox") >= 6
        assert running.get("/nothing")[0] == 404
    house.agrees(expected)


def test_a_token_guards_all_but_health(house: House) -> None:
    """With `server.token` only who bears it sees metrics and readiness; /healthz is for everybody."""
    (house.folder / "token").write_text("planted-token\n")
    house.configure(server={"listen": "127.0.0.1:0", "token_file": "token"})
    with house.continuously() as running:
        assert running.get("/healthz")[0] == 200
        assert running.get("/metrics")[0] == running.get("/readyz", token="wrong")[0] == 401
        assert running.get("/metrics", token="planted-token")[0] == 200
    assert "planted-token" not in running.err.read_text()
    house.agrees({})


def test_a_missing_root_is_told_and_waited_for(house: House) -> None:
    """While its folder is not there a source is not ready, and says why; it goes on when the folder comes."""
    away = house.inbox.rename(house.folder / "away")
    with house.continuously() as running:
        body = until(lambda: (answer := running.get("/readyz"))[0] == 503 and answer[1])
        assert "inbox" in body
        house.put("a.json", '{"text": "a"}', within=away)
        away.rename(house.inbox)
        until(house.tasks, SOON * 3)
        until(lambda: running.get("/readyz")[0] == 200)
    house.agrees({"a.json": [{"text": "a"}]})


def test_sigterm_drains_within_its_time(house: House) -> None:
    """What runs too long for `shutdown_timeout` is given back uncounted; the command exits 0 within that time.
    What came before it in its claim is tasks long before."""
    house.configure(shutdown_timeout="3s")
    house.plug_in("slow", SLOW)
    house.put("z.slow", "x")
    expected = house.put_tasks(5)
    running = house.start("run", "--log-format=json")
    until(lambda: len(house.tasks()) == 5 and house.rows("SELECT 1 FROM leases WHERE started_at IS NOT NULL"))
    running.signal(signal.SIGTERM)
    asked = time.monotonic()
    assert running.end().code == 0
    assert time.monotonic() - asked < 3 + 2
    assert house.rows("SELECT state, attempts, lost FROM objects WHERE key = 'z.slow'") == [("ready", 0, 0)]
    (house.folder / "quick").touch()
    house.once()
    house.agrees(expected | {"z.slow": [{"n": n} for n in range(1000)]})


def test_a_second_sigterm_ends_it_at_once(house: House) -> None:
    """Who asks twice waits no longer: the process is gone, and its work is done again by the next run."""
    house.configure(shutdown_timeout="60s")
    house.plug_in("slow", SLOW)
    house.put("a.slow", "x")
    running = house.start("run", "--log-format=json")
    until(lambda: house.rows("SELECT 1 FROM leases WHERE started_at IS NOT NULL"))
    running.signal(signal.SIGTERM)
    until(lambda: running.says("stopping"))
    running.signal(signal.SIGTERM)
    assert running.end(10).code == 1
    (house.folder / "quick").touch()
    house.once()
    house.agrees({"a.slow": [{"n": n} for n in range(1000)]})


def test_two_continuous_runs_share_one_database(house: House) -> None:
    """Two processes on one database import each object once, and when one is killed the other goes on."""
    house.configure({"on_change": "replace"})
    expected = house.put_tasks(50, "a")
    first = house.start("run", "--log-format=json")
    with house.continuously():
        until(lambda: len(house.tasks()) == 50)
        first.signal(signal.SIGKILL)
        first.end()
        expected |= house.put_tasks(50, "b")
        until(lambda: len(house.tasks()) == 100)
    house.agrees(expected)
