"""Who reads when: small files are read by one claim at a time, and nobody waits long for that."""

from __future__ import annotations

import threading

import pytest

from pipeline.stores.turn import Turn


def test_one_claim_has_the_floor_at_a_time() -> None:
    """Who comes second gets it when the first has left, by its end or because what comes now takes long."""
    floor = threading.Lock()
    first, second = Turn(floor), Turn(floor)
    with first:
        assert floor.locked()
        first.leave()
        assert not floor.locked()
        with second:
            first.leave()
            assert floor.locked(), "it is the second's by now"
    assert not floor.locked()


def test_nobody_waits_long_for_the_floor() -> None:
    """Where the one who has it is slow, the next one reads beside it, and leaves it what it has."""
    floor = threading.Lock()
    slow, waiting = Turn(floor), Turn(floor)
    with slow:
        with waiting:
            pass
        assert floor.locked()


def test_an_error_leaves_the_floor() -> None:
    """A claim that ends by an error holds up nobody."""
    floor = threading.Lock()
    with pytest.raises(KeyError), Turn(floor):
        {}["nothing"]
    assert not floor.locked()


def test_a_claim_that_needs_no_turn_takes_none() -> None:
    """Where objects are read ahead by many threads, claims read beside each other."""
    with Turn(None) as turn:
        turn.leave()
