"""A source says how many bad rows a file may have: as a number or as a share of its rows."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.ledger import STAGE_ROWS, Filter
from tests.consumers.house import House, inbox

GOOD, BAD = '{"text": "x"}\n', "{nope\n"


def imported(make_house: Any, content: str, **options: Any) -> tuple[str, str | None, int, House]:
    """One file's state, its code and its tasks."""
    house = make_house(inbox(**options))
    house.put("a.jsonl", content)
    house.bring_in("a.jsonl")
    row = house.rows()["a.jsonl"]
    return row["state"], (row["reason"] or {}).get("code"), len(house.tasks()), house


def test_as_many_as_allowed(make_house: Any) -> None:
    """A file with just as many bad rows as its source allows is imported, and they are kept aside."""
    state, code, tasks, house = imported(make_house, GOOD * 3 + BAD * 2, max_bad_rows=2)
    assert (state, code, tasks) == ("done", None, 3)
    assert house.rows()["a.jsonl"]["rejected"] == 2


def test_one_too_many(make_house: Any) -> None:
    """With one more the whole file fails, nothing of it is imported, and the rows that were rejected are shown."""
    state, code, tasks, house = imported(make_house, GOOD * 3 + BAD * 3, max_bad_rows=2)
    reason = house.rows()["a.jsonl"]["reason"]
    assert (state, code, tasks) == ("failed", "too_many_bad_rows", 0)
    assert "max_bad_rows is 2" in reason["message"]
    assert reason["line"] == 4
    assert len(house.ledger.reports().rejected(Filter(), (0, 0, -1), 10)) == 3


def test_none_allowed(make_house: Any) -> None:
    """`max_bad_rows: 0` fails a file by its first bad row."""
    assert imported(make_house, GOOD + BAD, max_bad_rows=0)[:3] == ("failed", "too_many_bad_rows", 0)


def test_a_number_is_looked_at_at_once(make_house: Any) -> None:
    """A file is not read to its end once it has had too many bad rows."""
    content = BAD * 5 + GOOD * 200_000
    _, _, _, house = imported(make_house, content, max_bad_rows=3)
    assert house.rows()["a.jsonl"]["rejected"] < 1000


@pytest.mark.parametrize(("share", "state"), [("20%", "done"), ("19%", "failed"), (0.2, "done"), ("100%", "done")])
def test_share(make_house: Any, share: Any, state: str) -> None:
    """A share is one of all rows that were read, tasks and bad ones, and it holds when all have been read."""
    assert imported(make_house, BAD * 2 + GOOD * 8, max_bad_rows=share)[0] == state


def test_share_of_a_large_file(make_house: Any) -> None:
    """What was written of a large file before its end leaves nothing behind when the share was too large."""
    state, code, tasks, house = imported(make_house, (GOOD * 9 + BAD) * (STAGE_ROWS // 4), max_bad_rows="5%")
    assert (state, code, tasks) == ("failed", "too_many_bad_rows", 0)
    assert house.ledger.reports().sources()[0]["tasks"] == 0


def test_no_task_at_all(make_house: Any) -> None:
    """A file of bad rows alone fails by the code of the first one, whatever the share."""
    assert imported(make_house, BAD * 3, max_bad_rows="10%")[:2] == ("failed", "syntax")


@pytest.mark.parametrize("value", [-1, "101%", "many", "5 %%", True, 1.5, "-5%"])
def test_nonsense_is_refused(value: Any) -> None:
    """What is neither a number of rows nor a share is an error of the configuration."""
    with pytest.raises(ValidationError):
        inbox(max_bad_rows=value)
