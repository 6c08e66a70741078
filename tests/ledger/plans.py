"""What PostgreSQL makes of a statement of the ledger's own."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from pipeline.sinks.postgres import database
from tests.ledger.bench import Bench


class Explained(NamedTuple):
    """A plan as text, and the pages that its execution touched."""

    text: str
    buffers: int


def explained(bench: Bench, statement: str, values: Any) -> Explained:
    """Run a statement in a transaction like the ledger's own, and undo it."""

    class Undo(Exception):
        """Nothing is to stay."""

    found: list[Explained] = []

    def job(tx: database.Transaction) -> None:
        ((plan,),) = tx.rows(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
        top = plan[0]["Plan"]
        found.append(Explained(json.dumps(top), top["Shared Hit Blocks"] + top["Shared Read Blocks"]))
        raise Undo

    with pytest.raises(Undo):
        bench.ledger._database.write(job)  # type: ignore[attr-defined]
    return found[0]
