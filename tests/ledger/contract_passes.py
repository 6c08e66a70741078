"""What every ledger promises of passes that begin where another ended, and of what keeps a source from working."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.ledger.bench import Bench


class PartialPassContract:
    def shown(self, bench: Bench) -> dict[str, Any]:
        """The first source as the reports show it."""
        return bench.ledger.reports().sources()[0]

    def test_a_pass_that_goes_on_from_another(self, bench: Bench) -> None:
        """It begins after the other's last key, is no whole one, and remembers when the last whole one began."""
        first = bench.ledger.begin_pass(1)
        assert (first.after, first.whole, first.whole_at) == (None, True, None)
        bench.ledger.end_pass(replace(first, after="m", left_out={"exclude": 3}))
        last = bench.ledger.last_pass(1)
        assert last is not None
        assert (last.after, last.whole, last.whole_at) == ("m", True, pytest.approx(first.started))
        assert last.left_out == {"exclude": 3}

        second = bench.ledger.begin_pass(1, last)
        assert (second.after, second.whole, second.whole_at) == ("m", False, pytest.approx(first.started))
        assert bench.ledger.begin_pass(1) == second
        bench.ledger.end_pass(replace(second, after="z"))
        again = bench.ledger.last_pass(1)
        assert again is not None
        assert (again.after, again.whole, again.whole_at) == ("z", False, pytest.approx(first.started))

    def test_a_pass_that_was_stopped_was_no_whole_one(self, bench: Bench) -> None:
        """Nothing was concluded by it, so that the next one is whole."""
        state = bench.ledger.begin_pass(1)
        bench.ledger.end_pass(replace(state, after="m", stopped="it would archive too much"))
        last = bench.ledger.last_pass(1)
        assert last is not None
        assert last.whole_at is None

    def test_only_a_whole_pass_uses_up_what_was_accepted(self, bench: Bench) -> None:
        """Deletions that were accepted wait for a pass that may conclude on them."""
        whole = bench.ledger.begin_pass(1)
        bench.ledger.end_pass(replace(whole, after="m"))
        bench.ledger.accept_deletions(1)
        bench.ledger.end_pass(bench.ledger.begin_pass(1, bench.ledger.last_pass(1)))
        assert bench.ledger.deletions_accepted(1)
        bench.ledger.end_pass(bench.ledger.begin_pass(1))
        assert not bench.ledger.deletions_accepted(1)

    def test_problems(self, bench: Bench) -> None:
        """What keeps a source from working is shown with the time it began, until it works."""
        assert self.shown(bench)["problems"] == []
        bench.ledger.note_problem(1, "listing", ("unavailable", "it does not answer"))
        bench.ledger.note_problem(1, "notifications", ("permission", "it denies us"))
        began = self.shown(bench)["problems"][0]["since"]
        bench.ledger.note_problem(1, "listing", ("throttled", "it asks us to slow down"))

        first, second = self.shown(bench)["problems"]
        assert first == {
            "part": "listing", "code": "throttled", "message": "it asks us to slow down", "since": began,
        }  # fmt: skip
        assert began == pytest.approx(bench.ledger.now(), abs=60)
        assert (second["part"], second["code"]) == ("notifications", "permission")
        assert bench.ledger.reports().sources()[1]["problems"] == []

        bench.ledger.note_problem(1, "listing", None)
        bench.ledger.note_problem(1, "listing", None)
        assert [row["part"] for row in self.shown(bench)["problems"]] == ["notifications"]
