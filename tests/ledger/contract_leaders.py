"""What every ledger promises of leaders: who lists and watches a source."""

from __future__ import annotations

from tests.ledger.bench import Bench


class LeaderContract:
    def test_one_leads(self, bench: Bench) -> None:
        """While one leads a source nobody else does; other sources are free."""
        other = bench.another()
        assert bench.ledger.lead(1, "a", 60.0)
        assert not other.lead(1, "b", 60.0)
        assert bench.ledger.lead(1, "a", 60.0)
        assert other.lead(2, "b", 60.0)

    def test_lead_ends(self, bench: Bench) -> None:
        """A lead that was not renewed is another's."""
        assert bench.ledger.lead(1, "a", -1.0)
        assert bench.ledger.lead(1, "b", 60.0)
        assert not bench.ledger.lead(1, "a", 60.0)

    def test_lead_is_yielded(self, bench: Bench) -> None:
        """A lead that is given up is free at once, and only its holder can give it up."""
        assert bench.ledger.lead(1, "a", 60.0)
        bench.ledger.yield_lead(1, "b")
        assert not bench.ledger.lead(1, "b", 60.0)
        bench.ledger.yield_lead(1, "a")
        assert bench.ledger.lead(1, "b", 60.0)
