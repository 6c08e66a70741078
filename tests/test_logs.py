"""Logs: one line for each event, in text or JSON."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO

import orjson
import pytest

from pipeline import logs
from pipeline.errors import UnavailableError

log = logging.getLogger("pipeline.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leaves the process's logging as it was found."""
    root = logging.getLogger()
    handlers, level, own = list(root.handlers), root.level, logging.getLogger(logs.ROOT).level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(logs.ROOT).setLevel(own)


def test_text() -> None:
    """A text line holds time, level, event and fields; values that hold spaces are quoted."""
    stream = StringIO()
    logs.set_up("text", stream=stream)
    log.info(logs.BATCH_COMMITTED, extra={"source": "in box", "tasks": 3, "seconds": 0.12345})

    assert stream.getvalue()[13:] == 'info    batch_committed source="in box" tasks=3 seconds=0.123\n'


def fail() -> None:
    """Fails as a server does that is away."""
    raise UnavailableError("no answer\nat all")


def test_json() -> None:
    """A JSON line holds the same, and an error of ours by its code, without a traceback."""
    stream = StringIO()
    logs.set_up("json", stream=stream)
    try:
        fail()
    except UnavailableError:
        log.warning(logs.WAITING, extra={"role": "work"}, exc_info=True)
    (line,) = stream.getvalue().splitlines()
    document = orjson.loads(line)

    assert (document["event"], document["level"], document["role"]) == ("waiting", "warning", "work")
    assert (document["code"], document["error"]) == ("unavailable", "no answer\nat all")
    assert "traceback" not in document


def test_traceback() -> None:
    """An error that is not one of ours keeps its traceback."""
    stream = StringIO()
    logs.set_up("text", stream=stream)
    try:
        {}["x"]
    except KeyError:
        log.exception(logs.WAITING)

    assert "Traceback" in stream.getvalue()


def test_level_and_twice() -> None:
    """The level holds, and a second set-up replaces the first."""
    first, second = StringIO(), StringIO()
    logs.set_up(stream=first)
    logs.set_up(level="warning", stream=second)
    log.info(logs.STARTED)
    log.warning(logs.STOPPING)

    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_names() -> None:
    """Every event's constant is described, and nothing else is."""
    constants = {value for name, value in vars(logs).items() if name.isupper() and name not in ("ROOT", "NAMES")}

    assert {value for value in constants if isinstance(value, str)} == set(logs.NAMES)
