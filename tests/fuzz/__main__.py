"""`python -m tests.fuzz [-max_total_time=600] [DIR]`: fuzz the parsers with atheris, from the kept cases on.

Atheris is no dependency of the project: `pip install atheris` into an environment of its own that has the project,
too. New inputs go to DIR; one that breaks something is written as `crash-…`: keep it in `corpus/`, then mend.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # see above

with atheris.instrument_imports(include=["pipeline.parsers", "pipeline.labelconfig", "pipeline.tasks"]):
    from tests.fuzz import harness

CORPUS = str(Path(__file__).parent / "corpus")

if __name__ == "__main__":
    atheris.Setup([*sys.argv, CORPUS], harness.one)
    atheris.Fuzz()
