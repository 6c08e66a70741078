"""One trace id joins the logs of all roles, the ledger and `explain`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline import cli
from tests.faults.installation import Installation, Role, until


def explained(installation: Installation, key: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `labelfeed explain` knows of an object."""
    capsys.readouterr()
    assert cli.run(["explain", "--json", f"bucket:{key}", "--config", str(installation.config)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    return dict(found)


def telling(role: Role, event: str, trace: str) -> list[dict[str, Any]]:
    """A role's lines of an event that name a trace."""
    return [row for row in role.lines(event) if trace in (row.get("trace"), *row.get("traces", ()))]


def test_a_trace_leads_through_all_roles(distributed: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """The trace that `explain` shows is in the lines of the pass, of the dispatcher and of the worker; the lease that
    the last one names is in the scheduler's."""
    watch, dispatch, work = (distributed.start(name) for name in ("watch", "dispatch", "work"))
    (key,) = distributed.put(1)
    distributed.imported()
    trace = explained(distributed, key, capsys)["trace"]
    until(lambda: telling(watch, "pass_finished", trace) or telling(watch, "events_published", trace), what="watch")
    (recorded,) = until(lambda: telling(dispatch, "events_recorded", trace), what="dispatch")
    (committed,) = until(lambda: telling(work, "batch_committed", trace), what="work")
    leases = [row["lease"] for row in dispatch.lines("objects_claimed") if row["source"] == "bucket"]

    assert len(trace) == 32
    assert recorded["new"] == 1
    assert (committed["source"], committed["objects"], committed["done"]) == ("bucket", 1, 1)
    assert committed["lease"] in leases
    assert committed["seconds"] > 0
