"""Redis as a source as people guard it: by TLS, for a user who may do just what the documentation asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from deploy.services import HOST
from tests.e2e.house import House, until
from tests.servers import Tls

pytestmark = pytest.mark.timeout(300)

SECRET = "p@ss:w%rd/of-the-feeder"
USER = "feeder"
KINDS = {"rediss": "values", "rediss+stream": "streams", "rediss+list": "lists"}
"""Schemes, and what the documentation calls what they read."""
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def rights(kind: str) -> list[str]:
    """What the documentation says that a user of this kind of source must be allowed to do."""
    (text,) = re.findall(r"- \*\*Rights\*\* \(ACL\): (.*?)What a\s+user may list", PAGE.read_text(), re.DOTALL)
    of_all = text.partition("all of them")[2]
    (own,) = re.findall(rf"{kind} (.*?)(?:, (?:lists|values)|;\s+all of them)", text, re.DOTALL)
    return re.findall(r"\+[a-z|]+", own) + re.findall(r"\+[a-z|]+", of_all)


@dataclass
class Guarded:
    """A server that feeds by TLS, and the other side, which pushes without."""

    port: int
    certificate: Path
    client: redis.Redis

    def configure(self, house: House, scheme: str) -> None:
        """The house's source, and a user who may do what it needs."""
        keys = ["tasks:*"] if scheme == "rediss" else ["tasks", "tasks:labelfeed*"]
        self.client.acl_setuser(
            USER, enabled=True, reset=True, passwords=[f"+{SECRET}"], keys=keys, commands=rights(KINDS[scheme]),
            channels=["__keyspace@0__:tasks:*"] if scheme == "rediss" else [],
        )  # fmt: skip
        options = f"ca_file={self.certificate}&password_variable=FEEDER_PASSWORD"
        place = "0?prefix=tasks:&" if scheme == "rediss" else "0/tasks?"
        house.configure({"url": f"{scheme}://{USER}@{HOST}:{self.port}/{place}{options}"})

    def push(self, scheme: str, text: str) -> None:
        """A task."""
        task = json.dumps({"text": text})
        if scheme == "rediss":
            self.client.set(f"tasks:{text}.json", task)
        elif scheme == "rediss+stream":
            self.client.xadd("tasks", {"task": task})
        else:
            self.client.rpush("tasks", task)


@pytest.fixture
def guarded(tls_redis: Callable[..., Tls], monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """A server of this test alone; the user's password is in the environment."""
    tls = tls_redis(**{"notify-keyspace-events": "K$hgxe"})
    monkeypatch.setenv("FEEDER_PASSWORD", SECRET)
    with redis.Redis.from_url(tls.server.url) as client:
        yield Guarded(tls.port, tls.certificate, client)


def texts(house: House) -> list[str]:
    """The texts of all tasks, sorted."""
    return sorted(data["text"] for rows in house.tasks().values() for data in rows)


@pytest.mark.parametrize("scheme", list(KINDS))
def test_the_rights_that_are_told_are_enough(house: House, guarded: Guarded, scheme: str) -> None:
    """To check, to run once, and to follow what comes; the server denies nothing, and nobody tells the password."""
    guarded.configure(house, scheme)
    for number in range(5):
        guarded.push(scheme, f"t{number}")
    checked = house.look("check", "--json")
    assert all(row["ok"] for row in checked.json() if row["component"].startswith("source")), checked.out
    once = house.once()
    assert texts(house) == [f"t{number}" for number in range(5)]
    with house.continuously() as running:
        until(lambda: running.says("pass_finished"), what="the first pass")
        guarded.push(scheme, "t5")
        until(lambda: len(texts(house)) == 6, what="what came later")
    assert texts(house) == [f"t{number}" for number in range(6)]
    house.verify()

    # The server's version is asked for, too, and done without.
    denied = [row for row in guarded.client.acl_log() if row["username"] == USER and row["object"] != "info"]
    assert denied == [], denied
    told = [checked.out, checked.err, once.out, once.err, running.err.read_text(), house.look("status").out]
    told += [path.read_bytes().decode(errors="replace") for path in house.folder.glob("*.db*") if path.is_file()]
    assert not any(SECRET in text for text in told)


@pytest.mark.parametrize("scheme", list(KINDS))
def test_who_is_not_let_in_waits(house: House, guarded: Guarded, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, and a certificate that nobody vouches for, end a run with the reason, and fail nothing."""
    guarded.configure(house, scheme)
    guarded.push(scheme, "t")
    monkeypatch.setenv("FEEDER_PASSWORD", "wrong")
    ended = house.once("--json", code=1)
    (row,) = ended.json()
    assert (row["failed"], row["problem"].partition(":")[0]) == (0, "permission")
    monkeypatch.setenv("FEEDER_PASSWORD", SECRET)
    path = house.folder / "labelfeed.yaml"
    path.write_text(path.read_text().replace(f"ca_file={guarded.certificate}&", ""))
    (row,) = house.once("--json", code=1).json()
    assert (row["failed"], row["problem"].partition(":")[0]) == (0, "unavailable")
    guarded.configure(house, scheme)
    house.once()
    assert texts(house) == ["t"]
