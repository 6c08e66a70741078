"""Random interleavings of events, claims, starts, commits, expiries and crashes, as a Hypothesis machine."""

from __future__ import annotations

from itertools import count

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from pipeline.ledger import OnChange
from tests.ledger.bench import Bench
from tests.ledger.simulation import CONTENTS, KEYS, Simulation

keys = st.sampled_from(KEYS)
indices = st.integers(0, 7)
_names = count()


class Machine(RuleBasedStateMachine):
    """One run: whatever happens, it ends with every object at its newest content exactly once."""

    bench: Bench
    simulation: Simulation

    @initialize(policy=st.sampled_from(["ignore", "replace", "append"]), archive=st.booleans(), ordered=st.booleans())
    def begin(self, policy: OnChange, archive: bool, ordered: bool) -> None:
        """Choose how the source behaves."""
        self.simulation = Simulation(self.bench, f"m{next(_names)}", policy, archive=archive, ordered=ordered)

    @rule(key=keys, content=st.sampled_from(sorted(CONTENTS)))
    def put(self, key: str, content: str) -> None:
        """An object is written."""
        self.simulation.put(key, content)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        """An object is deleted."""
        self.simulation.delete(key)

    @precondition(lambda self: self.simulation.log)
    @rule(chosen=st.lists(indices, min_size=1, max_size=4), keep=st.booleans())
    def deliver(self, chosen: list[int], keep: bool) -> None:
        """Events arrive, in some order, perhaps not for the last time."""
        self.simulation.deliver(chosen, keep=keep)

    @rule(late=st.booleans())
    def list(self, late: bool) -> None:
        """A pass."""
        self.simulation.passes(late=late)

    @rule(staged=st.booleans())
    def catch_up(self, staged: bool) -> None:
        """A quiet moment: what the log holds and what the store holds is recorded and imported."""
        self.simulation.deliver(range(100), keep=False)
        self.simulation.passes(late=False)
        self.simulation.work(staged=staged)

    @rule(size=st.integers(1, 4))
    def claim(self, size: int) -> None:
        """A turn of the scheduler."""
        self.simulation.claim(size)

    @precondition(lambda self: self.simulation.sent)
    @rule(index=indices, twice=st.booleans())
    def start(self, index: int, twice: bool) -> None:
        """A message arrives."""
        self.simulation.start(index, twice=twice)

    @precondition(lambda self: self.simulation.hands)
    @rule(index=indices)
    def read(self, index: int) -> None:
        """A worker reads an object."""
        self.simulation.read(index)

    @precondition(lambda self: self.simulation.hands)
    @rule(index=indices, staged=st.booleans(), repeat=st.booleans())
    def commit(self, index: int, staged: bool, repeat: bool) -> None:
        """A worker commits."""
        self.simulation.commit(index, staged=staged, repeat=repeat)

    @precondition(lambda self: self.simulation.hands)
    @rule(index=indices, lost=st.sampled_from([None, True, False]))
    def stop(self, index: int, lost: bool | None) -> None:
        """A worker dies, stops, or loses a child."""
        if lost is None:
            self.simulation.die(index)
        else:
            self.simulation.give_back(index, lost=lost)

    @rule(index=indices)
    def expire(self, index: int) -> None:
        """A lease ends."""
        self.simulation.expire(index)

    @rule(key=keys, force=st.booleans())
    def retry(self, key: str, force: bool) -> None:
        """A person puts an object back."""
        self.simulation.retry(key, force=force)

    @rule(index=indices, accept=st.booleans())
    def decide(self, index: int, accept: bool) -> None:
        """A person decides on a proposed revision."""
        self.simulation.decide(index, accept=accept)

    @rule()
    def tidy(self) -> None:
        """What was never published is swept."""
        self.simulation.sweep()

    @rule()
    def check(self) -> None:
        """Counters are right at any moment."""
        self.bench.check()

    def teardown(self) -> None:
        """Let everything come to rest, and look."""
        if hasattr(self, "simulation"):
            self.simulation.settle()
            self.simulation.verify()


def run(bench: Bench, examples: int, steps: int) -> None:
    """Try so many random runs over one database. Failures aren't shrunk: that would take minutes."""

    def make() -> Machine:
        machine = Machine()
        machine.bench = bench
        return machine

    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck),
        database=None, print_blob=False, phases=[Phase.generate],
    )  # fmt: skip
    run_state_machine_as_test(make, settings=chosen)  # type: ignore[arg-type]
