"""What `status` and `deliveries` say that deliveries wait for while no process tells it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.app import App
from pipeline.cli.delivering import told_of
from pipeline.config import Config
from pipeline.config.loading import build
from pipeline.ledger.deliveries import DeliveryIdentity
from tests.ledger.bench import Bench
from tests.ledger.conftest import sqlite_bench

__all__ = ["sqlite_bench"]

TWO = [DeliveryIdentity("cats", name, "jsonl", f"./{name}") for name in "ab"]


@pytest.fixture
def bench(sqlite_bench: Bench) -> Bench:
    """A ledger whose project has two deliveries, and a task for both."""
    sqlite_bench.ledger.deliveries().register(TWO)
    sqlite_bench.imported("k", texts=("x",))
    sqlite_bench.execute("UPDATE deliveries SET backfill = NULL")
    return sqlite_bench


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of that."""
    deliveries = [{"name": one.name, "jsonl": {"url": one.target}} for one in TWO]
    project = {"throttle": {"imports_every": 1000}, "deliveries": deliveries}
    return build({"database": "sqlite:///labelfeed.db", "projects": {"cats": project}, "sources": []}, tmp_path)


def waits(config: Config) -> Mapping[str, str]:
    """What is told of each delivery."""
    with App.open(config, readonly=True) as app:
        return {row["name"]: row["waits"] for row in told_of(app)}


def test_without_a_worker(bench: Bench, config: Config) -> None:
    """Where no worker lives this is what tasks wait for, whoever was granted what before."""
    bench.ledger.beat("w", 1, -1.0)
    assert set(waits(config).values()) == {"no worker is alive"}
    bench.execute("UPDATE deliveries SET until = 1, what = 'import', started = 1")
    assert set(waits(config).values()) == {"no worker is alive"}


def test_without_a_scheduler(bench: Bench, config: Config) -> None:
    """Where nobody grants what may be begun, this is what tasks wait for."""
    bench.ledger.beat("w", 1, 60.0)
    assert set(waits(config).values()) == {"no `labelfeed run` or `labelfeed dispatch` is at work"}


def test_an_import_into_what_is_retired(bench: Bench, config: Config) -> None:
    """A delivery waits for the interval since an import into another one that is in no configuration any more."""
    bench.ledger.beat("w", 1, 60.0)
    bench.ledger.deliveries().register(TWO[1:])
    bench.execute(f"UPDATE deliveries SET ended_at = {bench.ledger.now()} WHERE name = 'a'")
    told = waits(config)
    assert set(told) == {"cats/b"}
    assert told["cats/b"].startswith("throttled: next import in ")
