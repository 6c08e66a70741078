"""JSON text sequences: what is wrong with one document is its own affair."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parsers import Limits
from tests.parsers.reading import read, rules

SIZES = (None, [1], [7, 3])


def sequence(*documents: bytes | str) -> bytes:
    """Documents, each behind a separator."""
    parts = [one.encode() if isinstance(one, str) else one for one in documents]
    return b"".join(b"\x1e" + part + b"\n" for part in parts)


@pytest.mark.parametrize("sizes", SIZES)
def test_every_document_is_a_task(sizes: list[int] | None) -> None:
    """Documents become tasks in their order, flat or with `data`, pretty-printed or not."""
    content = sequence('{"text":"a"}', '{"data":{"text":"b"},"id":7}', '{\n "text": "c"\n}')
    found = read("s.json", content, sizes=sizes)

    assert [(task.row, task.external_id) for task in found.tasks] == [(1, None), (2, "7"), (3, None)]
    assert found.data == [{"text": "a"}, {"text": "b"}, {"text": "c"}]


BAD = {
    b'{"text":': "syntax",
    b"": "syntax",
    b"[1]": "not_an_object",
    b'{"a":1} {"b":2}': "syntax",
    b'{"a":"\xff"}': "syntax",
    b'{"a":1e999}': "number",
    b'{"a":NaN}': "number",
    b'{"a":"\\u0000"}': "nul",
    b'{"a":"\\ud800"}': "surrogate",
    b"{}": "empty_task",
    b'"' + b"x" * 10: "syntax",
    b'{"a":' * 2000: "too_deep",
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad[:16]))
def test_a_bad_document_is_one_row(bad: bytes, sizes: list[int] | None) -> None:
    """Whatever a document holds, those before and after it are tasks, and it alone is rejected."""
    found = read("s.json", sequence('{"text":"a"}', bad, '{"text":"b"}', bad, '{"c":"d"}'), sizes=sizes)

    assert [task.row for task in found.tasks] == [1, 3, 5]
    assert [(row.row, row.code, row.line) for row in found.rejected] == [(2, BAD[bad], None), (4, BAD[bad], None)]
    assert all(row.message for row in found.rejected)


def test_what_is_unfinished_is_not_finished_by_the_next() -> None:
    """Halves of a document do not become one task."""
    found = read("s.json", sequence('{"a":', '{"b":1}', "}"))

    assert found.data == [{"b": 1}]
    assert [row.row for row in found.rejected] == [1, 3]


def test_large_numbers_are_exact() -> None:
    """An integer beyond 64 bits keeps its digits."""
    found = read("s.json", sequence('{"n":123456789012345678901234567890}', '{"n":1}'))

    assert found.data == [{"n": 123456789012345678901234567890}, {"n": 1}]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_document_that_is_too_large_is_skipped(sizes: list[int] | None) -> None:
    """A document beyond the limit is rejected without being held, and the next one goes on."""
    large = json.dumps({"text": "x" * 200})
    found = read("s.json", sequence('{"a":1}', large, '{"b":2}'), rules(limits=Limits(item_bytes=64)), sizes=sizes)

    assert found.data == [{"a": 1}, {"b": 2}]
    assert [(row.row, row.code) for row in found.rejected] == [(2, "too_large")]


def test_keys_are_held_against_the_configuration() -> None:
    """A task that lacks what the configuration asks for is rejected by itself."""
    given_rules = rules('<View><Text name="t" value="$text"/></View>')
    found = read("s.json", sequence('{"text":"a"}', '{"other":"b"}'), given_rules)

    assert found.data == [{"text": "a"}]
    assert found.codes == ["missing_key"]


@given(st.lists(st.binary(max_size=30).filter(lambda part: b"\x1e" not in part), min_size=1, max_size=8))
def test_any_bytes(parts: list[bytes]) -> None:
    """Each document gives one task or one rejected row, whatever its bytes."""
    found = read("s.json", b"".join(b"\x1e" + part for part in parts))

    assert sorted([task.row for task in found.tasks] + [row.row for row in found.rejected]) == list(
        range(1, len(parts) + 1)
    )
