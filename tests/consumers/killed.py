"""A worker that a fault point kills: claims all that waits in a test's installation and imports it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.consumers import reading
from pipeline.parsers import Parser
from pipeline.tasks import Parsed, Task
from tests.consumers.house import EPOCH, build, inbox


def parse(body: Any, rules: Any) -> Iterator[Parsed]:
    """So many tasks as the file says, in pieces."""
    count = int(body.content)
    for first in range(0, count, 1000):
        yield Parsed([Task(n + 1, f'"{body.key} {n}"') for n in range(first, min(count, first + 1000))])


def run(folder: Path) -> None:
    """Import everything, one claim after another."""
    reading.select = lambda *_: Parser("counted", 1, parse)
    house = build(folder, [inbox()])
    house.ledger.tick(lambda tick: tick.release(EPOCH))
    house.note("a", "b", "large")
    importer = house.importer()
    while claims := house.claim():
        for claim in claims:
            importer.run(claim.lease)
    house.ledger.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
