"""Secrets of a configuration are found nowhere but in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.house import House

SECRET = "planted-5ecret"


def left_by(house: House) -> dict[str, bytes]:
    """All that commands have written, by file, but for the configuration itself."""
    own = {"labelfeed.yaml", "token"}
    return {str(path): path.read_bytes() for path in house.folder.rglob("*") if path.is_file() and path.name not in own}


def test_a_token_is_written_nowhere(house: House) -> None:
    """The server's token is in no log, no answer, no table and no database, at the most talkative level either."""
    house.configure(server={"listen": "127.0.0.1:0", "token": SECRET})
    house.put("a.json", '{"text": "a"}')
    house.put("bad.json", "{")
    with house.continuously("--log-level=debug") as running:
        assert running.get("/metrics", token=SECRET)[0] == 200
        assert SECRET not in running.get("/metrics", token=SECRET)[1] + running.get("/readyz", token=SECRET)[1]
    for verb in (
        ["check"],
        ["status"],
        ["objects"],
        ["explain", "inbox:bad.json"],
        ["tasks"],
        ["plan"],
        ["components"],
    ):
        house.run(*verb)
    house.once(code=1)
    assert [name for name, content in left_by(house).items() if SECRET.encode() in content] == []
    house.agrees({"a.json": [{"text": "a"}]})


@pytest.mark.parametrize(
    ("verb", "wrong"),
    [
        ("check", {"events": f"kafka://user:{SECRET}@127.0.0.1:1/topic"}),
        ("check", {"events": f"nothing://user:{SECRET}@127.0.0.1:1/topic"}),
        ("run --once", {"queue": f"nothing://user:{SECRET}@127.0.0.1:1/0"}),
        ("check", {"database": f"postgresql://user:{SECRET}@127.0.0.1:1/db"}),
        ("check", {"database": f"sqlite://user:{SECRET}@host/db"}),
        ("run", {"server": {"listen": "nowhere", "token": SECRET}}),
        ("check", {"server": {"listen": "127.0.0.1:0", "token": [SECRET]}}),
        ("check", {"server": {"listen": "127.0.0.1:0", "tokn": SECRET}}),
        ("check", {"source": {"url": f"nothing://user:{SECRET}@host/x"}}),
        ("check", {"source": {"url": f"https://user:{SECRET}@127.0.0.1:1/x"}}),
        ("run --once", {"source": {"url": f"redis://user:{SECRET}@127.0.0.1:1/0?prefix=a"}}),
        ("run --once", {"source": {"url": f"redis+stream://user:{SECRET}@127.0.0.1:1/0/key"}}),
        ("check", {"source": {"url": f"redis+list://user:{SECRET}@127.0.0.1:1/0"}}),
        ("plan", {"source": {"url": f"rediss+stream://:{SECRET}@127.0.0.1:1/0/key?group=g"}}),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_what_is_wrong_is_told_without_its_secret(house: House, verb: str, wrong: dict[str, Any]) -> None:
    """Whatever is wrong with a URL or a value, the error, the logs and the database do not repeat its secret."""
    house.configure(**wrong)
    ended = house.run(*verb.split())
    assert ended.code in (1, 2), ended.out + ended.err
    assert "Traceback" not in ended.err
    assert [name for name, content in left_by(house).items() if SECRET.encode() in content] == []
