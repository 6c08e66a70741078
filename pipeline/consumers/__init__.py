"""What consumes the event log and the work queue: the dispatcher records events, the scheduler claims objects,
the workers import them.
"""

from __future__ import annotations

from typing import Protocol

from pipeline.config import Source
from pipeline.parsers import Rules
from pipeline.stores import Store


class Feed(Protocol):
    """One source, ready to be read: its configuration, its store, its rules, and a hash of what shapes its tasks."""

    @property
    def source(self) -> Source:
        """Its part of the configuration."""

    @property
    def store(self) -> Store:
        """Where its objects are."""

    @property
    def rules(self) -> Rules:
        """What its objects become."""

    @property
    def shape(self) -> str:
        """A hash of all that decides what they become."""
