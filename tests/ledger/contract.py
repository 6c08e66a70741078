"""What every ledger promises, as tests. A suite gives the fixture `bench` and inherits from `LedgerContract`."""

from __future__ import annotations

from tests.ledger.contract_events import EventContract, PassContract, SourceContract
from tests.ledger.contract_leaders import LeaderContract
from tests.ledger.contract_outages import OutageContract
from tests.ledger.contract_passes import PartialPassContract
from tests.ledger.contract_queues import QueueContract
from tests.ledger.contract_revisions import RevisionContract
from tests.ledger.contract_standings import StandingContract
from tests.ledger.contract_tasks import KeepContract, ReplaceContract, ReportContract
from tests.ledger.contract_throttle import ThrottleContract
from tests.ledger.contract_work import ClaimContract, LeaseContract, OutcomeContract, StageContract

CONTRACTS = (
    EventContract, SourceContract, PassContract, ClaimContract, LeaseContract, OutcomeContract, StageContract,
    ReplaceContract, RevisionContract, KeepContract, ReportContract, LeaderContract, StandingContract, QueueContract,
    ThrottleContract, PartialPassContract, OutageContract,
)  # fmt: skip
"""Each becomes a test class of each database."""


def suites(name: str) -> dict[str, type]:
    """A test class for each contract, for a module whose `bench` is this database."""
    return {
        f"Test{name}{each.__name__.removesuffix('Contract')}": type(f"Test{name}{each.__name__}", (each,), {})
        for each in CONTRACTS
    }
