"""One trace id joins the logs of all roles, the ledger and `explain`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline import cli
from pipeline.bus.kafka.codec import decode_message
from pipeline.events import trace_of
from pipeline.notifications import Target
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


@pytest.mark.parametrize("parent", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None])
def test_a_store_s_own_message(parent: str | None) -> None:
    """A trace that came in the headers of a store's own message goes on; where none came, one begins."""
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k", "eTag": "e"}}}
    headers = [("traceparent", parent.encode())] if parent else []
    found = decode_message(json.dumps({"Records": [record]}).encode(), headers, lambda _, key: [Target("inbox", key)])

    assert isinstance(found, list)
    (event,) = found
    assert trace_of(event.traceparent)
    assert parent in (None, event.traceparent)


def test_no_trace() -> None:
    """What is no traceparent, or has an id of zeros, gives no trace."""
    assert trace_of("00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    assert trace_of("0af7651916cd43dd8448eb211c80319c") is None
    assert trace_of(None) is None
