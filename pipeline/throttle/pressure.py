"""How many commits the database takes at once: additive increase, multiplicative decrease, by how long they take.

A worker commits one batch at a time, so that the claims in flight bound the commits. Each process tells how many
commits it has made and how long they took; one scheduler at a time looks at that and moves the one bound of all.
"""

from __future__ import annotations

from typing import NamedTuple

ADAPT_SECONDS = 2.0
"""Time between two looks."""
CALM_SECONDS = 0.25
"""Commits that take no longer than this on average are quick enough, whatever they took before."""
SLOW_FACTOR = 3.0
"""Commits are slow when they take so many times as long as when they went best."""
HELPED_FACTOR = 0.7
"""Commits that are quicker by so much than they ever were are not at their best yet: the bound falls on. At the first
look nobody knows how they are at best; if they are not quick, it falls, too, to find out."""
FORGET_FACTOR = 1.05
"""What went best is forgotten by so much at each look: batches grow, and machines change."""
DECREASE = 0.5
INCREASE = 1.0


class Pressure(NamedTuple):
    """The bound on claims in flight (0: any number), the best mean seconds of a commit, and what the workers had
    told in all (`commits`, and their `seconds`) when that was looked at last, `at`."""

    bound: float = 0.0
    best: float = 0.0
    commits: int = 0
    seconds: float = 0.0
    at: float = 0.0


def adapt(before: Pressure, now: float, commits: int, seconds: float, threads: int) -> Pressure:
    """The pressure at a look, with what the workers have told by now, of whom `threads` threads live."""
    if now - before.at < ADAPT_SECONDS and before.at <= now:
        return before
    new, spent = commits - before.commits, seconds - before.seconds
    after = before._replace(commits=commits, seconds=seconds, at=now)
    # A process that has ended takes what it told with it.
    if new <= 0 or spent < 0 or threads <= 0 or before.at <= 0:
        return after
    mean = spent / new
    best = min(mean, before.best * FORGET_FACTOR) if before.best > 0 else mean
    bound = min(before.bound, threads) if before.bound > 0 else float(threads)
    slow = mean > CALM_SECONDS and (before.best <= 0 or mean > SLOW_FACTOR * best or mean < HELPED_FACTOR * before.best)
    bound = max(1.0, bound * DECREASE) if slow else bound + INCREASE
    return after._replace(best=best, bound=0.0 if bound > threads else bound)


def claims(pressure: Pressure) -> int:
    """How many claims may be in flight; 0 for any number."""
    return max(1, int(pressure.bound)) if pressure.bound > 0 else 0
