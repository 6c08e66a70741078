"""Settings that mix embedded and served parts."""

from __future__ import annotations

from tests.faults.installation import Installation


def test_sqlite_and_kafka(mixed: Installation) -> None:
    """Two runs on one SQLite file share a topic of Kafka; one is killed, and everything is imported once."""
    first = mixed.start("run")
    mixed.start("run")
    mixed.put(100)
    mixed.imported()
    first.kill()
    mixed.put(100)
    mixed.imported(seconds=30)
    mixed.exactly_once()
