"""Deliveries in any state, as the scheduler sees them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pipeline.ledger.deliveries import DeliveryLoad

TIMES = st.floats(min_value=0, max_value=1_000)


def loads(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[DeliveryLoad]:
    """One delivery, `p/d`; `more` are columns that are left as they are otherwise."""
    return st.builds(
        DeliveryLoad,
        id=st.just(1),
        name=st.just("p/d"),
        granted=st.booleans(),
        paused=st.booleans(),
        due=TIMES,
        ended_at=TIMES,
        batch=st.sampled_from([None, "ready", "filling", "unsure"]),
        look_due=TIMES,
        waiting=st.booleans(),
        changes=st.booleans(),
        last=st.sampled_from([None, "import", "resolve", "change", "count"]),
        **more,
    )
