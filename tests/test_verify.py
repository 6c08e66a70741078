"""The judgement of `verify`: what a store's entry and a ledger's row say together."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Source
from pipeline.ledger import Audit
from pipeline.stores import Entry
from pipeline.verify import judge

HERE = Entry("k", "v1", 10, 0.0)
CHANGED = Entry("k", "v2", 10, 0.0)
WRITING = Entry("k", "v2", 10, 0.0, settled=False)


def row(state: str = "done", **other: Any) -> Audit:
    """A ledger's row: imported as version v1, with two tasks."""
    values: dict[str, Any] = {
        "id": 1, "key": "k", "state": state, "wanted": "v1", "imported": "v1", "live": 2, "counted": 2, "imports": 1,
    }  # fmt: skip
    return Audit(**(values | other))


def failed(state: str = "failed", **other: Any) -> Audit:
    """A row of an object that never gave tasks."""
    return row(state, **({"imported": None, "live": 0, "counted": 0, "imports": 0} | other))


@pytest.mark.parametrize(
    ("entry", "audit", "options", "expected"),
    [
        (HERE, row(), {}, "good"),
        (HERE, None, {}, "missing"),
        (WRITING, None, {}, "waiting"),
        (HERE, row("ready"), {}, "waiting"),
        (HERE, row("claimed"), {}, "waiting"),
        (None, row("ready"), {}, "waiting"),
        (WRITING, row(), {}, "waiting"),
        (CHANGED, row(), {}, "good"),
        (CHANGED, row(), {"on_change": "replace"}, "stale"),
        (CHANGED, row(), {"on_change": "append"}, "stale"),
        (HERE, row(live=3), {}, "doubled"),
        (HERE, row(imports=2, live=4, counted=4), {}, "doubled"),
        (HERE, row(live=1), {}, "missing"),
        (HERE, row(live=0, counted=0), {}, "missing"),
        (HERE, failed(), {}, "good"),
        (HERE, failed("skipped"), {}, "good"),
        (CHANGED, failed(), {}, "stale"),
        (HERE, row("failed", wanted="v1"), {}, "good"),
        (HERE, row("gone"), {}, "stale"),
        (HERE, row("out_of_scope"), {}, "ignored"),
        (None, row(), {}, "orphaned"),
        (None, row("gone"), {}, "good"),
        (None, row("gone"), {"on_delete": "archive"}, "orphaned"),
        (None, row("gone", live=0, counted=0), {"on_delete": "archive"}, "good"),
        (None, row("out_of_scope"), {}, "ignored"),
        (None, failed(), {}, "stale"),
    ],
)
def test_judge(entry: Entry | None, audit: Audit | None, options: dict[str, Any], expected: str) -> None:
    """Each pair of a store's entry and a ledger's row has its verdict, by the source's policies."""
    verdict = judge(entry, audit, Source(name="s", project="p", url=".", **options))

    assert (verdict[0] if isinstance(verdict, tuple) else verdict) == expected
